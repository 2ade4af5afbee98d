// The file manager of a project or data set: a client of the API, the same on every page that has one.
import { call, say } from "galilean/page";
import { refreshTimes } from "galilean/times";
import { toast } from "galilean/toasts";

const root = document.querySelector("[data-files]");
const { api, page: home, title } = root.dataset, mayWrite = root.dataset.write !== "", most = Number(root.dataset.most);
const [{ Uploads, dropped, follow, sizeText }, dialogs, { serve }] = await Promise.all([import(root.dataset.uploadsModule), import(root.dataset.dialogsModule), import(root.dataset.pdfModule)]);
// Nobody waits for it before they can work with files.
const coming = root.dataset.objectsModule ? import(root.dataset.objectsModule) : null;
const { element } = dialogs;

const find = (name) => root.querySelector(`[data-${name}]`);
const list = find("list"), crumbs = find("crumbs"), box = find("uploads");
const PAGE = 200;
const ENDINGS = {
  __proto__: null,
  ipynb: "journal-code", py: "file-earmark-code", r: "file-earmark-code", jl: "file-earmark-code", c: "file-earmark-code", cpp: "file-earmark-code", sh: "file-earmark-code",
  md: "file-earmark-text", txt: "file-earmark-text", csv: "file-earmark-text", tsv: "file-earmark-text", json: "file-earmark-text", pdf: "file-earmark-text",
  png: "file-earmark-image", jpg: "file-earmark-image", jpeg: "file-earmark-image", gif: "file-earmark-image", svg: "file-earmark-image", webp: "file-earmark-image",
  zip: "file-earmark-zip", gz: "file-earmark-zip", tar: "file-earmark-zip", tgz: "file-earmark-zip", xz: "file-earmark-zip", bz2: "file-earmark-zip",
};
const ARCHIVE = /\.(zip|tar|tgz|tbz2|txz|tar\.(gz|bz2|xz))$/i;
const PDF = /\.pdf$/i;
const TABLE = /\.(csv|tsv)$/i;
const NO_TEXT = /\.(ipynb|png|jpe?g|gif|webp|pdf|zip|gz|tgz|xz|bz2|tar|npy|npz|h5|hdf5|parquet|nc|pt|pth|bin|so|whl|mp4|mp3|wav|docx?|xlsx?|pptx?)$/i;
const EDIT_BYTES = 2 * 2 ** 20;

/** Where one is: everything that the address of the page says, and how the list is looked at. */
const at = { folder: "", file: "", sort: "name", order: "up", hidden: false, find: "" };
let items = [], next = null, total = 0, asked = null, current = -1;
const selected = new Set();

const parent = (path) => (path.includes("/") ? path.slice(0, path.lastIndexOf("/")) : "");
const below = (name) => (at.folder ? `${at.folder}/` : "") + encodeURIComponent(name);
const decoded = (path) => path.split("/").map((part) => { try { return decodeURIComponent(part); } catch { return part; } }).join("/");
/** A path of the address, unless it leads out of the files: a browser follows dots before it asks, also written as %2e. */
const inside = (path) => (decoded(path).split(/[\\/]/).some((part) => part === "." || part === "..") ? "" : path);
const icon = (name) => root.querySelector(`template[data-icon="${name}"]`).content.cloneNode(true);
const iconOf = (item) => (item.kind === "folder" ? "folder" : ENDINGS[item.name.slice(item.name.lastIndexOf(".") + 1).toLowerCase()] || "file-earmark");
const tellScreenReader = (text) => { find("said").textContent = text; };
const named = (paths) => (paths.length === 1 ? `“${decoded(paths[0]).split("/").at(-1)}”` : say("these {count}", { count: paths.length }));

function address({ folder = at.folder, file = "" } = {}) {
  const query = new URLSearchParams();
  if (folder) query.set("folder", folder);
  if (file) query.set("file", file);
  return home + (query.size ? `?${query}` : "");
}

// ---- the list ----
function ask(cursor = "", limit = PAGE) {
  const query = new URLSearchParams({ sort: at.sort, order: at.order, limit });
  if (at.hidden) query.set("hidden", "true");
  if (at.find) query.set("q", at.find);
  if (cursor) query.set("cursor", cursor);
  return `${api}/files${at.folder ? `/${at.folder}/` : ""}?${query}`;
}

async function load({ keep = false } = {}) {
  asked?.abort();
  const mine = (asked = new AbortController());
  list.setAttribute("aria-busy", "true");
  try {
    const page = await call(ask("", keep ? Math.min(1000, Math.max(PAGE, items.length)) : PAGE), { signal: mine.signal });
    const focused = keep ? document.activeElement?.closest?.(".tree-item")?.dataset.path : "";
    items = page.items;
    ({ next, total } = page);
    const there = new Set(items.map((item) => item.path));
    for (const path of selected) if (!there.has(path)) selected.delete(path);
    show();
    const index = items.findIndex((item) => item.path === focused);
    if (index >= 0) move(index);
  } catch (error) {
    if (mine.signal.aborted) return;
    if (error.problem?.status === 404 && at.folder) { toast(error.message, { tone: "bad" }); go(parent(at.folder), { replace: true }); return; }
    items = [];
    [next, total] = [null, 0];
    show(error.message);
  } finally { if (!mine.signal.aborted) list.removeAttribute("aria-busy"); }
}

async function further() {
  if (!next) return;
  const cursor = next;
  next = null;
  try {
    const page = await call(ask(cursor));
    const from = items.length;
    items.push(...page.items);
    ({ next, total } = page);
    list.append(...page.items.map((item, index) => row(item, from + index)));
    refreshTimes(list);
    foot();
  } catch (error) { next = cursor; toast(error.message, { tone: "bad" }); }
}

function row(item, index) {
  const line = element("li", { class: "tree-item", "data-path": item.path, "data-name": item.name, "data-kind": item.kind });
  const check = element("input", { type: "checkbox", class: "check", "aria-label": say("Select {name}", { name: item.name }), tabindex: -1 });
  check.checked = selected.has(item.path);
  const name = element("span", { class: "truncate", dir: "auto", title: item.name, text: item.name });
  const facts = element("span", { class: "size" });
  const time = element("time", { datetime: item.changed_at, "data-style": "relative", class: "changed" });
  let door;
  if (item.kind === "folder") door = element("a", { class: "tree-row", href: address({ folder: item.path }), tabindex: -1 });
  else if (item.kind === "file") { door = element("a", { class: "tree-row", href: address({ file: item.path }), tabindex: -1 }); facts.textContent = sizeText(item.size_bytes); }
  else { door = element("span", { class: "tree-row dull", tabindex: -1 }); facts.textContent = item.kind === "link" ? say("link") : say("special"); }
  if (item.path === at.file) { line.classList.add("selected"); door.setAttribute("aria-current", "true"); }
  door.append(icon(iconOf(item)), name, time, facts);
  const menu = element("details", { class: "menu row-menu" }, element("summary", { class: "iconbutton", "aria-label": say("Actions for {name}", { name: item.name }), tabindex: -1 }, icon("three-dots")), element("div", { class: "panel" }));
  line.append(check, door, menu);
  if (index === Math.max(0, current)) for (const part of [check, door, menu.firstElementChild]) part.tabIndex = 0;
  return line;
}

function show(problem = "") {
  current = -1;
  const rows = items.map(row);
  if (at.folder && !at.find) {
    const up = element("li", {}, element("a", { class: "tree-row", href: address({ folder: parent(at.folder) }) }, icon("arrow-left"), element("span", { text: say("Back") })));
    rows.unshift(up);
  }
  list.replaceChildren(...rows);
  refreshTimes(list);
  const empty = find("empty");
  empty.hidden = items.length > 0;
  if (problem) empty.replaceChildren(element("p", { class: "bad", text: problem }));
  else if (at.find) empty.replaceChildren(element("p", { text: say("No file here has that in its name.") }));
  else empty.replaceChildren(root.querySelector(at.folder ? "template[data-empty-folder]" : "template[data-empty-top]").content.cloneNode(true));
  way();
  foot();
  count();
  tellScreenReader(say("{total} in all", { total }));
}

function foot() {
  const more = find("more");
  more.hidden = !next;
  find("total").textContent = say("{total} in all", { total });
}

function way() {
  const parts = at.folder ? at.folder.split("/") : [];
  const top = element("a", { href: address({ folder: "" }), title });
  top.append(icon("folder2-open"));
  const name = root.dataset.top;
  if (!parts.length) top.append(element("span", { class: "mono work-name truncate", text: name }));
  top.setAttribute("aria-label", parts.length ? say("Top folder") : `${name}: ${say("Top folder")}`);
  const steps = [top];
  parts.forEach((part, index) => {
    steps.push(element("span", { "aria-hidden": "true", text: "/" }));
    const link = element("a", { class: "truncate", dir: "auto", href: address({ folder: parts.slice(0, index + 1).join("/") }), text: decoded(part) });
    if (index === parts.length - 1) link.setAttribute("aria-current", "location");
    steps.push(link);
  });
  crumbs.replaceChildren(...steps);
  const all = root.querySelector("[data-all-zip]");
  all.href = `${api}/archive?form=zip${at.folder ? `&path=${encodeURIComponent(at.folder)}` : ""}`;
}

/** The row that Tab reaches; arrows go on from it. */
function move(index, { focus = true } = {}) {
  const rows = [...list.querySelectorAll(".tree-item")];
  if (!rows.length) return;
  const to = Math.max(0, Math.min(index, rows.length - 1));
  for (const part of list.querySelectorAll('.tree-item [tabindex="0"]')) part.tabIndex = -1;
  const now = rows[to];
  for (const part of [now.querySelector(".check"), now.querySelector(".tree-row"), now.querySelector("summary")]) if (part) part.tabIndex = 0;
  current = to;
  if (focus) now.querySelector(".tree-row").focus();
  if (to >= rows.length - 20) further();
}

// ---- going somewhere ----
function readAddress() {
  const query = new URLSearchParams(location.search);
  at.folder = inside((query.get("folder") || "").replace(/^\/+|\/+$/g, ""));
  at.file = inside(query.get("file") || "");
  if (at.file && !query.has("folder")) at.folder = parent(at.file);
}

function go(folder, { replace = false } = {}) {
  Object.assign(at, { folder, file: "", find: "" });
  selected.clear();
  find("find").value = "";
  history[replace ? "replaceState" : "pushState"]({}, "", address());
  load().then(first);
}

function pick(item) {
  at.file = item.path;
  history.pushState({}, "", address({ file: item.path }));
  for (const line of list.querySelectorAll(".tree-item")) {
    const chosen = line.dataset.path === at.file;
    line.classList.toggle("selected", chosen);
    line.querySelector(".tree-row").toggleAttribute("aria-current", chosen);
  }
  preview(item);
}

/** What is shown before anything is picked: the README, else the first notebook. */
function first() {
  const names = ["readme.md", "readme.markdown", "readme.txt", "readme"];
  let item = items.find((one) => one.path === at.file && one.kind === "file");
  if (!item && at.file) {
    call(`${api}/files/${parent(at.file)}${parent(at.file) ? "/" : ""}?limit=1000&hidden=true&q=${encodeURIComponent(decoded(at.file).split("/").at(-1))}`)
      .then((page) => preview(page.items.find((one) => one.path === at.file && one.kind === "file")), () => preview(null));
    return;
  }
  item ||= items.filter((one) => one.kind === "file" && names.includes(one.name.toLowerCase())).sort((a, b) => names.indexOf(a.name.toLowerCase()) - names.indexOf(b.name.toLowerCase()))[0];
  item ||= items.find((one) => one.kind === "file" && one.name.endsWith(".ipynb"));
  preview(item);
}

let shown = null;
function preview(item) {
  shown = item || null;
  find("shown-head").hidden = !item;
  const body = find("shown-body");
  if (!item) { body.replaceChildren(((!items.length && !at.folder && !at.find && root.querySelector("template[data-shown-ready]")) || root.querySelector("template[data-shown-none]")).content.cloneNode(true)); return; }
  find("shown-name").textContent = item.name;
  find("shown-facts").replaceChildren(`${sizeText(item.size_bytes)} · ${say("saved")} `, element("time", { datetime: item.changed_at, "data-style": "relative" }));
  refreshTimes(find("shown-facts"));
  const download = find("shown-download");
  download.href = `${api}/files/${item.path}`;
  download.setAttribute("aria-label", `${download.textContent.trim()} ${item.name}`);
  const editing = find("shown-edit");
  if (editing) editing.hidden = !editable(item);
  // The frame has an origin of its own, and no scripts; that of a PDF only ours: services.catalog.preview, services.portal.pdf_view.
  const frame = root.querySelector("template[data-shown-frame]").content.firstElementChild.cloneNode();
  frame.title = say("Preview of {name}", { name: item.name });
  frame.dataset.src = `${api}/preview/${item.path}`;
  const as = find("shown-as");
  as.hidden = !TABLE.test(item.name);
  if (!as.hidden && as.querySelector(":checked").value) frame.dataset.as = "text";
  if (PDF.test(item.name)) {
    frame.setAttribute("sandbox", "allow-scripts");
    serve(frame, { file: `${api}/files/${item.path}`, parts: root.dataset.pdfParts, problem: say("The file could not be fetched. Try again.") });
  }
  body.replaceChildren(frame);
  frames();
}
find("shown-as").addEventListener("change", () => { if (shown) preview(shown); });

function frames() {
  for (const frame of root.querySelectorAll("iframe[data-src]")) {
    const theme = document.documentElement.getAttribute("data-bs-theme") || "light", wanted = `${frame.dataset.src}?theme=${theme}${frame.dataset.as ? `&as=${frame.dataset.as}` : ""}`;
    if (frame.getAttribute("src") !== wanted) frame.setAttribute("src", wanted);
  }
}
new MutationObserver(frames).observe(document.documentElement, { attributes: true, attributeFilter: ["data-bs-theme"] });
addEventListener("popstate", () => { readAddress(); selected.clear(); load().then(first); });

const editable = (item) => item.kind === "file" && item.size_bytes <= EDIT_BYTES && !NO_TEXT.test(item.name);
const itemOf = (line) => items.find((item) => item.path === line.dataset.path);

// ---- selection ----
function count() {
  const bar = find("selected");
  bar.hidden = !selected.size;
  find("count").textContent = say("{count} selected", { count: selected.size });
  for (const check of list.querySelectorAll(".check")) check.checked = selected.has(check.closest(".tree-item").dataset.path);
  root.classList.toggle("selecting", selected.size > 0);
}
let lastChecked = -1;
function toggle(index, { range = false } = {}) {
  const item = items[index];
  const on = !selected.has(item.path);
  const [from, to] = range && lastChecked >= 0 ? [Math.min(lastChecked, index), Math.max(lastChecked, index)] : [index, index];
  for (const one of items.slice(from, to + 1)) if (on) selected.add(one.path); else selected.delete(one.path);
  lastChecked = index;
  count();
}

// ---- what is done ----
async function refresh(more = {}) { await load({ keep: true, ...more }); }

/** A job of the portal, with its line when it takes long; what went wrong is told. Answers the job. */
async function work(json, words) {
  let job = await call(`${api}/jobs`, { method: "POST", json });
  if (!job.ended_at) job = await follow(box, api, job, words);
  const first = job.problems[0];
  if (first) toast(job.problems.length > 1 ? `${first.detail} (${job.problems.length})` : first.detail, { tone: "bad" });
  if (job.left_out.length) toast(say("{count} could not be taken out, because their names or kinds may not be here: {names}", { count: job.left_out.length, names: job.left_out.slice(0, 3).map((one) => one.name).join(", ") }), { tone: "bad" });
  return job;
}

/** Names that are taken are asked about once, then the rest is done again so. */
async function workAsking(json, words) {
  const job = await work({ ...json, taken: "refuse" }, words).catch((error) => { toast(error.message, { tone: "bad" }); return null; });
  const again = job?.problems.filter((one) => one.status === 409) || [];
  if (again.length && json.do !== "move") {
    const { answer } = await dialogs.taken(named(again.map((one) => one.path)), false);
    if (answer !== "skip") return work({ ...json, paths: again.map((one) => one.path), taken: answer }, words);
  }
  return job;
}

const acts = {
  async download(paths) {
    const only = paths.length === 1 ? items.find((item) => item.path === paths[0]) : null;
    const link = element("a", { download: "", href: only?.kind === "file" ? `${api}/files/${paths[0]}` : `${api}/archive?form=zip&${paths.map((path) => `path=${encodeURIComponent(path)}`).join("&")}` });
    document.body.append(link);
    link.click();
    link.remove();
  },
  async checksum(paths) {
    const job = await work({ do: "checksum", paths }, say("Taking checksums of {what}", { what: named(paths) }));
    if (job.made.length) await dialogs.tell(say("Checksum of {name}", { name: named(paths) }), job.made.map((sum, index) => `${sum}  ${decoded(paths[index]).split("/").at(-1)}`));
  },
  async edit([path]) {
    const name = decoded(path).split("/").at(-1);
    if (await dialogs.edit(api, path, name)) { await refresh(); const item = items.find((one) => one.path === path); if (item && shown?.path === path) preview(item); }
  },
  async rename([path]) {
    const item = items.find((one) => one.path === path);
    const name = await dialogs.nameFor(say("Rename “{name}”", { name: item.name }), { label: say("New name"), value: item.name, yes: say("Rename") });
    if (!name || name === item.name) return;
    const made = await call(`${api}/files/${path}`, { method: "PATCH", json: { name } });
    if (selected.delete(path)) selected.add(made.path);
    if (at.file === path) { at.file = made.path; history.replaceState({}, "", address({ file: made.path })); preview(made); }
    await refresh();
    move(items.findIndex((one) => one.path === made.path));
  },
  async move(paths) {
    const to = await dialogs.folderFor(say("Move {what} to", { what: named(paths) }), { api, from: at.folder, yes: say("Move") });
    if (to === null || to === at.folder) return;
    const job = await workAsking({ do: "move", paths, to }, say("Moving {what}", { what: named(paths) }));
    if (job?.made.length) toast(say("Moved."));
    await refresh();
  },
  async copy(paths) {
    const to = await dialogs.folderFor(say("Copy {what} to", { what: named(paths) }), { api, from: at.folder, yes: say("Into this folder") });
    if (to === null) return;
    const json = { do: "copy", paths, to }, words = say("Copying {what}", { what: named(paths) });
    const job = to === at.folder ? await work({ ...json, taken: "keep" }, words) : await workAsking(json, words);
    if (job?.made.length) toast(say("Copied."));
    await refresh();
  },
  async pack(paths) {
    const suggestion = paths.length === 1 ? decoded(paths[0]).split("/").at(-1) : decoded(at.folder).split("/").at(-1) || title;
    const chosen = await dialogs.archiveFor(say("Pack {what}", { what: named(paths) }), { name: suggestion });
    if (!chosen) return;
    const job = await work({ do: "pack", paths, to: at.folder, ...chosen, taken: "keep" }, say("Packing {what}", { what: named(paths) }));
    if (job.made.length) toast(say("Packed: {name}", { name: decoded(job.made[0]).split("/").at(-1) }));
    await refresh();
  },
  async unpack(paths) {
    const job = await work({ do: "unpack", paths, to: at.folder, taken: "keep" }, say("Unpacking {what}", { what: named(paths) }));
    if (job.made.length) toast(say("Unpacked into {name}", { name: decoded(job.made[0]).split("/").at(-1) }));
    await refresh();
  },
  async delete(paths) {
    const chosen = items.filter((item) => paths.includes(item.path)), folders = chosen.some((item) => item.kind === "folder");
    const one = paths.length === 1 ? chosen[0] : null;
    const text = folders ? (one ? say("The folder goes with everything in it. This cannot be undone.") : say("Folders go with everything in them. This cannot be undone.")) : say("This cannot be undone.");
    if (!await dialogs.sure(one ? say("Delete “{name}”?", { name: one.name }) : say("Delete these {count}?", { count: paths.length }), text, say("Delete"))) return;
    const before = items.findIndex((item) => item.path === paths[0]);
    const job = await work({ do: "delete", paths }, say("Deleting {what}", { what: named(paths) }));
    if (job.done && !job.problems.length) toast(one ? say("{name} is deleted.", { name: one.name }) : say("{count} are deleted.", { count: paths.length }));
    for (const path of paths) selected.delete(path);
    if (paths.includes(at.file)) { at.file = ""; history.replaceState({}, "", address()); }
    await refresh();
    if (shown && !items.some((item) => item.path === shown.path)) first();
    if (items.length) move(Math.min(before, items.length - 1));
  },
};

/** A copy from or to an object store, with its line; what came of it is told. */
async function transfer(address, name, words, json) {
  let job = await call(address, { method: "POST", json });
  if (!job.ended_at) job = await follow(box, api, job, words);
  (await coming).tellCopy(job, name);
  await refresh();
}

async function importObjects() {
  try {
    const chosen = await (await coming).chooseImport(dialogs, { sizeText });
    if (!chosen) return;
    const { name, ...asked } = chosen;
    await transfer(`${api}/object-transfers`, name, say("Importing from {name}", { name }), { do: "import", folder: at.folder, ...asked });
  } catch (error) { toast(error.message, { tone: "bad" }); }
}

acts.export = async (paths) => {
  const chosen = await (await coming).chooseExport(dialogs, named(paths));
  if (!chosen) return;
  const { name, ...asked } = chosen;
  await transfer(`${api}/object-transfers`, name, say("Exporting to {name}", { name }), { do: "export", paths, ...asked });
};

async function act(name, paths) {
  try { await acts[name](paths); } catch (error) { toast(error.message, { tone: "bad" }); }
}

async function make(what) {
  const folder = what === "folder";
  const name = await dialogs.nameFor(folder ? say("New folder") : say("New text file"), { label: say("Name"), value: folder ? "" : "notes.md", yes: folder ? say("Make folder") : say("Make file") });
  if (!name) return;
  try {
    const made = await call(`${api}/files/${below(name)}`, { method: "POST", json: { kind: what } });
    await refresh();
    move(items.findIndex((item) => item.path === made.path));
    if (!folder) await act("edit", [made.path]);
  } catch (error) { toast(error.message, { tone: "bad" }); }
}

// ---- events of the list ----
root.addEventListener("click", (event) => {
  const link = event.target.closest("a[href]");
  const line = event.target.closest(".tree-item");
  const plain = !(event.ctrlKey || event.metaKey || event.shiftKey || event.altKey);
  if (line) current = [...list.querySelectorAll(".tree-item")].indexOf(line);
  if (event.target.matches(".tree-item .check")) { toggle(current, { range: event.shiftKey }); return; }
  if (link && link.closest("[data-list], [data-crumbs]")) {
    if (line && !plain) { event.preventDefault(); toggle(current, { range: event.shiftKey }); return; }
    if (!plain) return;
    event.preventDefault();
    const item = line ? itemOf(line) : null;
    if (item?.kind === "file") pick(item);
    else go((new URL(link.href).searchParams.get("folder") || ""));
    return;
  }
  const doing = event.target.closest("[data-act]");
  if (doing) { closeMenus(); act(doing.dataset.act, [line.dataset.path]); return; }
  const many = event.target.closest("[data-do]");
  if (many) {
    if (many.dataset.do === "none") { selected.clear(); count(); move(Math.max(0, current)); } else act(many.dataset.do, [...selected]);
    return;
  }
  if (event.target.closest("[data-new-folder]")) { closeMenus(); make("folder"); }
  else if (event.target.closest("[data-new-file]")) { closeMenus(); make("file"); }
  else if (event.target.closest("[data-import-objects]")) { closeMenus(); importObjects(); }
  else if (event.target.closest("[data-more]")) further();
  else if (event.target.closest("[data-select-all]")) { closeMenus(); for (const item of items) selected.add(item.path); count(); }
  else if (event.target.closest("[data-shown-edit]")) act("edit", [shown.path]);
  else if (event.target.closest("[data-find-open]")) openFind();
  else if (event.target.closest("[data-hidden]")) { at.hidden = !at.hidden; event.target.closest("[data-hidden]").setAttribute("aria-pressed", String(at.hidden)); closeMenus(); load(); }
  else if (event.target.closest("[data-sort]")) order(event.target.closest("[data-sort]").dataset.sort);
});

function closeMenus() { for (const menu of root.querySelectorAll("details.menu[open]")) menu.open = false; }
document.addEventListener("click", (event) => { for (const menu of root.querySelectorAll("details.menu[open]")) if (!menu.contains(event.target)) menu.open = false; });

function order(sort) {
  at.order = at.sort === sort ? (at.order === "up" ? "down" : "up") : sort === "name" ? "up" : "down";
  at.sort = sort;
  for (const button of root.querySelectorAll("[data-sort]")) {
    button.setAttribute("aria-pressed", String(button.dataset.sort === sort));
    button.dataset.order = button.dataset.sort === sort ? at.order : "";
  }
  closeMenus();
  load();
}

function openFind() {
  const box = document.getElementById("files-find"), open = box.hidden;
  box.hidden = !open;
  find("find-open").setAttribute("aria-expanded", String(open));
  if (open) find("find").focus(); else if (at.find) { at.find = ""; find("find").value = ""; load(); }
}
let typing = 0;
find("find").addEventListener("input", (event) => { clearTimeout(typing); typing = setTimeout(() => { at.find = event.target.value.trim(); load(); }, 150); });
find("find").addEventListener("keydown", (event) => { if (event.key === "Escape") { event.stopPropagation(); openFind(); find("find-open").focus(); } else if (event.key === "ArrowDown") { event.preventDefault(); move(0); } });

// A menu is filled when it is opened: ten thousand rows have one each.
root.addEventListener("toggle", (event) => {
  const menu = event.target;
  if (!menu.matches?.(".row-menu") || !menu.open) return;
  for (const other of root.querySelectorAll("details.menu[open]")) if (other !== menu) other.open = false;
  const item = itemOf(menu.closest(".tree-item")), panel = menu.lastElementChild;
  if (panel.firstElementChild) { place(menu); return; }
  const parts = root.querySelector("template[data-row-menu]").content.cloneNode(true);
  const drop = (name) => parts.querySelector(`[data-act="${name}"]`)?.remove();
  if (item.kind !== "file") { drop("checksum"); drop("edit"); drop("unpack"); }
  else { if (!editable(item)) drop("edit"); if (!ARCHIVE.test(item.name)) drop("unpack"); }
  if (item.kind === "other") { drop("download"); drop("copy"); drop("pack"); }
  if (!["file", "folder"].includes(item.kind)) drop("export");
  panel.append(parts);
  place(menu);
}, true);
list.addEventListener("scroll", () => { for (const menu of list.querySelectorAll(".row-menu[open]")) menu.open = false; });
addEventListener("scroll", () => { for (const menu of list.querySelectorAll(".row-menu[open]")) place(menu); }, { passive: true });

/** Below its button, or above where there is no room: the list scrolls and would cut it off. */
function place(menu) {
  const button = menu.firstElementChild.getBoundingClientRect(), panel = menu.lastElementChild, box = panel.getBoundingClientRect();
  const below = button.bottom + 4, top = below + box.height <= innerHeight - 8 ? below : Math.max(8, button.top - 4 - box.height);
  panel.style.top = `${top}px`;
  panel.style.left = `${Math.max(8, button.right - box.width)}px`;
}

root.addEventListener("keydown", (event) => {
  if (event.target.closest("details.menu[open]") && event.key === "Escape") { const menu = event.target.closest("details.menu"); menu.open = false; menu.firstElementChild.focus(); return; }
  const line = event.target.closest(".tree-item");
  if (!line || event.target.closest(".row-menu .panel")) return;
  const index = [...list.querySelectorAll(".tree-item")].indexOf(line), paths = selected.size && selected.has(line.dataset.path) ? [...selected] : [line.dataset.path];
  const keys = {
    ArrowDown: () => move(index + 1), ArrowUp: () => move(index - 1), Home: () => move(0), End: () => move(items.length - 1),
    " ": () => { if (event.target.matches(".check, summary")) return false; toggle(index, { range: event.shiftKey }); return true; },
    F2: () => mayWrite && act("rename", [line.dataset.path]), Delete: () => mayWrite && act("delete", paths),
    Backspace: () => at.folder && go(parent(at.folder)), Escape: () => { selected.clear(); count(); },
    a: () => { if (!event.ctrlKey && !event.metaKey) return false; for (const item of items) selected.add(item.path); count(); return true; },
  };
  const key = keys[event.key];
  if (key && key() !== false) event.preventDefault();
});
new IntersectionObserver((seen) => { if (seen.some((one) => one.isIntersecting)) further(); }).observe(find("more"));

// ---- uploads ----
const uploads = mayWrite ? new Uploads({
  box, api, most,
  whenTaken: (name, several) => dialogs.taken(name, several),
  whenDone: async (many, last) => {
    toast(many === 1 ? say("{name} is there.", { name: decoded(last).split("/").at(-1) }) : say("{count} files are there.", { count: many }));
    await refresh();
    if (!shown) first();
  },
}) : null;

async function send({ files, folders }) {
  for (const folder of folders) {
    try { await call(`${api}/files/${(at.folder ? `${at.folder}/` : "") + folder.split("/").map(encodeURIComponent).join("/")}`, { method: "POST", json: { kind: "folder", parents: true } }); }
    catch (error) { if (error.problem?.status !== 409) toast(error.message, { tone: "bad" }); }
  }
  uploads.add(files, at.folder);
  if (!files.length && folders.length) await refresh();
}

const CHOOSING = "[data-upload], [data-upload-folder]";
function takeChosen(field) {
  const files = [...field.files].map((file) => ({ file, path: file.webkitRelativePath || file.name }));
  field.value = "";
  closeMenus();
  send({ files, folders: [] });
}
root.addEventListener("change", (event) => { const field = event.target.closest(CHOOSING); if (field) takeChosen(field); });
let over = 0;
const carriesFiles = (event) => mayWrite && [...(event.dataTransfer?.types || [])].includes("Files");
root.addEventListener("dragenter", (event) => { if (carriesFiles(event)) { over += 1; root.classList.add("dropping"); event.preventDefault(); } });
root.addEventListener("dragover", (event) => { if (carriesFiles(event)) event.preventDefault(); });
root.addEventListener("dragleave", () => { over = Math.max(0, over - 1); if (!over) root.classList.remove("dropping"); });
root.addEventListener("drop", async (event) => {
  if (!carriesFiles(event)) return;
  event.preventDefault();
  over = 0;
  root.classList.remove("dropping");
  send(await dropped(event.dataTransfer));
});

/** Work that was going on when the page was left. */
async function goesOn() {
  const { items: jobs } = await call(`${api}/jobs`);
  for (const job of jobs.filter((one) => !one.ended_at)) follow(box, api, job, { import: say("Import"), export: say("Export") }[job.do] ?? job.do).then(() => refresh(), () => {});
  if (coming) await (await coming).brokenOff(dialogs, box, api, (address, one) => transfer(address, one.store_name, one.do === "import" ? say("Importing from {name}", { name: one.store_name }) : say("Exporting to {name}", { name: one.store_name })).catch((error) => toast(error.message, { tone: "bad" })));
}

addEventListener("online", () => refresh());
readAddress();
load().then(first);
goesOn().catch(() => {});
// Chosen before this was there to be told.
for (const field of root.querySelectorAll(CHOOSING)) if (field.files.length) takeChosen(field);
root.dataset.ready = "yes";
