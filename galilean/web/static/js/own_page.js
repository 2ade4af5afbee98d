// Frames of what administrators wrote: as high as what is in them, in the theme of the page around them.
// They have an opaque origin, so a message is known by its window alone, and only a height is believed.
const MOST = 20000;

export function startOwnPages() {
  const root = document.documentElement;
  const frames = () => [...document.querySelectorAll("iframe[data-own-page]")];
  const theme = (frame) => frame.contentWindow?.postMessage({ galilean: "theme", theme: root.dataset.bsTheme || "light" }, "*");
  if (!frames().length) return;
  addEventListener("message", (event) => {
    const frame = frames().find((one) => one.contentWindow === event.source);
    const height = event.data?.galilean === "height" ? Math.min(Number(event.data.height) || 0, MOST) : 0;
    if (!frame || height < 8) return;
    theme(frame);
    frame.style.height = `${height}px`;
    frame.classList.add("ready");
    frame.closest("[data-beside]")?.classList.add("ready");
  });
  new MutationObserver(() => frames().forEach(theme)).observe(root, { attributeFilter: ["data-bs-theme"] });
  // One that was there before this script asked is told to say it again.
  frames().forEach(theme);
}

/** Announcements that somebody has put away stay away on this browser, until they are written anew. */
export function startAnnouncements() {
  const key = "galilean-announcements";
  const read = () => { try { return JSON.parse(localStorage.getItem(key)) || []; } catch { return []; } };
  const box = document.getElementById("announcements");
  if (!box) return;
  const away = new Set(read());
  for (const note of box.querySelectorAll("[data-announcement]")) note.hidden = away.has(note.dataset.announcement);
  box.addEventListener("click", (event) => {
    const note = event.target.closest("[data-away]")?.closest("[data-announcement]");
    if (!note) return;
    note.hidden = true;
    away.add(note.dataset.announcement);
    try { localStorage.setItem(key, JSON.stringify([...away].slice(-100))); } catch { /* no storage: it comes back */ }
  });
}
