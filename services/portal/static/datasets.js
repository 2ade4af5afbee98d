// Data sets: a new one, its settings and readers, in and out of projects, the bin; what administrators do.
import { call, say } from "galilean/page";
import { toast } from "galilean/toasts";

const busy = (button, on) => { if (on) button?.setAttribute("aria-busy", "true"); else button?.removeAttribute("aria-busy"); };
const tell = (place, error) => { if (place) { place.hidden = !error; place.textContent = error?.message ?? ""; } };
const listed = (text) => String(text).split(/[,，、]/).map((tag) => tag.trim()).filter(Boolean);
const links = () => document.body.dispatchEvent(new CustomEvent("galilean:links"));

// ---- a new one ----
const fresh = document.getElementById("new-dataset");
if (fresh) {
  const { name, mount } = fresh.elements, shown = document.getElementById("mount-shown"), problem = document.getElementById("name-error");
  let own = false, timer = 0;
  const show = () => { shown.textContent = mount.value || "…"; };
  mount.addEventListener("input", () => { own = mount.value !== ""; show(); });
  name.addEventListener("input", () => {
    tell(problem);
    clearTimeout(timer);
    timer = setTimeout(async () => {
      if (own) return;
      try { mount.value = name.value.trim() ? (await call(`${fresh.dataset.slug}?name=${encodeURIComponent(name.value)}`)).slug : ""; show(); } catch { /* made from the name when it is saved */ }
    }, 120);
  });
  fresh.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (!name.value.trim()) { tell(problem, new Error(say("Give the data set a name."))); name.focus(); return; }
    const button = fresh.querySelector("[type=submit]"), data = new FormData(fresh);
    busy(button, true);
    try {
      const made = await call(fresh.dataset.api, { method: "POST", json: { name: name.value, mount: mount.value.trim() || null, summary: data.get("summary"), field: data.get("field") } });
      location.assign(made.url);
    } catch (error) { busy(button, false); tell(problem, error); }
  });
}

// ---- its settings ----
const form = document.getElementById("dataset-settings");
form?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = form.querySelector("[type=submit]"), told = document.getElementById("saved"), data = new FormData(form);
  busy(button, true);
  told.className = "why";
  try {
    const json = Object.fromEntries(["name", "summary", "description", "mount", "field"].map((key) => [key, data.get(key)]));
    const changed = await call(form.dataset.api, { method: "PATCH", json: { ...json, tags: listed(data.get("tags")) } });
    document.querySelector(".dataset-head h1").firstChild.textContent = `${changed.name} `;
    told.textContent = say("Saved");
    setTimeout(() => { told.textContent = ""; }, 4000);
  } catch (error) { told.className = "bad"; told.textContent = error.message; } finally { busy(button, false); }
});

// ---- who reads it ----
const readers = document.getElementById("who-reads"), readForm = document.getElementById("read-form");
async function share(work) {
  const problem = document.getElementById("read-error");
  tell(problem);
  try { await work(); location.hash = "who-reads"; location.reload(); } catch (error) { tell(problem, error); }
}
readForm?.addEventListener("submit", (event) => {
  event.preventDefault();
  const data = new FormData(readForm);
  share(() => call(`${readers.dataset.api}/shares`, { method: "PUT", json: { [data.get("kind")]: String(data.get("grantee")).trim() } }));
});
readForm?.elements.kind.addEventListener("change", (event) => {
  const field = readForm.elements.grantee;
  if (event.target.value === "group") field.setAttribute("list", "share-groups"); else field.removeAttribute("list");
});

// ---- its versions ----
document.querySelector("[data-freeze]")?.addEventListener("click", async (event) => {
  const button = event.currentTarget, problem = document.getElementById("freeze-error");
  busy(button, true);
  tell(problem);
  try {
    toast(say("Version {n} is being made.", { n: (await call(button.dataset.freeze, { method: "POST" })).version }));
    location.reload();
  } catch (error) { tell(problem, error); } finally { busy(button, false); }
});

// ---- into a project and out of it ----
function offer(root, error, again) {
  const problem = root.querySelector("[data-add-error]"), way = root.querySelector("[data-add-way-out]");
  tell(problem, error);
  const alias = error?.problem?.reason === "mount-taken" ? error.problem.errors?.[0]?.detail : "";
  way.hidden = !alias;
  if (!alias) return;
  const button = way.querySelector("button");
  button.textContent = say("Use ~/datasets/{alias}", { alias });
  button.onclick = () => { offer(root); again(alias); };
}
document.addEventListener("submit", (event) => {
  const dialog = event.target.closest("form[data-add-to]");
  if (!dialog) return;
  event.preventDefault();
  const button = dialog.querySelector("[type=submit]"), data = new FormData(dialog), choice = dialog.elements.project;
  const at = `${dialog.dataset.root}${choice.value}/datasets`, { name } = choice.selectedOptions[0].dataset;
  const add = async (mount) => {
    busy(button, true);
    try {
      await call(at, { method: "POST", json: { dataset: dialog.dataset.dataset, mount, writable: data.get("writable") === "on" } });
      dialog.closest("dialog").close();
      toast(say("Added to {name}, there from the next run on", { name }), { undo: () => call(`${at}/${dialog.dataset.dataset}`, { method: "DELETE" }) });
    } catch (error) { offer(dialog, error, add); } finally { busy(button, false); }
  };
  add(String(data.get("mount")).trim() || null);
});
const table = document.querySelector("[data-links]");
document.addEventListener("click", async (event) => {
  const put = event.target.closest("[data-link]"), out = event.target.closest("[data-unlink]"), unread = event.target.closest("[data-unread]"), restore = event.target.closest("[data-restore]"), back = event.target.closest("[data-put-back]");
  if (unread) share(() => call(`${readers.dataset.api}/shares?${new URLSearchParams({ [unread.dataset.unread]: unread.dataset.grantee })}`, { method: "DELETE" }));
  if (back) { busy(back, true); try { await call(`${back.closest("[data-manage]").dataset.api}/taken-down`, { method: "DELETE" }); location.reload(); } catch (error) { busy(back, false); toast(error.message, { tone: "bad" }); } }
  if (restore) { busy(restore, true); try { location.assign((await call(restore.dataset.restore, { method: "POST" })).url); } catch (error) { busy(restore, false); toast(error.message, { tone: "bad" }); } }
  if (put) {
    const root = put.closest("section");
    const add = async (mount) => {
      busy(put, true);
      try { await call(table.dataset.links, { method: "POST", json: { dataset: put.dataset.link, ...(mount ? { mount } : {}) } }); offer(root); toast(say("Added. Runs have it from the next one on.")); links(); } catch (error) { busy(put, false); offer(root, error, add); }
    };
    add();
  }
  if (out) {
    busy(out, true);
    try { await call(`${table.dataset.links}/${out.dataset.unlink}`, { method: "DELETE" }); toast(say("Taken out of the project.")); links(); } catch (error) { busy(out, false); toast(error.message, { tone: "bad" }); }
  }
});
document.addEventListener("change", async (event) => {
  const box = event.target.closest("[data-writable]");
  if (box) try { await call(`${table.dataset.links}/${box.dataset.writable}`, { method: "PATCH", json: { writable: box.checked } }); toast(say("Saved")); } catch (error) { box.checked = !box.checked; toast(error.message, { tone: "bad" }); }
  const version = event.target.closest("[data-version]");
  if (version) try { await call(`${table.dataset.links}/${version.dataset.version}`, { method: "PATCH", json: { version: Number(version.value) } }); toast(say("Saved")); links(); } catch (error) { toast(error.message, { tone: "bad" }); links(); }
  const sure = event.target.closest("[data-sure]");
  if (sure) sure.form.querySelector("[type=submit]").disabled = !sure.checked;
});

// ---- a question whose answer is one call of the API; its fields are the body ----
document.addEventListener("submit", async (event) => {
  const question = event.target.closest("form[data-call]");
  if (!question) return;
  event.preventDefault();
  const button = question.querySelector("[type=submit]"), problem = question.querySelector("[data-call-error]");
  const json = Object.fromEntries(new FormData(question));
  busy(button, true);
  tell(problem);
  try {
    await call(question.dataset.callUrl, { method: question.dataset.call, ...(Object.keys(json).length ? { json } : {}) });
    if (question.dataset.callAfter) location.assign(question.dataset.callAfter); else location.reload();
  } catch (error) { busy(button, false); tell(problem, error); }
});

// ---- people's text in a frame of its own ----
for (const frame of document.querySelectorAll("iframe[data-themed]")) {
  const show = () => { frame.src = `${frame.dataset.themed}?theme=${document.documentElement.dataset.bsTheme === "dark" ? "dark" : "light"}`; };
  show();
  new MutationObserver(show).observe(document.documentElement, { attributes: true, attributeFilter: ["data-bs-theme"] });
}
