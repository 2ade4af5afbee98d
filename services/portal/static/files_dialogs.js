// Questions of the file manager, in the page's own dialogs: a name, a choice, a folder, a text to edit.
import { call, say } from "galilean/page";
import { toast } from "galilean/toasts";

function element(tag, { text = "", ...attributes } = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== false && value !== null) made.setAttribute(name, value === true ? "" : value);
  if (text) made.textContent = text;
  made.append(...children);
  return made;
}
export { element };

let number = 0;
/** A dialog with a heading, what is given, and buttons; answers what the pressed one stands for. */
export function dialog(title, body, buttons, { onOpen = () => {}, wide = false, check = () => true } = {}) {
  return new Promise((done) => {
    number += 1;
    const heading = element("h2", { class: "t-section wrap-any", id: `ask-${number}`, text: title });
    const row = element("div", { class: "buttons" });
    const form = element("form", { method: "dialog", class: "body" }, heading, ...body, row);
    const made = element("dialog", { class: wide ? "ask ask-wide" : "ask", "aria-labelledby": heading.id }, form);
    let answer = null;
    for (const { label, value, kind = "btn-quiet", close = false } of buttons) {
      const button = element("button", { class: `btn ${kind}`, type: close ? "button" : "submit", text: label });
      button.addEventListener("click", async (event) => {
        if (close) { made.close(); return; }
        event.preventDefault();
        if (await check(value, button)) { answer = value; made.close(); }
      });
      row.append(button);
    }
    // Enter in a field is the last button, the one that does it.
    form.addEventListener("submit", (event) => { event.preventDefault(); row.lastElementChild.click(); });
    made.addEventListener("close", () => { made.remove(); done(answer); });
    document.body.append(made);
    made.showModal();
    onOpen(made);
  });
}

export const cancel = () => ({ label: say("Cancel"), close: true });

/** Yes or no. */
export async function sure(title, text, yes) {
  return (await dialog(title, [element("p", { text })], [cancel(), { label: yes, value: true, kind: "btn-danger" }], {
    onOpen: (made) => made.querySelector(".buttons button").focus(),
  })) === true;
}

/** A name; the part before the ending is selected. `more` are further fields. */
export async function nameFor(title, { label, value = "", yes, more = [] }) {
  number += 1;
  const field = element("input", { class: "form-control", id: `ask-name-${number}`, autocomplete: "off", maxlength: 255, spellcheck: "false", dir: "auto" });
  field.value = value;
  const row = element("div", { class: "field-row" }, element("label", { for: field.id, text: label }), field);
  const done = await dialog(title, [row, ...more], [cancel(), { label: yes, value: true, kind: "btn-primary" }], {
    onOpen: () => { field.focus(); const dot = value.lastIndexOf("."); field.setSelectionRange(0, dot > 0 ? dot : value.length); },
    check: () => { if (field.value.trim()) return true; field.focus(); return false; },
  });
  return done ? field.value.trim() : null;
}

/** What is to happen when a name is taken: "replace", "keep" or "skip"; for all that follow, too, when ticked. */
export async function taken(name, several) {
  const all = element("input", { type: "checkbox", class: "check" });
  const body = several ? [element("label", { class: "check-row" }, all, element("span", { text: say("All of these") }))] : [];
  const answer = await dialog(say("“{name}” is there already.", { name }), body, [
    { label: say("Leave it out"), value: "skip" },
    { label: say("Replace"), value: "replace", kind: "btn-danger" },
    { label: say("Keep both"), value: "keep", kind: "btn-primary" },
  ]);
  return { answer: answer ?? "skip", all: all.checked };
}

/** A folder of the same tree, as it stands in an address; null = none was chosen. */
export async function folderFor(title, { api, from, yes }) {
  let now = from;
  const path = element("p", { class: "mono t-small wrap-any", role: "status" });
  const list = element("ul", { class: "folder-list" });
  const show = async (folder) => {
    now = folder;
    path.textContent = `/${folder.split("/").map((part) => { try { return decodeURIComponent(part); } catch { return part; } }).join("/")}`;
    list.setAttribute("aria-busy", "true");
    const rows = [];
    if (folder) rows.push(row("..", folder.includes("/") ? folder.slice(0, folder.lastIndexOf("/")) : "", say("Back")));
    try {
      let cursor = "";
      do {
        const page = await call(`${api}/files${folder ? `/${folder}` : ""}?limit=1000${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ""}`);
        const folders = page.items.filter((item) => item.kind === "folder");
        for (const item of folders) rows.push(row(item.name, item.path));
        cursor = folders.length === page.items.length ? page.next : null; // folders stand first
      } while (cursor);
    } catch (error) { toast(error.message, { tone: "bad" }); }
    if (!rows.length) rows.push(element("li", { class: "text3", text: say("No folders here.") }));
    list.replaceChildren(...rows);
    list.removeAttribute("aria-busy");
    list.querySelector("button")?.focus();
  };
  const row = (name, folder, label = name) => {
    const button = element("button", { type: "button", class: "item", dir: "auto", text: label });
    button.addEventListener("click", () => show(folder));
    return element("li", {}, button);
  };
  const done = await dialog(title, [path, list], [cancel(), { label: yes, value: true, kind: "btn-primary" }], { onOpen: () => show(from) });
  return done ? now : null;
}

/** Form and name of an archive. */
export async function archiveFor(title, { name }) {
  number += 1;
  const choice = element("select", { class: "form-select", id: `ask-form-${number}`, "aria-label": say("Pack") },
    element("option", { value: "zip", text: say("Zip, opened everywhere") }), element("option", { value: "tar.gz", text: say("Tar, packed by gzip") }));
  const made = await nameFor(title, { label: say("Name"), value: name, yes: say("Pack"), more: [choice] });
  return made ? { name: made.endsWith(`.${choice.value}`) ? made : `${made}.${choice.value}`, form: choice.value } : null;
}

/** Checksums, to be copied. */
export async function tell(title, lines) {
  const text = element("textarea", { class: "form-control mono", readonly: true, rows: Math.min(12, lines.length + 1), "aria-label": title });
  text.value = lines.join("\n");
  await dialog(title, [text], [{ label: say("Cancel"), close: true }, { label: say("Copy"), value: true, kind: "btn-primary" }], {
    wide: true, onOpen: () => text.select(),
    check: async () => { try { await navigator.clipboard.writeText(text.value); toast(say("Copied.")); return true; } catch { text.select(); return false; } },
  });
}

/** A text: read with its version, saved over that version only. True when something was saved. */
export async function edit(api, path, name) {
  let read;
  try { read = await call(`${api}/texts/${path}`); } catch (error) { toast(error.message, { tone: "bad" }); return false; }
  const area = element("textarea", { class: "form-control mono editor", spellcheck: "false", wrap: "off", dir: "auto", "aria-label": say("Edit {name}", { name }) });
  const problem = element("p", { class: "bad", role: "alert", hidden: true });
  area.value = read.text;
  let saved = false, version = read.version;
  area.addEventListener("keydown", (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key === "s") { event.preventDefault(); area.closest("form").requestSubmit(); }
  });
  await dialog(say("Edit {name}", { name }), [area, problem], [cancel(), { label: say("Save"), value: true, kind: "btn-primary" }], {
    wide: true,
    onOpen: (made) => {
      area.focus();
      area.setSelectionRange(0, 0);
      made.addEventListener("cancel", (event) => { if (area.value !== read.text && !confirm(say("Not saved yet. Leave all the same?"))) event.preventDefault(); });
    },
    check: async (_, button) => {
      button.setAttribute("aria-busy", "true");
      try {
        const made = await call(`${api}/texts/${path}`, { method: "PUT", json: { text: area.value, version, crlf: read.crlf, bom: read.bom } });
        version = made.version;
        saved = true;
        toast(say("Saved"));
        return true;
      } catch (error) {
        problem.hidden = false;
        problem.textContent = error.message;
        return false;
      } finally { button.removeAttribute("aria-busy"); }
    },
  });
  return saved;
}
