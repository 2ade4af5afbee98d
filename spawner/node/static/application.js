// The page of an application: asks, starts, waits until it answers, leads on.
const told = JSON.parse(document.getElementById("told").textContent);
const { words, fields } = told;
const form = document.getElementById("form"), acts = document.getElementById("acts");
const stands = document.getElementById("stands"), log = document.getElementById("log");
const submit = form.querySelector("button[type=submit]");
const asked = Object.keys(fields).length > 0;
let waiting = 0, leads = false;

// The portal's choice where it is known, else the system's.
let theme = /(?:^|; )galilean_theme=(light|dark)/.exec(document.cookie)?.[1] || "";
try { theme = localStorage.getItem("jupyterhub-bs-theme") || theme; } catch { /* private window */ }
if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;

function values() {
  const found = {};
  for (const [name, field] of Object.entries(fields)) {
    const control = form.elements[name];
    found[name] = field.type === "switch" ? control.checked : control.value;
  }
  return found;
}
function adapt() { // fields that depend on others
  const said = {};
  for (const [name, field] of Object.entries(fields)) {
    const shown = Object.entries(field.when).every(([other, wanted]) => said[other] === (wanted === true ? "1" : wanted || ""));
    const control = form.elements[name];
    said[name] = !shown ? "" : field.type === "switch" ? (control.checked ? "1" : "") : control.value;
    form.querySelector(`[data-field="${name}"]`).hidden = !shown;
  }
}
function fill(kept) {
  for (const [name, value] of Object.entries(kept)) {
    const control = form.elements[name];
    if (!control) continue;
    if (fields[name].type === "switch") control.checked = value === "1"; else control.value = value;
  }
}
async function call(method, json) {
  const answer = await fetch(told.api, { method, headers: { "X-XSRFToken": told.xsrf, "Content-Type": "application/json" }, body: json === undefined ? undefined : JSON.stringify(json) });
  return [answer.status, await answer.json().catch(() => ({}))];
}
function show(now) {
  const busy = now.state === "starting", runs = now.state === "running";
  form.hidden = busy || runs;
  acts.hidden = !(busy || runs);
  document.getElementById("open").hidden = !runs;
  submit.disabled = false;
  submit.textContent = now.state === "ended" ? words.again : words.start;
  stands.textContent = runs ? words.running : busy ? (now.late ? words.late : words.starting) : now.state === "ended" ? words.ended.replace("{code}", now.code) : "";
  log.hidden = !(now.state === "ended" || now.late);
  log.textContent = now.log || words.nothing;
  if (runs && leads) location.assign(now.url);
  clearTimeout(waiting);
  if (busy) waiting = setTimeout(look, 500);
}
async function look() {
  try {
    const [status, now] = await call("GET");
    if (status === 200) show(now); else waiting = setTimeout(look, 2000);
  } catch { waiting = setTimeout(look, 2000); }
}
async function start() {
  submit.disabled = true;
  leads = true;
  for (const row of form.querySelectorAll("[data-field]")) {
    row.querySelector(".wrong").textContent = "";
    row.querySelector("input, select").removeAttribute("aria-invalid");
  }
  const sent = Object.fromEntries(Object.entries(values()).filter(([name]) => !form.querySelector(`[data-field="${name}"]`).hidden));
  try {
    const [status, now] = await call("POST", { values: sent });
    if (status === 202) {
      if (now.url.includes("desktop/?app=")) location.assign(now.url); else show(now);
      return;
    }
    for (const [name, text] of Object.entries(now.wrong ?? {})) {
      const row = form.querySelector(`[data-field="${name}"]`);
      if (!row) continue;
      row.querySelector(".wrong").textContent = text;
      row.querySelector("input, select").setAttribute("aria-invalid", "true");
    }
    form.querySelector("[aria-invalid]")?.focus();
    if (!now.wrong) stands.textContent = words.failed;
  } catch { stands.textContent = words.failed; }
  submit.disabled = false;
}
form.addEventListener("submit", (event) => { event.preventDefault(); start(); });
form.addEventListener("input", adapt);
document.getElementById("stop").addEventListener("click", async () => {
  leads = false;
  try { const [, now] = await call("DELETE"); show(now); } catch { stands.textContent = words.failed; }
});
// An open page is somebody who is there.
let socket;
function present() {
  socket = new WebSocket(new URL(told.presence, location.href.replace(/^http/, "ws")));
  socket.addEventListener("close", () => setTimeout(present, 10000));
}
present();
fill(told.now.values);
adapt();
show(told.now);
if (!asked && told.now.state === "stopped") start(); // nothing to ask: the press on its door was the wish
