// A packed image goes up: tus, paused and gone on with, also after the page was loaded again and the same file chosen.
import { say, xsrf } from "galilean/page";

const form = document.getElementById("image-upload");
/** One request at most, so that no proxy's time limit cuts one that is moving. */
const PIECE_BYTES = 64 * 2 ** 20;
const RETRY_MS = [0, 1000, 3000, 5000, 10000, 20000, 30000, 60000, 60000, 60000, 120000, 120000, 120000];
const size = (bytes) => (bytes >= 2 ** 30 ? `${(bytes / 2 ** 30).toFixed(2)} GB` : `${(bytes / 2 ** 20).toFixed(1)} MB`);

if (form) {
  const part = (name) => form.querySelector(`[data-${name}]`);
  const problem = part("error"), progress = part("progress"), bar = progress.querySelector("progress"), far = part("how-far");
  const pause = part("pause"), stop = part("stop"), away = part("away"), begin = form.querySelector("[type=submit]");
  const fields = ["archive", "into", "name", "description"].map((name) => form.elements[name]);
  let upload = null, going = false, before = form.elements.into.selectedOptions[0].dataset.slug;

  const tell = (text) => { problem.hidden = !text; problem.textContent = text || ""; };
  function show(on, paused = false) {
    going = on;
    progress.hidden = !on;
    for (const field of fields) field.disabled = on;
    begin.hidden = on;
    away.hidden = on;
    pause.hidden = stop.hidden = !on;
    pause.textContent = paused ? say("Go on") : say("Pause");
  }
  addEventListener("beforeunload", (event) => { if (going) event.preventDefault(); });

  // The name begins with that of the entry it becomes a version of.
  form.elements.into.addEventListener("change", () => {
    const slug = form.elements.into.selectedOptions[0].dataset.slug, name = form.elements.name;
    const [typed, tag = ""] = name.value.split(":");
    if (!typed || typed === before) name.value = slug ? `${slug}:${tag}` : tag ? `:${tag}` : "";
    before = slug;
    name.dispatchEvent(new Event("input", { bubbles: true }));
  });

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const file = form.elements.archive.files[0], most = Number(form.dataset.most);
    tell("");
    if (!file) return tell(say("Choose the archive."));
    if (most && file.size > most) return tell(say("The archive has {size}; you may upload {most} at once.", { size: size(file.size), most: size(most) }));
    const tus = globalThis.tus;
    if (!tus?.isSupported) return tell(say("This browser cannot upload in pieces."));
    const metadata = { filename: file.name, name: form.elements.name.value.trim(), description: form.elements.description.value.trim(), into: form.elements.into.value };
    let image = "";
    show(true);
    far.textContent = "";
    upload = new tus.Upload(file, {
      endpoint: `${form.dataset.api}/uploads`,
      chunkSize: PIECE_BYTES,
      retryDelays: RETRY_MS,
      removeFingerprintOnSuccess: true,
      fingerprint: async () => `galilean-image-${JSON.stringify([form.dataset.api, metadata, file.size, file.lastModified])}`,
      headers: { "X-XSRFToken": xsrf, Accept: "application/json" },
      metadata,
      onShouldRetry: (error) => {
        const status = error.originalResponse?.getStatus() || 0;
        const again = status === 0 || status >= 502 || status === 423 || status === 429 || (status === 409 && /offset/.test(error.originalResponse.getBody() || ""));
        if (again) far.textContent = say("No connection. Goes on by itself.");
        return again;
      },
      onProgress: (sent, all) => { bar.value = sent / (all || 1); far.textContent = say("{done} of {all}", { done: size(sent), all: size(all) }); },
      onAfterResponse: (_, response) => { image = response.getHeader("Galilean-Path") || image; },
      onSuccess: () => { show(false); location.assign(image ? `${form.dataset.place}/${image}` : form.dataset.place); },
      onError: (error) => {
        let told = {};
        try { told = JSON.parse(error.originalResponse?.getBody() || "{}"); } catch { /* not ours */ }
        show(false);
        tell(told.detail || error.message);
      },
    });
    const earlier = await upload.findPreviousUploads();
    if (earlier.length) upload.resumeFromPreviousUpload(earlier[0]);
    upload.start();
  });

  pause.addEventListener("click", () => {
    if (pause.textContent === say("Go on")) { show(true); upload.start(); return; }
    upload.abort();
    show(true, true);
    far.textContent = say("Paused");
  });
  stop.addEventListener("click", async () => {
    try { await upload.abort(true); } catch { /* it expires by itself */ }
    show(false);
  });
}
