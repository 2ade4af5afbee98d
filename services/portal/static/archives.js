// Export: what is chosen is counted. Import: the archive goes up in one piece, with how far it is.
import { xsrf } from "galilean/page";
import { toast } from "galilean/toasts";

const out = document.querySelector("[data-archive-out]");
const boxes = () => [...out.querySelectorAll("input[name=project]")];
function count() {
  const chosen = boxes().filter((box) => box.checked).length;
  out.querySelector("[type=submit]").disabled = !chosen;
  out.querySelector("[data-chosen]").textContent = chosen ? String(chosen) : "";
}
out?.addEventListener("change", (event) => {
  if (event.target.matches("[data-all]")) for (const box of boxes()) box.checked = event.target.checked;
  count();
});
document.body.addEventListener("htmx:afterSwap", () => out && count());

const form = document.querySelector("[data-archive-in]");
form?.addEventListener("submit", (event) => {
  event.preventDefault();
  const file = form.querySelector("input[type=file]").files[0];
  if (!file) return;
  const bar = form.querySelector("progress"), told = form.querySelector("[data-how-far]"), button = form.querySelector("[type=submit]");
  const request = new XMLHttpRequest();
  request.open("POST", `${form.dataset.to}?name=${encodeURIComponent(file.name)}`);
  request.setRequestHeader("X-XSRFToken", xsrf);
  request.setRequestHeader("Content-Type", "application/gzip");
  request.setRequestHeader("Accept", "application/json");
  request.upload.addEventListener("progress", (step) => {
    bar.value = step.loaded / (step.total || 1);
    told.textContent = `${Math.round(100 * bar.value)} %`;
  });
  const end = (message) => { button.disabled = false; bar.hidden = true; told.textContent = ""; if (message) toast(message, { tone: "bad" }); };
  request.addEventListener("load", () => {
    let answer = {};
    try { answer = JSON.parse(request.responseText); } catch { /* not ours */ }
    if (request.status === 202) location.assign(`${form.dataset.then}/${answer.id}`);
    else end(answer.detail || `${request.status}`);
  });
  request.addEventListener("error", () => end("×"));
  bar.hidden = false;
  button.disabled = true;
  request.send(file);
});
