// A cover: the middle of an image, cut out by the browser, so that a photograph of 20 MB never travels.
import { call, say } from "galilean/page";

const WIDTH = 560, HEIGHT = 314;

async function cropped(file) {
  const picture = await createImageBitmap(file);
  const canvas = document.createElement("canvas");
  canvas.width = WIDTH;
  canvas.height = HEIGHT;
  const scale = Math.max(WIDTH / picture.width, HEIGHT / picture.height);
  const width = picture.width * scale, height = picture.height * scale;
  const pen = canvas.getContext("2d");
  pen.fillStyle = "#ffffff";
  pen.fillRect(0, 0, WIDTH, HEIGHT);
  pen.drawImage(picture, (WIDTH - width) / 2, (HEIGHT - height) / 2, width, height);
  return new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.88));
}

for (const field of document.querySelectorAll("[data-cover]")) {
  const problem = field.querySelector("[data-cover-error]"), remove = field.querySelector("[data-cover-remove]"), image = field.querySelector("img.cover");
  const failed = (text) => { problem.hidden = false; problem.textContent = text; };
  field.querySelector("[data-cover-file]").addEventListener("change", async (event) => {
    const [file] = event.target.files;
    event.target.value = "";
    if (!file) return;
    problem.hidden = true;
    let body;
    try { body = await cropped(file); } catch { failed(say("The image could not be read. Choose another.")); return; }
    try {
      const made = await call(field.dataset.cover, { method: "PUT", body, headers: { "Content-Type": "image/jpeg" } });
      image.src = made.cover;
      remove.hidden = false;
    } catch (error) { failed(error.message); }
  });
  remove.addEventListener("click", async () => {
    try { await call(field.dataset.cover, { method: "DELETE" }); location.reload(); } catch (error) { failed(error.message); }
  });
}
