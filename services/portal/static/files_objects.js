// Import from and export to object stores: what is chosen, in dialogs of the file manager; the copy is a job like others.
import { call, portal, say } from "galilean/page";
import { toast } from "galilean/toasts";

let number = 0;
const nameOf = (path) => path.replace(/\/$/, "").split("/").at(-1);

/** A field with its label. */
function field(element, label, made) {
  number += 1;
  made.id = `object-${number}`;
  return element("div", { class: "field-row" }, element("label", { for: made.id, text: label }), made);
}

function storeSelect(element, stores) {
  const select = element("select", { class: "form-select" });
  for (const one of stores) select.append(element("option", { value: one.id, text: `${one.name} (${one.bucket}/${one.prefix})` }));
  return select;
}

function takenSelect(element) {
  return element("select", { class: "form-select" }, element("option", { value: "leave", text: say("Leave what is there") }), element("option", { value: "replace", text: say("Replace it") }));
}

async function none(dialogs, title, text) {
  if (await dialogs.dialog(title, [dialogs.element("p", { text })], [dialogs.cancel(), { label: say("To the object stores"), value: true, kind: "btn-primary" }])) location.href = `${portal}object-stores`;
}

/** What comes into a folder: {store, prefix, names, taken}, or null. */
export async function chooseImport(dialogs, { sizeText }) {
  const { element } = dialogs, title = say("Import from object store");
  const { items: stores } = await call("api/v1/object-stores");
  if (!stores.length) { await none(dialogs, title, say("You have no object store to copy from. Add one first.")); return null; }
  const select = storeSelect(element, stores), taken = takenSelect(element);
  const begins = element("input", { class: "form-control", type: "search", autocomplete: "off", maxlength: 200, spellcheck: "false" });
  const path = element("p", { class: "mono t-small wrap-any", role: "status" }), list = element("ul", { class: "folder-list object-list" });
  const more = element("button", { class: "btn sm btn-quiet", type: "button", text: say("More"), hidden: true });
  const chosen = new Set();
  let prefix = "", asked = 0;

  const enter = (to, label) => {
    const button = element("button", { type: "button", class: "item", dir: "auto", text: label });
    button.addEventListener("click", () => { begins.value = ""; show(to); });
    return button;
  };
  const row = (item) => {
    const check = element("input", { type: "checkbox", class: "check", "aria-label": say("Select {name}", { name: item.name }) });
    check.addEventListener("change", () => { if (check.checked) chosen.add(item.name); else chosen.delete(item.name); });
    if (item.kind === "folder") return element("li", {}, check, enter(item.key, item.name));
    const label = element("span", { class: "item", dir: "auto", text: item.name });
    label.addEventListener("click", () => check.click());
    return element("li", {}, check, label, element("span", { class: "size text3 nowrap", text: sizeText(item.size_bytes) }));
  };
  const show = async (to, cursor = "") => {
    const mine = (asked += 1);
    if (!cursor) { prefix = to; chosen.clear(); }
    const place = stores.find((one) => one.id === select.value);
    path.textContent = `${place.bucket}/${place.prefix}${prefix}`;
    list.setAttribute("aria-busy", "true");
    const rows = [];
    try {
      const query = new URLSearchParams({ prefix, limit: 200 });
      if (begins.value) query.set("q", begins.value);
      if (cursor) query.set("cursor", cursor);
      const page = await call(`api/v1/object-stores/${select.value}/objects?${query}`);
      if (mine !== asked) return;
      if (!cursor && prefix) rows.push(element("li", {}, enter(prefix.slice(0, prefix.slice(0, -1).lastIndexOf("/") + 1), `.. ${say("Back")}`)));
      rows.push(...page.items.filter((item) => item.key !== prefix).map(row));
      more.hidden = !page.next;
      more.onclick = () => show(prefix, page.next);
    } catch (error) {
      if (mine !== asked) return;
      more.hidden = true;
      rows.push(element("li", { class: "bad", role: "alert", text: error.message }));
    }
    if (!rows.length && !cursor) rows.push(element("li", { class: "text3", text: say("Nothing here.") }));
    if (cursor) list.append(...rows); else list.replaceChildren(...rows);
    list.removeAttribute("aria-busy");
  };
  select.addEventListener("change", () => { begins.value = ""; show(""); });
  let typing = 0;
  begins.addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(() => show(prefix), 250); });
  begins.addEventListener("keydown", (event) => { if (event.key === "Enter") event.preventDefault(); });
  const done = await dialogs.dialog(title, [
    field(element, say("Object store"), select), path, field(element, say("Whose names begin with"), begins), list, more,
    element("p", { class: "t-small text2", text: say("Choose what comes into this folder; nothing chosen = all that is shown here.") }),
    field(element, say("When a name is taken by something else"), taken),
  ], [dialogs.cancel(), { label: say("Import"), value: true, kind: "btn-primary" }], { onOpen: () => show("") });
  if (!done) return null;
  // Nothing ticked while names are looked for: what is shown begins so.
  const names = chosen.size || !begins.value ? [...chosen] : [...list.querySelectorAll(".check")].map((box) => box.closest("li").querySelector(".item").textContent);
  return { store: select.value, name: stores.find((one) => one.id === select.value).name, prefix, names, taken: taken.value };
}

/** Where files go: {store, prefix, taken}, or null. */
export async function chooseExport(dialogs, what) {
  const { element } = dialogs, title = say("Export {what} to an object store", { what });
  const { items } = await call("api/v1/object-stores"), stores = items.filter((one) => one.writable);
  if (!stores.length) { await none(dialogs, title, say("None of your object stores can be written to. Change one, or add one.")); return null; }
  const select = storeSelect(element, stores), taken = takenSelect(element);
  const folder = element("input", { class: "form-control mono", autocomplete: "off", maxlength: 500, spellcheck: "false", dir: "auto", placeholder: "results/2026" });
  const done = await dialogs.dialog(title, [
    field(element, say("Object store"), select), field(element, say("Folder in the store"), folder), field(element, say("When a name is taken by something else"), taken),
  ], [dialogs.cancel(), { label: say("Export"), value: true, kind: "btn-primary" }], { onOpen: () => folder.focus() });
  if (!done) return null;
  const prefix = folder.value.trim().replace(/^\/+|\/+$/g, "");
  return { store: select.value, name: stores.find((one) => one.id === select.value).name, prefix: prefix ? `${prefix}/` : "", taken: taken.value };
}

/** What came of a copy, in a line or two. */
export function tellCopy(job, name) {
  const count = Number(job.made[0] ?? 0), first = job.problems[0];
  if (count) toast(job.do === "import" ? say("{count} files came in.", { count }) : say("{count} files were written to {name}.", { count, name }));
  else if (job.state === "done" && !first && !job.left_out.length) toast(say("Nothing had to be copied: all of it is there."));
  if (job.left_out.length) toast(say("{count} were left out, because something else has their name, or they are no files: {names}", { count: job.left_out.length, names: job.left_out.slice(0, 3).map((one) => nameOf(one.name)).join(", ") }), { tone: "bad" });
  if (first) toast(say("{count} could not be copied: {problem}", { count: job.problems.length, problem: first.detail }), { tone: "bad" });
}

/** Copies that broke off, each with a line: go on, or put it away. */
export async function brokenOff(dialogs, box, api, goOn) {
  const { element } = dialogs, { items } = await call(`${api}/object-transfers`);
  for (const one of items.filter((item) => item.state === "broken")) {
    const go = element("button", { type: "button", class: "btn btn-tonal sm", text: say("Go on") }), away = element("button", { type: "button", class: "btn btn-quiet sm", text: say("Discard") });
    const line = element("div", { class: "upload-line" }, element("span", { class: "wrap-any", text: say("A copy from or to {name} was broken off. What came whole is there.", { name: one.store_name }) }), element("span", { class: "upload-tools" }, go, away));
    const gone = () => { line.remove(); box.hidden = !box.children.length; };
    go.addEventListener("click", async () => { gone(); await goOn(`${api}/object-transfers/${one.id}`, one); });
    away.addEventListener("click", async () => { try { await call(`${api}/object-transfers/${one.id}`, { method: "DELETE" }); gone(); } catch (error) { toast(error.message, { tone: "bad" }); } });
    box.append(line);
    box.hidden = false;
  }
}
