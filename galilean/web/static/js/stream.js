// One server-sent-events stream for the page, read by fetch (an EventSource cannot send the XSRF header).
// Every event becomes a DOM event `galilean:<name>` on <body>, which htmx parts listen to.
// A hidden tab lets go of its connection (browsers allow six) and catches up when it is seen again.
import { portal, say, xsrf } from "galilean/page";

const box = () => document.getElementById("connection");
let lostAt = 0, control = null, wanted = new Set(), timer = 0, wait = 500, first = true, heardAt = 0;

function dispatch(name, text) {
  let detail = {};
  try { detail = JSON.parse(text || "{}"); } catch { /* an event without data */ }
  document.body.dispatchEvent(new CustomEvent(`galilean:${name}`, { detail }));
}

function showLost() {
  const line = box();
  if (!line) return;
  const seconds = lostAt ? Math.round((Date.now() - lostAt) / 1000) : 0;
  line.hidden = !lostAt || seconds < 3;
  if (!line.hidden) line.querySelector("span").textContent =
    say("Connection lost {seconds} s ago, trying again. Your clusters run on.", { seconds });
}

// The server says something every five seconds. A proxy may keep a connection whose other end has died: silence
// is then the only sign.
const SILENCE_MS = 11000;

/** The next piece of a stream; rejects when it was silent too long. */
export async function heard(reader) {
  let timer = 0;
  const silence = new Promise((_, reject) => { timer = setTimeout(() => reject(new Error("silent")), SILENCE_MS); });
  try { return await Promise.race([reader.read(), silence]); } catch (error) {
    reader.cancel().catch(() => {});
    throw error;
  } finally { clearTimeout(timer); }
}

async function read(signal) {
  const response = await fetch(`${portal}events?watch=${[...wanted].join(",")}`, {
    headers: { Accept: "text/event-stream", "X-XSRFToken": xsrf }, cache: "no-store", signal,
  });
  if (response.status === 401) { location.reload(); return; }
  if (!response.ok || !response.body) throw new Error(String(response.status));
  const missed = !first;
  first = false; lostAt = 0; wait = 500; showLost();
  if (missed) for (const name of wanted) dispatch(name, "");
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    const { done, value } = await heard(reader);
    if (done) throw new Error("closed");
    heardAt = Date.now();
    buffer += value;
    let end;
    while ((end = buffer.indexOf("\n\n")) >= 0) {
      const fields = Object.fromEntries(buffer.slice(0, end).split("\n").filter((line) => !line.startsWith(":"))
        .map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 1).trim()]));
      buffer = buffer.slice(end + 2);
      if (fields.event) dispatch(fields.event, fields.data);
    }
  }
}

async function run() {
  clearTimeout(timer);
  control?.abort();
  if (!wanted.size || document.hidden) return;
  const mine = (control = new AbortController());
  try { await read(mine.signal); } catch {
    if (mine.signal.aborted) return;
    lostAt ||= heardAt || Date.now();
    timer = setTimeout(run, wait);
    wait = Math.min(wait * 2, 15000);
  }
}

/** Listen to a stream of events: "clusters" (one's own) or "online" (everybody's, for administrators). */
export function watch(...names) {
  for (const name of names) wanted.add(name);
  run();
}

export function startStream() {
  const names = (document.getElementById("page-data")?.dataset.watch || "").split(",").filter(Boolean);
  document.addEventListener("visibilitychange", () => { if (document.hidden) { control?.abort(); clearTimeout(timer); } else run(); });
  addEventListener("online", run);
  addEventListener("pagehide", () => control?.abort());
  setInterval(showLost, 1000);
  if (names.length) watch(...names, "notices");
}
