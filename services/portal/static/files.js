// A project's files: pick, upload (button or drop, with progress), new folder, rename, delete.
import { call, say, xsrf } from "galilean/page";
import { refreshTimes } from "galilean/times";
import { toast } from "galilean/toasts";

const root = document.querySelector("[data-files]");
const api = root.dataset.api, most = Number(root.dataset.most);
const encode = (path) => path.split("/").map(encodeURIComponent).join("/");
const folder = () => root.querySelector("[data-folder]").dataset.folder;
const below = (name) => `${api}/${folder() ? `${folder()}/` : ""}${encode(name)}`;

// ---- picking without loading the page ----
async function go(url, { push = true } = {}) {
  let response;
  try {
    response = await fetch(url, { headers: { "HX-Request": "true", "X-XSRFToken": xsrf }, credentials: "same-origin", cache: "no-store" });
  } catch { location.assign(url); return; }
  if (!response.ok) { location.assign(url); return; }
  const tree = root.querySelector(".tree-list"), top = tree?.scrollTop || 0, focus = document.activeElement?.closest?.(".tree-item")?.dataset.path;
  root.innerHTML = await response.text();
  if (push) history.pushState({}, "", url);
  const now = root.querySelector(".tree-list");
  if (now) now.scrollTop = top;
  if (focus) root.querySelector(`.tree-item[data-path="${CSS.escape(focus)}"] .tree-row`)?.focus();
  refreshTimes(root);
  frames();
}
const refresh = () => go(location.href, { push: false });

root.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-pick]");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  go(link.href);
});
addEventListener("popstate", () => go(location.href, { push: false }));

/** The preview learns whether it is light or dark; its frame has an origin of its own. */
function frames() {
  for (const frame of root.querySelectorAll("iframe[data-src]")) {
    const theme = document.documentElement.getAttribute("data-bs-theme") || "light";
    const wanted = `${frame.dataset.src}?theme=${theme}`;
    if (frame.getAttribute("src") !== wanted) frame.setAttribute("src", wanted);
  }
}
new MutationObserver(frames).observe(document.documentElement, { attributes: true, attributeFilter: ["data-bs-theme"] });
frames();

// ---- the menu of a row, filled when it is opened ----
root.addEventListener("toggle", (event) => {
  const menu = event.target;
  if (!menu.matches?.(".row-menu") || !menu.open || menu.lastElementChild.firstElementChild) return;
  const item = menu.closest(".tree-item"), parts = root.querySelector("template[data-row-menu]").content.cloneNode(true);
  const download = parts.querySelector("[data-download]");
  if (item.dataset.kind === "file") download.href = `${api}/${item.dataset.path}`; else download.remove();
  menu.lastElementChild.append(parts);
}, true);

// ---- upload ----
const lines = new Map();
let waiting = [], running = 0;

function tellCount() { dispatchEvent(new CustomEvent("galilean:uploads", { detail: waiting.length + running })); }

function line(name) {
  const box = root.querySelector("[data-uploads]");
  box.hidden = false;
  const element = document.createElement("div");
  element.className = "upload-line";
  const words = document.createElement("span"), bar = document.createElement("progress"), stop = document.createElement("button");
  words.className = "truncate";
  words.textContent = name;
  bar.max = 1;
  bar.value = 0;
  bar.setAttribute("aria-label", name);
  stop.type = "button";
  stop.className = "btn btn-quiet sm";
  stop.textContent = say("Cancel");
  element.append(words, bar, stop);
  box.append(element);
  return { element, bar, stop, words };
}

function sizeText(bytes) {
  let size = bytes;
  for (const unit of ["B", "KB", "MB"]) { if (size < 1024) return `${unit === "B" ? size : size.toFixed(1)}\u00a0${unit}`; size /= 1024; }
  return `${size.toFixed(1)}\u00a0GB`;
}

function send(job) {
  running += 1;
  const { file, url, shown } = job;
  const request = new XMLHttpRequest();
  request.open("PUT", `${url}?overwrite=${job.overwrite ? "true" : "false"}`);
  request.setRequestHeader("X-XSRFToken", xsrf);
  request.setRequestHeader("Accept", "application/json");
  request.setRequestHeader("Content-Type", "application/octet-stream");
  request.upload.onprogress = (event) => {
    if (!event.lengthComputable) return;
    shown.bar.value = event.loaded / event.total;
    shown.words.textContent = `${file.name} · ${sizeText(event.loaded)} / ${sizeText(event.total)}`;
  };
  const over = (message) => {
    running -= 1;
    lines.delete(job);
    shown.element.remove();
    if (message) toast(message, { tone: "bad" });
    const box = root.querySelector("[data-uploads]");
    if (box && !box.children.length) box.hidden = true;
    tellCount();
    next();
    if (!running && !waiting.length) refresh();
  };
  request.onload = async () => {
    if (request.status < 300) { toast(say("{name} is there.", { name: file.name })); over(""); return; }
    let problem = {};
    try { problem = JSON.parse(request.responseText); } catch { /* not ours */ }
    if (request.status === 409 && !job.overwrite) {
      const sure = await ask({ title: say("“{name}” is there already. Replace it?", { name: file.name }), yes: say("Replace") });
      if (sure) { running -= 1; job.overwrite = true; send(job); } else over("");
      return;
    }
    over(problem.detail || say("Something went wrong. Try again."));
  };
  request.onerror = () => over(say("The upload of {name} broke off. Try again.", { name: file.name }));
  request.onabort = () => over("");
  shown.stop.onclick = () => request.abort();
  request.send(file);
}

function next() {
  while (running < 2 && waiting.length) send(waiting.shift());
}

function upload(files) {
  for (const file of files) {
    if (file.size > most) { toast(say("{name} has {size}; you may upload {most} at once.", { name: file.name, size: sizeText(file.size), most: sizeText(most) }), { tone: "bad" }); continue; }
    const job = { file, url: below(file.name), overwrite: false, shown: line(file.name) };
    job.shown.stop.onclick = () => { waiting = waiting.filter((other) => other !== job); job.shown.element.remove(); tellCount(); };
    lines.set(job, job.shown);
    waiting.push(job);
  }
  tellCount();
  next();
}

root.addEventListener("change", (event) => {
  const field = event.target.closest("[data-upload]");
  if (!field) return;
  upload([...field.files]);
  field.value = "";
});
let over = 0;
const carriesFiles = (event) => [...(event.dataTransfer?.types || [])].includes("Files");
root.addEventListener("dragenter", (event) => { if (carriesFiles(event) && root.querySelector("[data-upload]")) { over += 1; root.classList.add("dropping"); event.preventDefault(); } });
root.addEventListener("dragover", (event) => { if (carriesFiles(event)) event.preventDefault(); });
root.addEventListener("dragleave", () => { over = Math.max(0, over - 1); if (!over) root.classList.remove("dropping"); });
root.addEventListener("drop", (event) => {
  if (!carriesFiles(event)) return;
  event.preventDefault();
  over = 0;
  root.classList.remove("dropping");
  const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.());
  if (entries.some((entry) => entry?.isDirectory)) toast(say("Folders cannot be dropped here. Pack them, or upload their files."), { tone: "bad" });
  upload([...event.dataTransfer.files].filter((_, index) => !entries[index]?.isDirectory));
});
addEventListener("beforeunload", (event) => { if (running || waiting.length) event.preventDefault(); });

// ---- small questions, in the page's own dialog ----
function ask({ title, text = "", value = null, label = "", yes, danger = false }) {
  return new Promise((done) => {
    const dialog = document.createElement("dialog");
    dialog.className = "ask";
    dialog.innerHTML = '<form method="dialog" class="body"><h2 class="t-section"></h2><p></p><div class="field-row"><label for="ask-value"></label><input class="form-control" id="ask-value" autocomplete="off"></div><p class="bad" role="alert" hidden></p><div class="buttons"><button class="btn btn-quiet" type="button" data-close></button><button class="btn" type="submit"></button></div></form>';
    const [heading, words, row, , buttons] = dialog.firstElementChild.children;
    heading.textContent = title;
    words.textContent = text;
    words.hidden = !text;
    row.hidden = value === null;
    row.querySelector("label").textContent = label;
    const field = row.querySelector("input"), submit = buttons.lastElementChild;
    field.value = value ?? "";
    buttons.firstElementChild.textContent = say("Cancel");
    submit.textContent = yes;
    submit.classList.add(danger ? "btn-danger" : "btn-primary");
    let answer = null;
    dialog.firstElementChild.addEventListener("submit", () => { answer = value === null ? true : field.value.trim() || null; });
    dialog.addEventListener("close", () => { dialog.remove(); done(answer); });
    document.body.append(dialog);
    dialog.showModal();
    if (value !== null) { field.focus(); const dot = field.value.lastIndexOf("."); field.setSelectionRange(0, dot > 0 ? dot : field.value.length); }
  });
}

root.addEventListener("click", async (event) => {
  const item = event.target.closest(".tree-item");
  try {
    if (event.target.closest("[data-new-folder]")) {
      const name = await ask({ title: say("New folder"), value: "", label: say("Name"), yes: say("Make folder") });
      if (name) { await call(below(name), { method: "POST", json: { kind: "folder" } }); await refresh(); }
    } else if (event.target.closest("[data-rename]")) {
      const name = await ask({ title: say("Rename “{name}”", { name: item.dataset.name }), value: item.dataset.name, label: say("New name"), yes: say("Rename") });
      if (name && name !== item.dataset.name) {
        const before = folder() ? `${decodeURIComponent(folder())}/` : "";
        await call(`${api}/${item.dataset.path}`, { method: "PATCH", json: { to: before + name } });
        await refresh();
      }
    } else if (event.target.closest("[data-delete]")) {
      const isFolder = item.dataset.kind === "folder";
      const sure = await ask({ title: say("Delete “{name}”?", { name: item.dataset.name }), text: isFolder ? say("The folder goes with everything in it. This cannot be undone.") : say("This cannot be undone."), yes: say("Delete"), danger: true });
      if (sure) {
        await call(`${api}/${item.dataset.path}`, { method: "DELETE" });
        toast(say("{name} is deleted.", { name: item.dataset.name }));
        const url = new URL(location.href);
        if (url.searchParams.get("file") === item.dataset.path) url.searchParams.delete("file");
        await go(url, { push: false });
      }
    }
  } catch (error) {
    toast(error.message, { tone: "bad" });
  }
});
