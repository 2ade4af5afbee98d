// The terminal page: xterm.js on the node's own terminal websocket. The session has a name and lives in the
// node: a reload, a lost connection, a second tab all come back to it.
/* global Terminal, FitAddon */
const told = JSON.parse(document.getElementById("words").textContent);
const words = told.words;
const root = document.documentElement;
const notice = document.getElementById("told");
const noticeText = notice.querySelector("span");
const noticeButton = notice.querySelector("button");

// ---- theme: the portal's choice where it is the same origin, else the system's ----
const THEMES = {
  light: { background: "#ffffff", foreground: "#12161d", cursor: "#2c43b8", cursorAccent: "#ffffff", selectionBackground: "#c3cdf7", black: "#12161d", red: "#b3261e", green: "#146c43", yellow: "#835200", blue: "#2c43b8", magenta: "#8a2d8f", cyan: "#0b6b79", white: "#5f6878", brightBlack: "#5f6878", brightRed: "#d3362d", brightGreen: "#1a7a4c", brightYellow: "#8f5a00", brightBlue: "#3049c9", brightMagenta: "#9d3aa3", brightCyan: "#0e7786", brightWhite: "#454e5c" },
  dark: { background: "#0d1015", foreground: "#e9ecf1", cursor: "#a3b3ff", cursorAccent: "#0d1015", selectionBackground: "#36447f" },
};
const KEY = "jupyterhub-bs-theme";
function chosen() {
  let kept = "";
  try { kept = localStorage.getItem(KEY) || ""; } catch { /* private window */ }
  if (!kept) kept = /(?:^|; )galilean_theme=(light|dark)/.exec(document.cookie)?.[1] || "";
  return kept === "dark" || kept === "light" ? kept : matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
}
const terminal = new Terminal({
  fontFamily: 'ui-monospace, "Cascadia Mono", Menlo, Consolas, "DejaVu Sans Mono", "Noto Sans Mono CJK SC", monospace',
  fontSize: innerWidth < 500 ? 12 : 14, scrollback: 5000, cursorBlink: !matchMedia("(prefers-reduced-motion: reduce)").matches,
  screenReaderMode: false, minimumContrastRatio: 4.5, allowProposedApi: false,
});
function paint() {
  const theme = chosen();
  root.dataset.theme = theme;
  terminal.options.theme = THEMES[theme];
}
document.getElementById("theme").addEventListener("click", () => {
  try { localStorage.setItem(KEY, root.dataset.theme === "dark" ? "light" : "dark"); } catch { return; }
  paint();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
addEventListener("storage", (event) => { if (event.key === KEY) paint(); });
paint();

const fit = new FitAddon.FitAddon();
terminal.loadAddon(fit);
terminal.open(document.getElementById("screen"));
terminal.textarea?.setAttribute("aria-label", words.terminal);
fit.fit();
terminal.focus();

// ---- the connection ----
let socket = null, pause = 500, timer = 0, over = false, first = true;
function say(text, button = "", act = null) {
  notice.hidden = !text;
  noticeText.textContent = text;
  noticeButton.hidden = !button;
  noticeButton.textContent = button;
  noticeButton.onclick = act;
  fit.fit();
}
function send(...message) { if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message)); }
function size() { send("set_size", terminal.rows, terminal.cols, 0, 0); }

async function connect() {
  clearTimeout(timer);
  over = false;
  if (!first) {
    // Makes the session anew where it is gone, and tells whether the sign-in still holds.
    try {
      const answer = await fetch(location.href, { redirect: "manual", cache: "no-store", credentials: "same-origin" });
      if (answer.type === "opaqueredirect" || answer.status === 401 || answer.status === 403) {
        say(words.sign_in, words.sign_in_button, () => location.reload());
        return;
      }
      if (!answer.ok) { again(); return; }
    } catch { again(); return; }
  }
  const address = new URL(told.socket, location.href);
  address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  const mine = (socket = new WebSocket(address));
  mine.onmessage = (event) => {
    const [kind, data] = JSON.parse(event.data);
    if (kind === "setup") {
      if (!first) terminal.reset();  // what was printed comes again from the node
      first = false;
      pause = 500;
      say("");
      size();
    } else if (kind === "stdout") {
      terminal.write(data);
    } else if (kind === "disconnect") {
      over = true;
      say(words.ended, words.anew, () => { first = false; terminal.reset(); connect(); terminal.focus(); });
    }
  };
  mine.onclose = () => { if (mine === socket && !over) { first = false; again(); } };
}
function again() {
  say(words.lost, words.now, () => { pause = 500; connect(); });
  clearTimeout(timer);
  timer = setTimeout(connect, pause);
  pause = Math.min(pause * 2, 8000);
}
addEventListener("online", () => { if (socket?.readyState !== WebSocket.OPEN && !over) { pause = 500; connect(); } });
terminal.onData((data) => send("stdin", data));
terminal.onResize(size);
new ResizeObserver(() => fit.fit()).observe(document.getElementById("screen"));

// That somebody is here: pinged by the node, so a page whose computer sleeps stops counting.
function here() {
  const address = new URL(told.presence, location.href);
  address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  new WebSocket(address).onclose = () => setTimeout(here, 15000);
}

// ---- copy and paste ----
async function copy() {
  const text = terminal.getSelection();
  if (!text) return;
  try { await navigator.clipboard.writeText(text); } catch { terminal.textarea?.focus(); document.execCommand("copy"); }
}
async function paste() {
  try { terminal.paste(await navigator.clipboard.readText()); } catch { say(words.paste, words.close, () => say("")); }
  terminal.focus();
}
document.getElementById("copy").addEventListener("click", copy);
document.getElementById("paste").addEventListener("click", paste);
terminal.attachCustomKeyEventHandler((event) => {
  if (event.type !== "keydown" || event.altKey) return true;
  const key = event.key.toLowerCase();
  if (event.ctrlKey && key === "c" && (event.shiftKey || terminal.hasSelection())) {
    copy();
    if (!event.shiftKey) terminal.clearSelection();
    event.preventDefault();
    return false;
  }
  // The browser's own paste, which needs no permission, reaches the terminal as an event.
  return !(event.ctrlKey && key === "v");
});

document.getElementById("node")?.addEventListener("change", (event) => location.assign(event.target.value));
connect();
here();
