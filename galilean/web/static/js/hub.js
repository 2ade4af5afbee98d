// Small behaviour of the hub's own pages; each works without it, except the live progress.

for (const box of document.querySelectorAll("[data-show-password]")) {
  const field = document.getElementById(box.dataset.showPassword);
  box.addEventListener("change", () => { field.type = box.checked ? "text" : "password"; });
}

for (const form of document.querySelectorAll("form[data-once]")) {
  form.addEventListener("submit", () => {
    const button = form.querySelector("button[type=submit]");
    button.setAttribute("aria-busy", "true");
    // Disabled only after the form is on its way, and again usable when the person comes back.
    setTimeout(() => { button.disabled = true; }, 0);
  });
}
window.addEventListener("pageshow", () => {
  for (const button of document.querySelectorAll("form[data-once] button[type=submit]")) {
    button.disabled = false;
    button.removeAttribute("aria-busy");
  }
});

const waiting = document.querySelector("[data-reload-seconds]");
if (waiting) setTimeout(() => location.reload(), 1000 * Number(waiting.dataset.reloadSeconds));

const start = document.querySelector("[data-spawn-progress]");
if (start) {
  const bar = start.querySelector("progress");
  const words = document.getElementById("progress-message");
  const log = document.getElementById("progress-log");
  const source = new EventSource(start.dataset.spawnProgress);
  source.onmessage = (event) => {
    const told = JSON.parse(event.data);
    if (told.progress !== undefined) bar.value = told.progress;
    if (told.message) {
      words.textContent = told.message;
      const line = document.createElement("li");
      line.textContent = told.message;
      log.append(line);
    }
    if (told.failed) { source.close(); start.querySelector("details").open = true; }
    if (told.ready) { source.close(); location.reload(); }
  };
  // While the nodes of a start that failed are removed there is no progress to ask for: the hub says what is instead.
  source.onerror = () => {
    if (source.readyState === EventSource.CLOSED) setTimeout(() => location.reload(), 1000);
  };
}

// ---- access tokens ----
const tokens = `${window.jhdata?.base_url ?? ""}api/users/${encodeURIComponent(window.jhdata?.user ?? "")}/tokens`;
const ask = (method, address, body) => fetch(address, {
  method,
  headers: { "Content-Type": "application/json", Accept: "application/json", "X-XSRFToken": window.jhdata.xsrf_token },
  body: body === undefined ? undefined : JSON.stringify(body),
});

const request = document.getElementById("request-token-form");
request?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const value = (id) => document.getElementById(id).value.trim();
  const scopes = value("token-scopes").split(/[\s,]+/).filter(Boolean);
  const answer = await ask("POST", tokens, {
    note: value("token-note") || request.dataset.defaultNote,
    expires_in: Number(value("token-expiration-seconds")) || null,
    ...(scopes.length ? { scopes } : {}),
  });
  const told = await answer.json().catch(() => ({}));
  const failed = document.getElementById("token-error");
  failed.hidden = answer.ok;
  if (!answer.ok) { failed.querySelector("div").textContent = told.message || `HTTP ${answer.status}`; return; }
  document.getElementById("token-result").textContent = told.token;
  document.getElementById("token-area").hidden = false;
});

for (const button of document.querySelectorAll(".revoke-token-btn")) {
  button.addEventListener("click", async () => {
    const row = button.closest("[data-token-id]");
    button.disabled = true;
    const answer = await ask("DELETE", `${tokens}/${encodeURIComponent(row.dataset.tokenId)}`);
    if (answer.ok || answer.status === 404) row.remove(); else button.disabled = false;
  });
}
