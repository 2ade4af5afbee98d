// What a page tells its scripts: addresses, the XSRF token, translated sentences.
const meta = (name) => document.querySelector(`meta[name="galilean-${name}"]`)?.content ?? "";

export const portal = meta("portal");
export const xsrf = meta("xsrf");
/** Hosts of their own for hub, portal and people: the domain that they share, else empty. */
export const domain = meta("domain");
export const language = (meta("language") || "en").replace("_", "-");

let words;
/** A sentence in the page's language, with {placeholders} filled. */
export function say(english, values = {}) {
  words ??= Object.assign({}, ...[...document.querySelectorAll("#galilean-words, script[data-words]")].map((item) => JSON.parse(item.textContent)));
  return (words[english] ?? english).replace(/\{(\w+)\}/g, (all, key) => values[key] ?? all);
}

/** fetch() of the portal with the XSRF token; JSON bodies are encoded. Rejects with {problem} on errors. */
export async function call(path, { method = "GET", json, body, headers = {}, signal } = {}) {
  const sent = { "X-XSRFToken": xsrf, Accept: "application/json", ...headers };
  if (json !== undefined) sent["Content-Type"] = "application/json";
  const response = await fetch(path.startsWith("/") ? path : portal + path, {
    method, headers: sent, body: json === undefined ? body : JSON.stringify(json), signal, credentials: "same-origin",
  });
  const isJson = (response.headers.get("Content-Type") || "").includes("json");
  const data = isJson ? await response.json() : await response.text();
  if (!response.ok) {
    const error = new Error(data?.detail || response.statusText);
    error.problem = isJson ? data : { status: response.status, detail: response.statusText };
    throw error;
  }
  return data;
}
