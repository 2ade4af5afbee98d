// The glue of every page: htmx with the XSRF token, errors as toasts, theme, language, menus, keys.
import { startBeside } from "galilean/beside";
import { startDialogs } from "galilean/dialogs";
import { startFind } from "galilean/find";
import { domain, portal, say, xsrf } from "galilean/page";
import { startSteppers } from "galilean/stepper";
import { startNotices } from "galilean/notices";
import { startAnnouncements, startOwnPages } from "galilean/own_page";
import { startStream } from "galilean/stream";
import { clockOf, refreshTimes, startTimes } from "galilean/times";
import { toast } from "galilean/toasts";

const body = document.body;

// ---- htmx ----
body.addEventListener("htmx:configRequest", (event) => { event.detail.headers["X-XSRFToken"] = xsrf; });
body.addEventListener("htmx:beforeRequest", (event) => {
  const trigger = event.detail.elt;
  if (trigger.matches("button, form")) {
    const button = trigger.matches("form") ? trigger.querySelector("[type=submit]") : trigger;
    button?.setAttribute("aria-busy", "true");
  }
  if (!event.detail.requestConfig.triggeringEvent?.type?.startsWith("galilean:")) document.getElementById("progressline")?.classList.add("on");
});
body.addEventListener("htmx:afterRequest", (event) => {
  const trigger = event.detail.elt;
  (trigger.matches("form") ? trigger.querySelector("[type=submit]") : trigger)?.removeAttribute("aria-busy");
  document.getElementById("progressline")?.classList.remove("on");
});
body.addEventListener("htmx:responseError", (event) => {
  let problem = {};
  try { problem = JSON.parse(event.detail.xhr.responseText); } catch { /* not ours */ }
  if (problem.reason === "sign-in") { toast(say("You are not signed in any more. The page loads again.")); setTimeout(() => location.reload(), 800); return; }
  if (problem.reason === "sign-in-again") { location.reload(); return; }
  // What the page refreshes by itself fails quietly: the connection line tells it.
  if (event.detail.requestConfig.triggeringEvent?.type?.startsWith("galilean:")) return;
  toast(problem.detail || say("Something went wrong. Try again."), { tone: "bad" });
});
body.addEventListener("htmx:sendError", (event) => {
  if (event.detail.requestConfig.triggeringEvent?.type?.startsWith("galilean:")) return;
  toast(say("The portal does not answer. Your clusters run on; try again in a few seconds."), { tone: "bad" });
});
body.addEventListener("galilean:toast", (event) => {
  const { text, time } = event.detail; // a moment is written in the visitor's own zone
  toast(time ? text.replace("{time}", clockOf(new Date(time))) : text, event.detail);
});

// A part that refreshes itself waits while something in it is pressed: what is taken away under a pointer gets no click.
let pressed = null, heldBack = new Map();
addEventListener("pointerdown", (event) => { pressed = event.target; }, true);
for (const end of ["pointerup", "pointercancel"]) addEventListener(end, () => setTimeout(() => { // after the click
  pressed = null;
  const types = new Set(heldBack.values());
  heldBack = new Map();
  for (const type of types) body.dispatchEvent(new CustomEvent(type, { detail: {} }));
}), true);
body.addEventListener("htmx:beforeSwap", (event) => {
  const { target, requestConfig } = event.detail, type = requestConfig.triggeringEvent?.type;
  if (!type?.startsWith("galilean:") || !pressed || !target.contains(pressed)) return;
  event.preventDefault();
  heldBack.set(target, type);
});

// A part that is refreshed keeps what the person opened, chose and focused in it.
const kept = new Map();
body.addEventListener("htmx:beforeSwap", (event) => {
  const target = event.detail.target;
  if (!target.id) return;
  kept.set(target.id, {
    open: [...target.querySelectorAll("details[open][data-key]")].map((item) => item.dataset.key),
    chosen: [...target.querySelectorAll("input:checked[data-key]")].map((item) => item.dataset.key),
    focus: target.contains(document.activeElement) ? document.activeElement.dataset.key || document.activeElement.closest("[data-key]")?.dataset.key : null,
  });
});
body.addEventListener("htmx:afterSwap", (event) => {
  const target = event.detail.target, before = kept.get(target.id);
  refreshTimes();
  if (!before) return;
  kept.delete(target.id);
  const find = (key) => target.querySelector(`[data-key="${CSS.escape(key)}"]`);
  for (const key of before.open) find(key)?.setAttribute("open", "");
  for (const key of before.chosen) { const item = find(key); if (item && !item.checked) { item.checked = true; item.dispatchEvent(new Event("change", { bubbles: true })); } }
  if (before.focus) { const item = find(before.focus); (item?.matches("details") ? item.querySelector("summary") : item)?.focus(); }
});

// ---- theme and language ----
document.addEventListener("click", (event) => {
  const theme = event.target.closest("[data-theme-toggle]");
  if (theme) {
    const next = document.documentElement.getAttribute("data-bs-theme") === "dark" ? "light" : "dark";
    try { localStorage.setItem("jupyterhub-bs-theme", next); } catch { /* private window */ }
    if (domain) remember("galilean_theme", next);
    document.documentElement.setAttribute("data-bs-theme", next);
  }
  const language = event.target.closest("[data-language]");
  if (language) {
    remember("galilean_language", language.dataset.language);
    location.reload();
  }
});
function remember(name, value) {
  const secure = location.protocol === "https:" ? "; Secure" : "";
  document.cookie = `${name}=${value}; path=/; max-age=31536000; SameSite=Lax${domain ? `; domain=${domain}` : ""}${secure}`;
}

// ---- nodes: choosing one points the doors of its card at it ----
document.addEventListener("change", (event) => {
  const choice = event.target.closest("input[data-node-choice]");
  if (!choice) return;
  for (const door of choice.closest("[data-doors]").querySelectorAll("a[data-door]")) {
    door.href = choice.dataset[door.dataset.door];
  }
});

// ---- menus (details.menu): one open at a time, Escape and a click elsewhere close ----
document.addEventListener("toggle", (event) => {
  const menu = event.target;
  if (!menu.matches?.("details.menu") || !menu.open) return;
  for (const other of document.querySelectorAll("details.menu[open]")) if (other !== menu) other.open = false;
}, true);
document.addEventListener("click", (event) => {
  for (const menu of document.querySelectorAll("details.menu[open]")) if (!menu.contains(event.target) && !event.target.closest("dialog")) menu.open = false;
});
document.addEventListener("keydown", (event) => {
  const typing = event.target.matches?.("input, textarea, select, [contenteditable]");
  if (event.key === "Escape") {
    const menu = document.querySelector("details.menu[open]");
    if (menu) { menu.open = false; menu.querySelector("summary").focus(); }
  }
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
    const field = document.querySelector('main [data-hotkey="/"]') ?? document.querySelector('[data-hotkey="/"]');
    if (field) { event.preventDefault(); field.focus(); field.select?.(); }
  }
});

// ---- something to be taken along ----
document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  const source = button && document.querySelector(button.dataset.copy);
  if (!source) return;
  try {
    await navigator.clipboard.writeText(source.textContent.trim());
    toast(say("Copied"));
  } catch { // without TLS browsers have no clipboard: what is selected is one key away
    getSelection().selectAllChildren(source);
  }
});

// ---- pressed once ----
document.addEventListener("submit", (event) => {
  if (event.defaultPrevented || event.target.hasAttribute("hx-post")) return;
  event.submitter?.setAttribute("aria-busy", "true");
});
addEventListener("pageshow", (event) => { if (event.persisted) for (const item of document.querySelectorAll("[aria-busy]")) item.removeAttribute("aria-busy"); });

// ---- a page that looks again by itself, while it is seen ----
const again = document.querySelector("[data-reload-after]");
if (again) setInterval(() => { if (!document.hidden) location.reload(); }, Number(again.dataset.reloadAfter) * 1000);

// ---- a page that is another one after an event ----
body.addEventListener("galilean:role", () => { if (document.querySelector('[data-reload-on="role"]')) location.reload(); });

// ---- rows that are chosen: the bar below says how many and acts on them ----
function settleSelection(root = document) {
  for (const form of root.querySelectorAll("form[data-selection]")) {
    const chosen = [...form.querySelectorAll("input.row-check:checked")];
    const bar = form.querySelector("[data-selection-bar]"), all = form.querySelector("input.all-check");
    const rows = form.querySelectorAll("input.row-check").length;
    if (all) { all.checked = rows > 0 && chosen.length === rows; all.indeterminate = chosen.length > 0 && chosen.length < rows; }
    if (!bar) continue;
    bar.hidden = !chosen.length;
    const sum = (key) => chosen.reduce((total, item) => total + Number(item.dataset[key] || 0), 0);
    for (const part of bar.querySelectorAll("[data-sum]")) part.textContent = String(+sum(part.dataset.sum).toFixed(1));
    for (const part of bar.querySelectorAll("[data-count]")) part.textContent = String(chosen.length);
    for (const part of bar.querySelectorAll("[data-named]")) part.textContent = chosen.length === 1 ? chosen[0].dataset.named : "";
    for (const part of bar.querySelectorAll("[data-one]")) part.hidden = chosen.length !== 1;
    for (const part of bar.querySelectorAll("[data-many]")) part.hidden = chosen.length === 1;
  }
}
document.addEventListener("change", (event) => {
  const form = event.target.closest("form[data-selection]");
  if (!form) return;
  if (event.target.matches("input.all-check")) for (const item of form.querySelectorAll("input.row-check")) item.checked = event.target.checked;
  settleSelection();
});
document.addEventListener("click", (event) => {
  if (!event.target.closest("[data-clear-selection]")) return;
  for (const item of document.querySelectorAll("form[data-selection] input:checked")) item.checked = false;
  settleSelection();
});
body.addEventListener("htmx:afterSwap", () => settleSelection());

// ---- columns of a table that the person wants to see, remembered by this browser ----
function settleColumns(panel) {
  const key = `galilean-columns-${panel.dataset.columns}`, table = document.getElementById(panel.dataset.columns);
  const boxes = [...panel.querySelectorAll("input")];
  const hide = (names) => { table.dataset.hide = names.join(" "); };
  const kept = localStorage.getItem(key);
  if (kept !== null) for (const box of boxes) box.checked = !kept.split(" ").includes(box.value);
  hide(boxes.filter((box) => !box.checked).map((box) => box.value));
  panel.addEventListener("change", () => {
    const names = boxes.filter((box) => !box.checked).map((box) => box.value);
    localStorage.setItem(key, names.join(" "));
    hide(names);
  });
}
for (const panel of document.querySelectorAll("[data-columns]")) settleColumns(panel);

// ---- news that is read once: what ended without being asked ----
const TOLD = "galilean-told";
const told = () => { try { return JSON.parse(localStorage.getItem(TOLD)) ?? []; } catch { return []; } };
function hideTold() { const known = told(); for (const item of document.querySelectorAll("[data-told]")) if (known.includes(item.dataset.told)) item.remove(); }
document.addEventListener("click", (event) => {
  const item = event.target.closest("[data-told-close]")?.closest("[data-told]");
  if (!item) return;
  try { localStorage.setItem(TOLD, JSON.stringify([...told(), item.dataset.told].slice(-50))); } catch { /* private window */ }
  item.remove();
  document.getElementById("main")?.focus({ preventScroll: true });
});
body.addEventListener("htmx:afterSwap", hideTold);
hideTold();

startTimes();
startDialogs();
startSteppers();
startFind();
startOwnPages();
startAnnouncements();
if (portal && xsrf) { startStream(); startNotices(); }
startBeside();

// Once a minute, not each second, a screen reader hears what is held.
setInterval(() => {
  const summary = document.querySelector("[data-live]"), live = document.getElementById("live");
  if (summary && live && live.textContent !== summary.dataset.live) live.textContent = summary.dataset.live;
}, 60000);
