// The Run drawer. Its inside always comes from the server (form, waiting, starting, running, failed);
// here is only what makes it move: the sum while one chooses, the stream while it starts, and JupyterLab
// opening by itself for whoever watched it become ready.
import { close, open } from "galilean/dialogs";
import { call, say, xsrf } from "galilean/page";
import { settle } from "galilean/stepper";
import { heard } from "galilean/stream";
import { refreshTimes } from "galilean/times";
import { toast } from "galilean/toasts";

const drawer = document.getElementById("run-drawer");
const body = document.body;
let face = "", runId = "", control = null, asking = null, sumTimer = 0, uploads = 0;

addEventListener("galilean:uploads", (event) => { uploads = event.detail; });

function remember(shown) {
  const url = new URL(location.href);
  if (shown) url.searchParams.set("run", face === "failed" && runId ? runId : "1"); else url.searchParams.delete("run");
  history.replaceState(history.state, "", url);
}

async function text(url, { signal, part = true } = {}) {
  const response = await fetch(url, { headers: { "X-XSRFToken": xsrf, ...(part ? { "HX-Request": "true" } : {}) }, signal, credentials: "same-origin", cache: "no-store" });
  if (!response.ok) {
    let problem = {};
    try { problem = await response.json(); } catch { /* not ours */ }
    throw Object.assign(new Error(problem.detail || response.statusText), { problem });
  }
  return response.text();
}

/** Show the inside; the same face keeps what was opened, scrolled and focused. */
function show(html, newFace) {
  const parts = document.createElement("template");
  parts.innerHTML = html;
  const before = drawer.querySelector("[data-live-body]"), after = parts.content.querySelector("[data-live-body]");
  if (newFace === face && before && after) {
    const opened = [...before.querySelectorAll("details[open][data-key]")].map((item) => item.dataset.key);
    const top = before.scrollTop;
    for (const key of opened) after.querySelector(`[data-key="${CSS.escape(key)}"]`)?.setAttribute("open", "");
    before.replaceChildren(...after.childNodes);
    before.scrollTop = top;
  } else {
    drawer.replaceChildren(parts.content);
    face = newFace;
    if (drawer.open) (drawer.querySelector("[data-focus]") || drawer.querySelector("#run-title"))?.focus();
    const live = document.getElementById("live"), title = drawer.querySelector("#run-title");
    if (live && title && drawer.open) live.textContent = title.textContent;
  }
  globalThis.htmx?.process(drawer);
  refreshTimes(drawer);
}

function faceOf(html) { return /data-face="(\w+)"/.exec(html)?.[1] || ""; }
function idOf(html) { return /data-run="(\w*)"/.exec(html)?.[1] || ""; }

/** Fetch the drawer's inside and follow it while it moves. */
async function load({ run = "", change = false } = {}) {
  const query = new URLSearchParams();
  if (run) query.set("run", run);
  if (change) query.set("change", "1");
  const html = await text(`${drawer.dataset.url}?${query}`);
  const got = faceOf(html);
  show(html, got);
  runId = idOf(html);
  const moving = ["waiting", "starting", "releasing"].includes(got) || drawer.querySelector("[data-node-moving]");
  if (moving && runId) follow(runId);
  if (got === "form") watchForm();
  return got;
}

/** The run that the address names: a start that came to nothing can still be read after a reload. */
function named() {
  const run = new URLSearchParams(location.search).get("run") || "";
  return run.length === 26 ? run : "";
}

async function openDrawer(run = "") {
  if (!drawer.firstElementChild) {
    drawer.innerHTML = '<div class="drawer-body"><span class="spinner"></span></div>';
  }
  open(drawer);
  if (!run) remember(true);
  try {
    // Somebody else's run, in an address that was sent on: one's own drawer then.
    await load({ run }).catch((error) => { if (!run) throw error; return load(); });
    remember(true);
  } catch (error) {
    if (error.problem?.reason === "sign-in") { location.reload(); return; }
    close(drawer);
    toast(error.message, { tone: "bad" });
  }
}

drawer.addEventListener("close", () => {
  remember(false);
  // A start goes on without the drawer, and so does its stream: the button of the page tells the end.
});

// ---- while it starts ----
async function follow(id) {
  if (control && runId === id && !control.signal.aborted && control.id === id) return;
  control?.abort();
  const mine = (control = new AbortController());
  mine.id = id;
  let wait = 500, moving = true;
  while (moving && !mine.signal.aborted) {
    try {
      moving = await stream(id, mine.signal);
      wait = 500;
    } catch {
      if (mine.signal.aborted) return;
      await new Promise((done) => setTimeout(done, wait));
      wait = Math.min(wait * 2, 8000);
    }
  }
}

async function stream(id, signal) {
  const response = await fetch(`${drawer.dataset.url}/events?run=${id}`, { headers: { Accept: "text/event-stream", "X-XSRFToken": xsrf }, signal, cache: "no-store" });
  if (response.status === 404 || response.status === 401) return false;
  if (!response.ok) throw new Error(String(response.status));
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "", last = "";
  for (;;) {
    const { done, value } = await heard(reader);
    if (done) return ["waiting", "starting", "releasing"].includes(last);
    buffer += value;
    let end;
    while ((end = buffer.indexOf("\n\n")) >= 0) {
      const line = buffer.slice(0, end).split("\n").find((item) => item.startsWith("data: "));
      buffer = buffer.slice(end + 2);
      if (line) { const event = JSON.parse(line.slice(6)); arrive(event, last); last = event.face; }
    }
  }
}

function arrive(event, before) {
  const was = before || face;
  show(event.html, event.face);
  if (event.face === was) return;
  if (drawer.open) remember(true);
  body.dispatchEvent(new CustomEvent("galilean:clusters", { detail: {} }));
  if (event.face === "form") { watchForm(); refreshHead(); return; }
  if (event.face !== "running" || !["starting", "waiting"].includes(was)) { refreshHead(); return; }
  // Ready. Whoever still looks at the drawer is taken to JupyterLab; whoever does something else is told.
  if (drawer.open && !document.hidden && !uploads) {
    remember(false);
    location.assign(event.url);
  } else {
    refreshHead();
    toast(say("JupyterLab is ready."), { undo: () => location.assign(event.url), action: say("Open Lab") });
  }
}

/** The button beside the title, after the state changed. */
async function refreshHead() {
  try {
    const page = new DOMParser().parseFromString(await text(location.href, { part: false }), "text/html");
    const now = page.querySelector(".project-head .actions"), old = document.querySelector(".project-head .actions");
    if (now && old) { old.replaceWith(document.adoptNode(now)); refreshTimes(); }
  } catch { /* the next load shows it */ }
}

// ---- the form ----
function form() { return document.getElementById("run-form"); }

function choice() {
  const data = new FormData(form());
  const picked = data.get("size") || "custom";
  const query = new URLSearchParams({ nodes: data.get("nodes"), gpu: data.get("gpu") || "0", size: picked, cpu: data.get("cpu") || "0", memory_gb: data.get("memory_gb") || "0", storage_gb: data.get("storage_gb") || "0" });
  for (const name of ["pool", "gpu_model"]) if (data.get(name)) query.set(name, data.get(name));
  for (const disk of data.getAll("disk")) if (disk) query.append("disk", disk);
  return { data, picked, query };
}

function options() {
  const { data, picked } = choice();
  const sizes = JSON.parse(form().dataset.sizes);
  const size = sizes[picked] || { cpu: Number(data.get("cpu")), memory: Math.round(Number(data.get("memory_gb")) * 2 ** 30) };
  const wanted = { nodes: Number(data.get("nodes")), cpu: size.cpu, memory: size.memory, gpu: Number(data.get("gpu") || 0), environment: data.get("environment"), release: data.get("release") };
  if (Number(data.get("storage_gb"))) wanted.storage = Math.round(Number(data.get("storage_gb")) * 2 ** 30);
  if (data.get("pool")) wanted.pool = data.get("pool");
  if (wanted.gpu && data.get("gpu_model")) wanted.gpu_model = data.get("gpu_model");
  const disks = data.getAll("disk").filter(Boolean).map((disk) => disk.split(":"));
  if (disks.length) wanted.disks = Object.fromEntries(disks);
  if (wanted.nodes > 1) wanted.on_node_loss = data.get("on_node_loss") || "release";
  return wanted;
}

function watchForm() { if (form()) adapt(); }

/** What follows from the choice at once: reasons beside limits, fields of "custom", the environment's words. */
function adapt() {
  const element = form(), nodes = element.elements.nodes;
  const why = element.querySelector('[data-why="nodes"]'), many = element.querySelector("[data-many]");
  if (why) why.hidden = Number(nodes.value) < Number(nodes.max) || !why.textContent;  // a workbench has one node
  element.querySelector("[data-custom]").hidden = choice().picked !== "custom";
  if (many) many.hidden = Number(nodes.value) < 2;
  for (const text of element.querySelectorAll("[data-environment]")) text.hidden = text.dataset.environment !== element.elements.environment.value;
  for (const text of element.querySelectorAll("[data-policy]")) text.hidden = text.dataset.policy !== element.elements.release.value;
  for (const stepper of element.querySelectorAll("[data-stepper]")) settle(stepper);
}

async function sum() {
  asking?.abort();
  const mine = (asking = new AbortController());
  try {
    const html = await text(`${form().dataset.sum}?${choice().query}`, { signal: mine.signal });
    const box = document.getElementById("run-sum");
    if (!box || mine.signal.aborted) return;
    box.innerHTML = html;
    document.getElementById("run-start").disabled = Boolean(box.querySelector("[data-refused]"));
    refused("");
  } catch (error) {
    if (!mine.signal.aborted) refused(error.message);
  }
}

drawer.addEventListener("input", (event) => {
  if (!event.target.closest("#run-form")) return;
  adapt();
  clearTimeout(sumTimer);
  sumTimer = setTimeout(sum, event.type === "input" ? 60 : 0);
});
drawer.addEventListener("change", (event) => {
  if (!event.target.closest("#run-form")) return;
  // A disk is in one pool of machines, and takes the run there.
  const pool = event.target.value && event.target.dataset.pool;
  const there = pool && form().querySelector(`input[name="pool"][value="${CSS.escape(pool)}"]:not(:disabled)`);
  if (there) there.checked = true;
  adapt();
  clearTimeout(sumTimer);
  sumTimer = setTimeout(sum, 0);
});

function refused(message) {
  const note = document.getElementById("run-refused");
  if (!note) return;
  note.hidden = !message;
  note.lastElementChild.textContent = message;
}

async function start(wanted, button) {
  if (button.getAttribute("aria-busy") === "true") return;
  button.setAttribute("aria-busy", "true");
  const label = button.querySelector("span"), words = label.textContent;
  label.textContent = say("Starting");
  refused("");
  try {
    const made = await call(`${drawer.dataset.api}/clusters`, { method: "POST", json: wanted });
    await load({ run: made.id });
    refreshHead();
  } catch (error) {
    if (error.problem?.reason === "sign-in-again") { location.reload(); return; }
    refused(error.message || say("Something went wrong. Try again."));
  } finally {
    if (button.isConnected) { button.removeAttribute("aria-busy"); label.textContent = words; }
  }
}

drawer.addEventListener("submit", (event) => {
  if (event.target.id !== "run-form") return;
  event.preventDefault();
  start(options(), document.getElementById("run-start"));
});

drawer.addEventListener("click", async (event) => {
  const again = event.target.closest("[data-again]");
  if (again) { start(JSON.parse(again.dataset.again), again); return; }
  if (event.target.closest("[data-change]")) { load({ change: true }).catch((error) => toast(error.message, { tone: "bad" })); return; }
  const release = event.target.closest("[data-release]");
  if (release) {
    release.setAttribute("aria-busy", "true");
    release.textContent = release.dataset.busy;
    try {
      await call(`${drawer.dataset.clusters}/${release.dataset.release}`, { method: "DELETE" });
      await load({ run: release.dataset.release });
      refreshHead();
    } catch (error) {
      release.removeAttribute("aria-busy");
      toast(error.message, { tone: "bad" });
    }
  }
});

document.addEventListener("click", (event) => {
  if (event.target.closest("[data-run-open]")) openDrawer();
});

// Something about one's clusters changed elsewhere (another tab, the meter's menu, an administrator).
body.addEventListener("galilean:clusters", () => {
  if (control && !control.signal.aborted && ["waiting", "starting"].includes(face)) return;
  refreshHead();
  if (drawer.open && ["running", "releasing"].includes(face)) load({ run: runId }).catch(() => {});
});

if ("openNow" in drawer.dataset) openDrawer(named());

// ---- a node that is made anew: the drawer stays, and follows it ----
body.addEventListener("galilean:node-asked", async () => {
  for (const dialog of document.querySelectorAll("#dialogs dialog[open]")) close(dialog);
  if (!drawer?.open) return;
  control?.abort();
  await load().catch((error) => toast(error.message, { tone: "bad" }));
});

// ---- ports: doors that are added and taken away while it runs ----
drawer?.addEventListener("submit", (event) => {
  const asked = event.target.closest("[data-port-form]");
  if (!asked) return;
  event.preventDefault();
  changePorts(asked.dataset.url, { method: "POST", json: { port: Number(new FormData(asked).get("port")) } });
});
drawer?.addEventListener("click", (event) => {
  const drop = event.target.closest("[data-port-drop]");
  if (drop) changePorts(drop.dataset.portDrop, { method: "DELETE" });
});
async function changePorts(url, how) {
  try {
    await call(url, how);
    await load();
    body.dispatchEvent(new CustomEvent("galilean:clusters", { detail: {} }));
    drawer.querySelector("#new-port")?.focus();
  } catch (error) {
    toast(error.message, { tone: "bad" });
  }
}
