// What the person is to be told: a line on the page that is looked at, a notification of the browser on one that
// is not. One tab of a browser listens for all of them (a Web Lock), also while it is hidden: a warning is for
// whoever looks away. Where there are no locks (plain http) a hidden page asks each minute.
import { portal, say, xsrf } from "galilean/page";
import { toast } from "galilean/toasts";
import { heard } from "galilean/stream";

const told = new Set();
const ASK_MS = 60000;

const headers = { Accept: "application/json", "X-XSRFToken": xsrf };

/** Show what is new. Several tabs may do so at once: whoever marks it read first has shown it. */
export async function look() {
  const response = await fetch(`${portal}api/v1/notices?unread=1`, { headers, cache: "no-store" });
  if (!response.ok) return;
  const fresh = (await response.json()).items.filter((notice) => !told.has(notice.id));
  if (!fresh.length) return;
  const silent = document.hidden && !("Notification" in window && Notification.permission === "granted");
  if (silent) return; // nobody would see it: it waits for a page that is looked at, or is mailed
  for (const notice of fresh) { told.add(notice.id); show(notice); }
  await fetch(`${portal}api/v1/notices/read`, {
    method: "POST", headers: { ...headers, "Content-Type": "application/json" },
    body: JSON.stringify({ ids: fresh.map((notice) => notice.id) }),
  });
}

function show(notice) {
  const go = notice.url ? () => { location.href = notice.url; } : null;
  if (!document.hidden) {
    toast(notice.text, { tone: notice.kind === "warning" ? "bad" : "ok", undo: go, action: go ? say("Look") : "" });
    if (notice.kind === "warning") offer();
    return;
  }
  const shown = new Notification(document.title, { body: notice.text, tag: notice.id, icon: document.querySelector("link[rel=icon]")?.href });
  shown.onclick = () => { window.focus(); shown.close(); if (go) go(); };
}

/** Ask once, by a press of the person's own, whether the browser may tell them. */
function offer() {
  if (!("Notification" in window) || Notification.permission !== "default" || localStorage.getItem("galilean-asked")) return;
  toast(say("Shall your browser tell you before a cluster goes back, also while you look at something else?"), {
    action: say("Yes, tell me"),
    undo: () => { Notification.requestPermission(); },
  });
  localStorage.setItem("galilean-asked", "1");
}

/** Hold a stream for this browser's hidden tabs; ends when the page becomes visible, whose own stream then does it. */
async function listenHidden() {
  while (document.hidden) {
    const control = new AbortController();
    const seen = () => { if (!document.hidden) control.abort(); };
    document.addEventListener("visibilitychange", seen);
    try {
      const response = await fetch(`${portal}events?watch=notices`, {
        headers: { Accept: "text/event-stream", "X-XSRFToken": xsrf }, cache: "no-store", signal: control.signal,
      });
      if (!response.ok || !response.body) throw new Error(String(response.status));
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { done, value } = await heard(reader);
        if (done) break;
        if (value.includes("event: notices")) await look();
      }
    } catch {
      if (!document.hidden) break;
      await new Promise((resolve) => setTimeout(resolve, 15000));
    } finally { document.removeEventListener("visibilitychange", seen); }
  }
}

export function startNotices() {
  if (!document.getElementById("page-data")?.dataset.watch) return;
  document.body.addEventListener("galilean:notices", look);
  let timer = 0;
  const changed = () => {
    clearInterval(timer);
    if (!document.hidden) { look().catch(() => {}); return; }
    if (navigator.locks) navigator.locks.request("galilean-notices", { ifAvailable: true }, (lock) => (lock ? listenHidden() : null));
    else timer = setInterval(() => look().catch(() => {}), ASK_MS);
  };
  document.addEventListener("visibilitychange", changed);
  look().catch(() => {});
}
