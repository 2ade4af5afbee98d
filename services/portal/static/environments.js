// Environments: looked at and registered by address, changed, given versions, shared, retired; keys of registries.
import { call, say } from "galilean/page";
import { toast } from "galilean/toasts";

const busy = (button, on) => { if (on) button?.setAttribute("aria-busy", "true"); else button?.removeAttribute("aria-busy"); };
const tell = (place, error) => { if (place) { place.hidden = !error; place.textContent = error?.message ?? ""; } };
const text = (data, key) => String(data.get(key) ?? "").trim();
const size = (bytes) => (bytes >= 2 ** 30 ? `${(bytes / 2 ** 30).toFixed(1)} GB` : `${(bytes / 2 ** 20).toFixed(1)} MB`);

// ---- start options from their fields; what is not said is left out ----
function startOf(form) {
  const data = new FormData(form), start = { interfaces: data.getAll("interface") };
  const gpu = data.get("gpu"), memory = Number(data.get("least_memory") || 0), ports = text(data, "ports"), variables = {};
  if (gpu === "gpu") start.gpu = true;
  if (gpu === "needs") start.needs_gpu = true;
  if (memory) start.least_memory = Math.round(memory * 2 ** 30);
  if (text(data, "command")) start.command = text(data, "command");
  if (ports) start.ports = ports.split(/[\s,，、]+/).filter(Boolean).map(Number);
  for (const line of String(data.get("variables") ?? "").split("\n")) {
    if (!line.trim()) continue;
    const at = line.indexOf("=");
    if (at < 1) throw new Error(say("Give a name and a value as NAME=value, one in a line."));
    variables[line.slice(0, at).trim()] = line.slice(at + 1).trim();
  }
  if (Object.keys(variables).length) start.variables = variables;
  if (text(data, "hostname")) start.hostname = text(data, "hostname");
  for (const line of String(data.get("licences") ?? "").split("\n")) {
    const words = line.trim().split(/[\s,，、]+/).filter(Boolean), udp = words.at(-1) === "udp";
    if (!words.length) continue;
    const [host, ...ports] = udp ? words.slice(0, -1) : words;
    if (!ports.length || !ports.every((port) => /^\d+$/.test(port))) throw new Error(say("Give a licence server as HOST PORT, one in a line."));
    (start.licences ??= []).push({ host, ports: ports.map(Number), ...(udp && { protocol: "udp" }) });
  }
  if (text(data, "vnc_port")) {
    start.vnc = { port: Number(text(data, "vnc_port")) };
    if (data.get("vnc_password")) start.vnc.password = String(data.get("vnc_password"));
    if (text(data, "vnc_web_path")) start.vnc.web_path = text(data, "vnc_web_path");
  }
  const [width, height, dpi] = ["width", "height", "dpi"].map((key) => Number(data.get(key) || 0));
  if (width && height && dpi) start.display = { width, height, dpi };
  if (data.get("sudo") === "on") start.sudo = true;
  if (data.get("containers") === "on") start.containers = true;
  return start;
}

// ---- what is at an address ----
const image = (form) => ({ address: form.elements.image.value.trim(), key: form.elements.key.value });
for (const button of document.querySelectorAll("[data-look]")) {
  const form = button.form, shown = form.querySelector("[data-looked]"), problem = form.querySelector("[data-image-error]");
  form.elements.image.addEventListener("input", () => { shown.hidden = true; tell(problem); });
  button.addEventListener("click", async () => {
    tell(problem);
    shown.hidden = true;
    busy(button, true);
    try {
      const found = await call(button.dataset.look, { method: "POST", json: image(form) });
      shown.replaceChildren();
      const line = shown.appendChild(document.createElement("p"));
      line.textContent = say("{size} in {layers} layers, for {platform}", { size: size(found.size_bytes), layers: found.layers, platform: found.platform });
      const digest = shown.appendChild(document.createElement("code"));
      digest.className = "t-small wrap-any";
      digest.textContent = found.image;
      if (found.told.length) {
        const list = shown.appendChild(document.createElement("ul"));
        list.className = "told";
        for (const word of found.told) list.appendChild(document.createElement("li")).textContent = word;
      }
      shown.hidden = false;
      if (form.elements.tag && !form.elements.tag.value) form.elements.tag.placeholder = found.tag;
    } catch (error) { tell(problem, error); } finally { busy(button, false); }
  });
}

// ---- a new one ----
const fresh = document.getElementById("new-environment");
if (fresh) {
  const space = fresh.querySelector("[data-space]"), own = space.textContent;
  const centre = () => fresh.elements.centre?.value === "1";
  const show = () => { space.hidden = centre(); };
  fresh.addEventListener("change", show);
  show();
  fresh.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = fresh.querySelector("[type=submit]"), data = new FormData(fresh), problem = fresh.querySelector("[data-error]");
    tell(problem);
    busy(button, true);
    try {
      const made = await call(fresh.dataset.api, { method: "POST", json: { name: text(data, "name"), title: text(data, "title"), description: text(data, "description"), field: text(data, "field"), tag: text(data, "tag"), image: image(fresh), centre: centre(), start: startOf(fresh) } });
      location.assign(fresh.dataset.place + encodeURIComponent(made.id));
    } catch (error) { busy(button, false); tell(problem, error); }
  });
  void own;
}

// ---- its settings ----
const form = document.getElementById("environment-settings");
form?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = form.querySelector("[type=submit]"), told = document.getElementById("saved"), data = new FormData(form);
  busy(button, true);
  told.className = "why";
  try {
    const json = Object.fromEntries(["title", "description", "field"].map((key) => [key, text(data, key)]));
    const changed = await call(form.dataset.api, { method: "PATCH", json: { ...json, start: { ...JSON.parse(form.dataset.keep ?? "{}"), ...startOf(form) } } });
    document.querySelector(".dataset-head h1").firstChild.textContent = `${changed.title} `;
    told.textContent = say("Saved");
    setTimeout(() => { told.textContent = ""; }, 4000);
  } catch (error) { told.className = "bad"; told.textContent = error.message; } finally { busy(button, false); }
});

// ---- a new version ----
const version = document.getElementById("new-version");
version?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = version.querySelector("[type=submit]"), data = new FormData(version), problem = version.querySelector("[data-error]");
  tell(problem);
  busy(button, true);
  try {
    await call(version.dataset.api, { method: "POST", json: { image: image(version), tag: text(data, "tag"), note: text(data, "note") } });
    location.assign(version.dataset.api.replace(/api\/v1\/(environments\/[^/]+)\/versions$/, "$1"));
  } catch (error) { busy(button, false); tell(problem, error); }
});

// ---- who finds it ----
const who = document.getElementById("who-finds");
if (who) {
  const problem = document.getElementById("share-error"), given = JSON.parse(who.dataset.shares), share = document.getElementById("share-form");
  const named = (words) => words.map((word) => { const at = word.indexOf(":"); return { [word.slice(0, at)]: word.slice(at + 1) }; });
  async function put(json) {
    tell(problem);
    try { await call(who.dataset.api, { method: "PATCH", json }); location.hash = "who-finds"; location.reload(); } catch (error) { tell(problem, error); }
  }
  who.addEventListener("change", (event) => {
    if (event.target.name === "kind") { if (event.target.value === "group") share.elements.grantee.setAttribute("list", "share-groups"); else share.elements.grantee.removeAttribute("list"); }
    if (event.target.name !== "visibility") return;
    who.querySelector("[data-named]").hidden = event.target.value !== "group";
    if (event.target.value !== "group") put({ visibility: event.target.value });
    else if (given.length) put({ visibility: "group", shared_with: named(given) });
    else share.elements.grantee.focus();
  });
  share.addEventListener("submit", (event) => {
    event.preventDefault();
    const data = new FormData(share);
    put({ visibility: "group", shared_with: named([...given, `${data.get("kind")}:${text(data, "grantee")}`]) });
  });
  who.addEventListener("click", (event) => {
    const button = event.target.closest("[data-unshare]");
    if (!button) return;
    const left = given.filter((word) => word !== button.dataset.unshare);
    put(left.length ? { visibility: "group", shared_with: named(left) } : { visibility: "own" });
  });
}

// ---- documentation, edited in place ----
const doc = document.getElementById("documentation");
if (doc) {
  const edit = doc.querySelector("[data-doc-edit]"), shown = doc.querySelector("[data-doc-shown]"), write = doc.querySelector("[data-doc-form]");
  const turn = (on) => { write.hidden = !on; shown.hidden = on; edit.hidden = on; if (on) write.elements.documentation.focus(); else edit.focus(); };
  edit?.addEventListener("click", () => turn(true));
  doc.querySelector("[data-doc-cancel]")?.addEventListener("click", () => { write.reset(); turn(false); });
  write?.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = write.querySelector("[type=submit]"), problem = write.querySelector("[data-error]");
    tell(problem);
    busy(button, true);
    try { await call(doc.dataset.api, { method: "PATCH", json: { documentation: write.elements.documentation.value } }); location.reload(); } catch (error) { busy(button, false); tell(problem, error); }
  });
}

// ---- keys ----
const key = document.getElementById("new-key");
key?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = key.querySelector("[type=submit]"), data = new FormData(key), problem = key.querySelector("[data-error]");
  tell(problem);
  busy(button, true);
  try {
    await call(key.dataset.api, { method: "POST", json: { registry: text(data, "registry"), username: text(data, "username"), password: String(data.get("password")), centre: data.get("centre") === "on" } });
    location.reload();
  } catch (error) { busy(button, false); tell(problem, error); }
});

// ---- one press, one call ----
document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-send], [data-use]");
  if (!button) return;
  busy(button, true);
  try { await call(button.dataset.to ?? button.dataset.use, { method: button.dataset.send ?? "PUT" }); location.reload(); } catch (error) { busy(button, false); toast(error.message, { tone: "bad" }); }
});
document.addEventListener("submit", async (event) => {
  const question = event.target.closest("form[data-delete]");
  if (!question) return;
  event.preventDefault();
  const button = question.querySelector("[type=submit]"), problem = question.querySelector("[data-error]");
  busy(button, true);
  try { await call(question.dataset.delete, { method: "DELETE" }); location.assign(question.dataset.after); } catch (error) { busy(button, false); tell(problem, error); }
});

// ---- people's text in a frame of its own ----
for (const frame of document.querySelectorAll("iframe[data-themed]")) {
  const show = () => { frame.src = `${frame.dataset.themed}?theme=${document.documentElement.dataset.bsTheme === "dark" ? "dark" : "light"}`; };
  show();
  new MutationObserver(show).observe(document.documentElement, { attributes: true, attributeFilter: ["data-bs-theme"] });
}

// ---- a saved image into the library ----
document.addEventListener("change", (event) => {
  const form = event.target.closest("form[data-library]");
  if (form && event.target.name === "visibility") form.querySelector("[data-named]").hidden = event.target.value !== "group";
});
document.addEventListener("submit", async (event) => {
  const form = event.target.closest("form[data-library]");
  if (!form) return;
  event.preventDefault();
  const button = form.querySelector("[type=submit]"), problem = form.querySelector("[data-error]"), data = new FormData(form);
  const named = (key, kind) => text(data, key).split(/[\s,，、]+/).filter(Boolean).map((name) => ({ [kind]: name }));
  const centre = data.get("centre") === "1", visibility = centre && data.get("visibility") === "own" ? "public" : data.get("visibility"), shared_with = visibility === "group" ? [...named("people", "person"), ...named("groups", "group")] : [];
  tell(problem);
  busy(button, true);
  try {
    const made = await call(form.dataset.library, { method: "PUT", json: { visibility, shared_with, centre, title: text(data, "title"), field: text(data, "field") } });
    location.assign(form.dataset.place + encodeURIComponent(made.id));
  } catch (error) { busy(button, false); tell(problem, error); }
});
