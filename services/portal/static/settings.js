// A project's settings, and its deletion.
import { call, say } from "galilean/page";

const form = document.getElementById("project-settings");
form?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = form.querySelector("[type=submit]"), told = document.getElementById("saved"), data = new FormData(form);
  button.setAttribute("aria-busy", "true");
  told.className = "why";
  try {
    const changed = await call(form.dataset.api, { method: "PATCH", json: { name: data.get("name"), description: data.get("description"), environment: data.get("environment") || "" } });
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
