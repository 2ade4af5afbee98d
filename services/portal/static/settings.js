// A project's settings, and its deletion.
import { call, say } from "galilean/page";

const form = document.getElementById("project-settings");
form?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = form.querySelector("[type=submit]"), told = document.getElementById("saved"), data = new FormData(form);
  button.setAttribute("aria-busy", "true");
  told.className = "why";
  try {
    const number = (key) => (data.get(key) === "" || data.get(key) === null ? undefined : Number(data.get(key)));
    const bytes = (key) => { const gigabytes = number(key); return gigabytes === undefined ? undefined : Math.round(gigabytes * 2 ** 30); };
    const word = (key) => data.get(key) || undefined;
    const json = {
      name: data.get("name"), description: data.get("description"), environment: data.get("environment") || "",
      field: data.get("field"), tags: String(data.get("tags")).split(/[,，、]/).map((tag) => tag.trim()).filter(Boolean), readme: data.get("readme"),
      // The call takes all of it anew: what has no field here is sent as it was.
      default_request: {
        ...JSON.parse(form.dataset.kept), nodes: number("nodes"), cpu: number("cpu"), memory: bytes("memory"), gpu: number("gpu"), gpu_model: word("gpu_model"),
        storage: bytes("storage"), pool: word("pool"), release: word("release"), on_node_loss: word("on_node_loss"),
      },
    };
    const changed = await call(form.dataset.api, { method: "PATCH", json });
    document.querySelector(".project-head h1").firstChild.textContent = `${changed.name} `;
    told.textContent = say("Saved");
    setTimeout(() => { told.textContent = ""; }, 4000);
  } catch (error) {
    told.className = "bad";
    told.textContent = error.message;
  } finally {
    button.removeAttribute("aria-busy");
  }
});

const deletion = document.getElementById("delete-form");
if (deletion) {
  const field = document.getElementById("confirm"), button = deletion.querySelector("[type=submit]"), problem = document.getElementById("delete-error");
  const same = () => field.value.trim().normalize("NFC") === field.dataset.name.normalize("NFC");
  field.addEventListener("input", () => { button.disabled = !same(); });
  deletion.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (!same()) return;
    button.setAttribute("aria-busy", "true");
    problem.hidden = true;
    try {
      await call(deletion.dataset.api, { method: "DELETE" });
      location.assign(deletion.dataset.after);
    } catch (error) {
      button.removeAttribute("aria-busy");
      problem.hidden = false;
      problem.textContent = error.message;
    }
  });
}

// ---- who sees it ----
const api = form?.dataset.api, shareForm = document.getElementById("share-form"), shareError = document.getElementById("share-error");
async function share(work) {
  shareError.hidden = true;
  try { await work(); location.hash = "who-sees"; location.reload(); } catch (error) { shareError.hidden = false; shareError.textContent = error.message; }
}
shareForm?.addEventListener("submit", (event) => {
  event.preventDefault();
  const data = new FormData(shareForm);
  share(() => call(`${api}/shares`, { method: "PUT", json: { [data.get("kind")]: String(data.get("grantee")).trim(), access: data.get("access") } }));
});
shareForm?.elements.kind.addEventListener("change", (event) => {
  const field = shareForm.elements.grantee;
  if (event.target.value === "group") field.setAttribute("list", "share-groups"); else field.removeAttribute("list");
});
shareForm?.elements.grantee.removeAttribute("list");
document.addEventListener("change", (event) => {
  const choice = event.target.closest("[data-share]");
  if (choice) share(() => call(`${api}/shares`, { method: "PUT", json: { [choice.dataset.share]: choice.dataset.grantee, access: choice.value } }));
});
document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-unshare]");
  if (button) share(() => call(`${api}/shares?${new URLSearchParams({ [button.dataset.unshare]: button.dataset.grantee })}`, { method: "DELETE" }));
});

// ---- a question whose answer is one call of the API ----
document.addEventListener("submit", async (event) => {
  const question = event.target.closest("form[data-act]");
  if (!question) return;
  event.preventDefault();
  const button = question.querySelector("[type=submit]"), problem = question.querySelector("[data-act-error]");
  button.setAttribute("aria-busy", "true");
  problem.hidden = true;
  try {
    await call(question.dataset.actUrl, { method: question.dataset.act });
    location.reload();
  } catch (error) {
    button.removeAttribute("aria-busy");
    problem.hidden = false;
    problem.textContent = error.message;
  }
});
