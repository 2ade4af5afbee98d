// A new project: its address while the name is typed, then the project, then its first files.
import { call, say, xsrf } from "galilean/page";

const form = document.getElementById("new-project");
if (form) {
  const name = form.elements.name, slug = document.getElementById("slug"), problem = document.getElementById("name-error");
  const told = document.getElementById("progress");
  let timer = 0, control = null;

  async function address() {
    control?.abort();
    const mine = (control = new AbortController());
    const wanted = name.value.trim();
    if (!wanted) { slug.textContent = `${form.dataset.owner}/…`; return; }
    try {
      const made = await call(`${form.dataset.slug}?name=${encodeURIComponent(wanted)}`, { signal: mine.signal });
      slug.textContent = `${form.dataset.owner}/${made.slug}`;
    } catch { /* the project tells its address */ }
  }
  name.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(address, 120); fail(""); });
  if (name.value) address();
  if ("ask" in form.elements.files.dataset) form.elements.files.focus();

  function fail(message) {
    problem.hidden = !message;
    problem.textContent = message;
    name.setAttribute("aria-invalid", message ? "true" : "false");
  }

  form.elements.files.addEventListener("change", () => {
    const first = form.elements.files.files[0];
    if (first && !name.value.trim()) { name.value = first.name.replace(/\.[^.]+$/, "").replace(/[_-]+/g, " ").slice(0, 100); address(); }
    if (first) form.elements.starter.checked = false;
  });

  function put(url, file) {
    return new Promise((done, broken) => {
      const request = new XMLHttpRequest();
      request.open("PUT", url);
      request.setRequestHeader("X-XSRFToken", xsrf);
      request.setRequestHeader("Accept", "application/json");
      request.setRequestHeader("Content-Type", "application/octet-stream");
      request.upload.onprogress = (event) => { if (event.lengthComputable) told.textContent = say("Uploading {name}, {percent} %", { name: file.name, percent: Math.round((100 * event.loaded) / event.total) }); };
      request.onload = () => {
        if (request.status < 300) { done(); return; }
        let detail = "";
        try { detail = JSON.parse(request.responseText).detail; } catch { /* not ours */ }
        broken(new Error(detail || say("Something went wrong. Try again.")));
      };
      request.onerror = () => broken(new Error(say("The upload of {name} broke off. Try again.", { name: file.name })));
      request.send(file);
    });
  }

  let made = null;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = form.querySelector("[type=submit]"), data = new FormData(form);
    if (!name.value.trim()) { fail(say("Give the project a name.")); name.focus(); return; }
    button.setAttribute("aria-busy", "true");
    fail("");
    try {
      made ??= await call(form.dataset.api, { method: "POST", json: { name: name.value, description: data.get("description"), environment: data.get("environment") || "", starter: data.get("starter") === "on" } });
      for (const file of form.elements.files.files) await put(`${form.dataset.api}/${encodeURIComponent(made.owner)}/${made.slug}/files/${encodeURIComponent(file.name)}`, file);
      location.assign(made.url);
    } catch (error) {
      button.removeAttribute("aria-busy");
      told.textContent = "";
      if (error.problem?.reason === "sign-in-again") { location.reload(); return; }
      if (made) { told.textContent = `${error.message} `; const link = document.createElement("a"); link.href = made.url; link.textContent = say("Open the project"); told.append(link); return; }
      fail(error.message);
      name.focus();
    }
  });
}
