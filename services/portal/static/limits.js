// Tables that are edited in place (quotas, release policies): changes are gathered, said as a difference, applied.
//   [data-gather="address"]  around a table and its bar; [data-cell] is a value (a button):
//     plain = typed in place · data-flag = a press turns it · data-options="id" = chosen from a list
// The server reads what was typed and says what it comes to; nothing counts before Apply.
import { call, say, xsrf } from "galilean/page";
import { toast } from "galilean/toasts";

const box = document.querySelector("[data-gather]");
const matrix = box.querySelector("[data-matrix]"), pending = box.querySelector("[data-pending]");
const wanted = new Map();
let asking = null, editing = null, said = [];

const keyOf = (cell) => `${cell.dataset.role}|${cell.dataset.measure}`;
const cells = () => [...matrix.querySelectorAll("[data-cell]")];
const cellOf = (role, measure) => cells().find((cell) => cell.dataset.role === role && cell.dataset.measure === measure);
const typedNow = (cell) => wanted.get(keyOf(cell))?.amount ?? cell.dataset.wrong ?? cell.dataset.typed;

// ---- what is wanted ----
function want(cell, amount) {
  const text = amount.trim();
  delete cell.dataset.wrong;
  if (text === cell.dataset.typed) wanted.delete(keyOf(cell));
  else wanted.set(keyOf(cell), { role: cell.dataset.role, measure: cell.dataset.measure, amount: text, was: cell.dataset.typed });
  refresh();
}

function keep() {
  try { sessionStorage.setItem(box.dataset.kept, JSON.stringify([...wanted.values()])); } catch { /* private window */ }
}

function plain(cell) {
  cell.classList.remove("changed", "wrong");
  cell.querySelector(".was")?.nextSibling.remove();
  cell.querySelector(".was")?.remove();
  cell.parentElement.querySelector(".cell-error")?.remove();
  const now = cell.querySelector(".now");
  if (cell.dataset.shown !== undefined) { now.textContent = cell.dataset.shown; delete cell.dataset.shown; }
  cell.removeAttribute("aria-invalid");
  cell.setAttribute("aria-label", `${cell.dataset.what}: ${now.textContent}`);
}

function show(cell, old, text) {
  const now = cell.querySelector(".now");
  cell.dataset.shown ??= now.textContent;
  now.textContent = text;
  if (old !== null) {
    const was = document.createElement("s");
    was.className = "was";
    was.textContent = old;
    now.before(was, " ");
  }
  cell.setAttribute("aria-label", `${cell.dataset.what}: ${old ?? ""} → ${text}`);
}

/** Ask what all changes come to, and show it in the cells and in the bar. */
async function refresh() {
  keep();
  asking?.abort();
  const mine = (asking = new AbortController());
  if (!wanted.size) { settle({ cells: [], wrong: [], bar: "" }); return; }
  try {
    settle(await call(box.dataset.gather, { method: "POST", json: { changes: [...wanted.values()], dry_run: true }, signal: mine.signal }));
  } catch (error) {
    if (!mine.signal.aborted) toast(error.message, { tone: "bad" });
  }
}

function settle(found) {
  for (const cell of cells()) if (!cell.dataset.wrong) plain(cell);
  said = found.cells;
  const known = new Set();
  for (const change of found.cells) {
    const cell = cellOf(change.role, change.measure);
    if (!cell) continue;
    known.add(keyOf(cell));
    cell.classList.add("changed");
    show(cell, change.old, change.new);
  }
  for (const wrong of found.wrong) {
    const cell = cellOf(wrong.role, wrong.measure);
    if (!cell) continue;
    plain(cell);
    cell.dataset.wrong = wanted.get(keyOf(cell)).amount;
    cell.classList.add("wrong");
    show(cell, null, cell.dataset.wrong);
    cell.setAttribute("aria-invalid", "true");
    const line = document.createElement("span");
    line.className = "cell-error";
    line.setAttribute("role", "alert");
    line.textContent = wrong.error;
    cell.after(line);
  }
  // Wrong amounts, and those that are so already, are no changes.
  for (const key of [...wanted.keys()]) if (!known.has(key)) wanted.delete(key);
  keep();
  const focused = pending.contains(document.activeElement);
  pending.innerHTML = known.size ? found.bar : "";
  pending.hidden = !known.size;
  if (focused) pending.querySelector("[data-apply]")?.focus();
}

async function reload() {
  const response = await fetch(box.dataset.again + location.search, { headers: { "HX-Request": "true", "X-XSRFToken": xsrf }, credentials: "same-origin", cache: "no-store" });
  if (!response.ok) return;
  matrix.innerHTML = await response.text();
  globalThis.htmx?.process(matrix);
}

async function apply(button) {
  if (button.getAttribute("aria-busy") === "true") return;
  button.setAttribute("aria-busy", "true");
  const back = said.map((cell) => ({ role: cell.role, measure: cell.measure, amount: cell.before, was: cell.typed }));
  try {
    const done = await call(box.dataset.gather, { method: "POST", json: { changes: [...wanted.values()] } });
    wanted.clear();
    keep();
    await reload();
    settle({ cells: [], wrong: [], bar: "" });
    toast(done.done, { undo: () => undo(back) });
    matrix.querySelector("[data-cell]")?.focus({ preventScroll: true });
  } catch (error) {
    button.removeAttribute("aria-busy");
    toast(error.message || say("Something went wrong. Try again."), { tone: "bad" });
    if (error.problem?.status !== 409) return;
    await reload();
    for (const item of wanted.values()) item.was = cellOf(item.role, item.measure)?.dataset.typed ?? item.was;
    refresh();
  }
}

async function undo(changes) {
  try {
    await call(box.dataset.gather, { method: "POST", json: { changes } });
    toast(say("Undone."));
  } catch (error) {
    toast(error.message, { tone: "bad" });
  }
  await reload();
  refresh();
}

// ---- a value is typed in place ----
function edit(cell) {
  if (editing) finish(true);
  const field = document.createElement("input");
  field.className = "cell-input";
  field.value = typedNow(cell);
  field.maxLength = 40;
  field.autocomplete = "off";
  field.setAttribute("aria-label", cell.dataset.what);
  cell.hidden = true;
  cell.before(field);
  editing = { cell, field };
  field.focus();
  field.select();
}

function finish(take) {
  if (!editing) return null;
  const { cell, field } = editing;
  editing = null;
  const text = field.value;
  field.remove();
  cell.hidden = false;
  if (take && text.trim() !== typedNow(cell)) want(cell, text);
  return cell;
}

function neighbour(cell, right, down) {
  const row = cell.closest("tr"), column = [...row.querySelectorAll("[data-cell]")].indexOf(cell);
  if (right) {
    const all = cells(), place = all.indexOf(cell) + right;
    return all[place] ?? null;
  }
  const rows = [...matrix.querySelectorAll("tr")].filter((item) => item.querySelector("[data-cell]"));
  return rows[rows.indexOf(row) + down]?.querySelectorAll("[data-cell]")[column] ?? null;
}

function begin(cell) {
  if ("flag" in cell.dataset) want(cell, typedNow(cell) === say("yes") ? say("no") : say("yes"));
  else if (cell.dataset.options) choose(cell);
  else edit(cell);
}

// ---- a value is chosen from a list ----
function choose(cell) {
  const panel = document.getElementById(cell.dataset.options);
  panel.cell = cell;
  const now = typedNow(cell);
  const chosen = new Set((now === "site" ? cell.dataset.base : now).split(",").map((item) => item.trim()));
  for (const item of panel.querySelectorAll("[data-roles-only]")) item.hidden = cell.dataset.role === "*";
  for (const input of panel.querySelectorAll("input")) input.checked = chosen.has(input.value);
  panel.showPopover();
  const place = cell.getBoundingClientRect(), size = panel.getBoundingClientRect();
  panel.style.left = `${Math.max(8, Math.min(place.right - size.width, innerWidth - size.width - 8))}px`;
  panel.style.top = `${Math.max(8, Math.min(place.bottom + 4, innerHeight - size.height - 8))}px`;
  panel.querySelector("input:checked, input")?.focus();
}

function chosenIn(panel) {
  const values = [...panel.querySelectorAll("input:checked")].map((input) => input.value);
  want(panel.cell, values.join(","));
}

document.addEventListener("change", (event) => {
  const panel = event.target.closest("[data-choices]");
  if (!panel) return;
  chosenIn(panel);
});
document.addEventListener("click", (event) => {
  const all = event.target.closest("[data-choose]");
  if (!all) return;
  const panel = all.closest("[data-choices]");
  if (all.dataset.choose === "site") { want(panel.cell, all.dataset.word); panel.hidePopover(); return; }
  for (const input of panel.querySelectorAll("input")) input.checked = all.dataset.choose === "all";
  if (all.dataset.choose === "all") chosenIn(panel);
  else panel.querySelector("input")?.focus();
});
for (const panel of document.querySelectorAll("[data-choices]")) {
  panel.addEventListener("toggle", (event) => { if (event.newState === "closed") panel.cell?.focus({ preventScroll: true }); });
}

// ---- keys and presses ----
matrix.addEventListener("click", (event) => {
  const cell = event.target.closest("[data-cell]");
  if (cell) begin(cell);
});
matrix.addEventListener("focusout", (event) => {
  if (editing && event.target === editing.field && document.hasFocus()) finish(true);
});
matrix.addEventListener("keydown", (event) => {
  if (editing && event.target === editing.field) {
    if (event.key === "Enter") {
      event.preventDefault();
      const cell = finish(true);
      (neighbour(cell, 0, event.shiftKey ? -1 : 1) ?? cell).focus();
    } else if (event.key === "Tab") {
      const cell = finish(true), next = neighbour(cell, event.shiftKey ? -1 : 1, 0);
      if (next && !("flag" in next.dataset) && !next.dataset.options) { event.preventDefault(); edit(next); }
      else if (next) { event.preventDefault(); next.focus(); }
      else cell.focus();
    } else if (event.key === "Escape") {
      event.preventDefault();
      finish(false).focus();
    }
    return;
  }
  const cell = event.target.closest("[data-cell]");
  if (!cell || event.ctrlKey || event.metaKey || event.altKey) return;
  const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (way) {
    const next = neighbour(cell, ...way);
    if (next) { event.preventDefault(); next.focus(); }
  } else if (/^\d$/.test(event.key) && !("flag" in cell.dataset) && !cell.dataset.options) {
    // Typing a number begins to change it.
    edit(cell);
    editing.field.value = "";
  } else if (event.key === "Escape" && wanted.has(keyOf(cell))) {
    wanted.delete(keyOf(cell));
    refresh();
  }
});
pending.addEventListener("click", (event) => {
  const button = event.target.closest("[data-apply]");
  if (button) apply(button);
  if (event.target.closest("[data-discard]")) {
    wanted.clear();
    for (const cell of cells()) delete cell.dataset.wrong;
    refresh();
    matrix.querySelector("[data-cell]")?.focus({ preventScroll: true });
  }
});

// ---- dialogs: an end that a press sets ----
document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-set]");
  if (!button) return;
  const field = document.getElementById(button.dataset.set);
  field.value = button.dataset.value;
  field.dispatchEvent(new Event("change", { bubbles: true }));
});

// ---- what was gathered before the page was loaded again ----
try {
  for (const item of JSON.parse(sessionStorage.getItem(box.dataset.kept) || "[]")) {
    const cell = cellOf(item.role, item.measure);
    if (cell && cell.dataset.typed !== item.amount) wanted.set(keyOf(cell), { ...item, was: cell.dataset.typed });
  }
} catch { /* private window */ }
if (wanted.size) refresh();
