/** The desktop's page: the picture, the bar above it, and what the bar opens. */

import { Item } from "../../lab/src/item.js";
import { Link } from "../../lab/src/link.js";
import { Menu } from "../../lab/src/menu.js";
import { el, icon, mark, put } from "./dom.js";
import { Actions } from "../../lab/src/actions.js";
import { hands } from "./cluster.js";
import { Clipboard } from "./clipboard.js";
import { Files } from "./files.js";
import { Node, type Data } from "./node.js";
import { Notes } from "./notes.js";
import { Panels } from "./panels.js";
import { Picture } from "./picture.js";
import { View } from "./view.js";
import { sayer } from "./words.js";
import { sure, tell } from "./dialogs.js";

const data = JSON.parse(document.body.dataset["page"] ?? "{}") as Data;
const chinese = data.language === "zh_CN";
const say = sayer(chinese);
const locale = chinese ? "zh-CN" : "en-GB";
const node = new Node(data);
const bar = document.querySelector<HTMLElement>(".bar") as HTMLElement;
const screen = document.getElementById("screen") as HTMLElement;

// ---- the picture comes first
const view = new View(node, say);
const picture = new Picture(screen, node, view, say);
picture.connect();

// ---- the bar
const line = el("span", { class: "line", role: "status" });
picture.onLine = text => put(line, text);
const tools = el("div", { class: "tools", role: "toolbar", "aria-label": say("Tools of the desktop") });
const panels = new Panels(say, () => picture.focus());
const clipboard = new Clipboard(picture, say, text => picture.tell(text));
const files = new Files(node, say, panels);
const notes = new Notes(node, say);

function tool(name: string, text: string, act: () => void): HTMLButtonElement {
  const button = el("button", { type: "button", class: "tool", title: text }, icon(name), el("span", {}, text));
  button.onclick = act;
  tools.append(button);
  return button;
}
panels.add(tool("folder", say("Files"), () => panels.toggle("files")), "files", say("Files"), files.box, files);
panels.add(
  tool("clipboard", say("Clipboard"), () => panels.toggle("clipboard")),
  "clipboard",
  say("Clipboard"),
  clipboard.box,
  clipboard
);
panels.add(tool("note", say("Notes"), () => panels.toggle("notes")), "notes", say("Notes"), notes.box, notes);
panels.add(tool("sliders", say("Display"), () => panels.toggle("view")), "view", say("Display"), view.box);
if (document.fullscreenEnabled) {
  const full = tool("fullscreen", say("Full screen"), () => {
    if (document.fullscreenElement) {
      void document.exitFullscreen();
    } else {
      void document.documentElement.requestFullscreen().then(() => {
        const keyboard = (navigator as unknown as { keyboard?: { lock?: () => Promise<void> } }).keyboard;
        void keyboard?.lock?.().catch(() => undefined);
        picture.focus();
      });
    }
  });
  document.addEventListener("fullscreenchange", () =>
    full.setAttribute("aria-pressed", String(!!document.fullscreenElement))
  );
}

const restart = async (): Promise<void> => {
  const lines = [
    say(
      "Every program on the desktop ends, and what is not saved in it is lost. Files stay; JupyterLab and its kernels go on."
    )
  ];
  if (await sure(say, say("Restart the desktop?"), lines, say("Restart desktop"))) {
    await picture.start("restart");
  }
};
const more = el("div", { class: "more" });
function row(name: string, text: string, act: () => void, hint = ""): void {
  const button = el(
    "button",
    { type: "button", class: "row" },
    icon(name),
    el("span", { class: "rowtext" }, text),
    el("span", { class: "hint" }, hint)
  );
  button.onclick = () => {
    panels.close(true);
    act();
  };
  more.append(button);
}
const open = (address: string): void => void window.open(address, "_blank", "noopener");
row("plug", say("Reconnect"), () => picture.connect());
if (data.restarts) {
  row("restart", say("Restart desktop …"), () => void restart(), say("programs end"));
}
more.append(el("hr"));
row("lab", say("Open JupyterLab"), () => open(`${data.base}lab`));
if (data.app) {
  row("desktop", say("The whole desktop"), () => open(`${data.base}desktop/`));
}
for (const { name, title } of data.applications) {
  if (name !== data.app) {
    row("window", say("Open {name} alone", { name: title }), () => open(`${data.base}desktop/?app=${name}`));
  }
}
more.append(el("hr"));
row("moon", say("Switch between light and dark"), () => {
  const root = document.documentElement;
  const next = root.dataset["bsTheme"] === "dark" ? "light" : "dark";
  try {
    localStorage.setItem("jupyterhub-bs-theme", next);
  } catch {
    // a private window
  }
  root.dataset["bsTheme"] = next;
  root.dataset["jpThemeLight"] = String(next === "light");
});
panels.add(tool("dots", say("More"), () => panels.toggle("more")), "more", say("More"), more);
const name = data.title || say("Desktop");
bar.append(el("span", { class: "name" }, mark(), el("strong", {}, name), el("span", {}, data.node)), tools, line);
document.body.append(panels.box);

// ---- the cluster: the same item and menu as in JupyterLab
const link = new Link(
  { baseUrl: new URL(data.base, location.href).href, wsUrl: new URL(data.base, location.href).href.replace(/^http/, "ws") },
  { makeRequest: (url: string, init: RequestInit) => node.fetch(url, init) }
);
void link.open().then(ours => {
  if (!ours) {
    return; // a Jupyter server that is no node of ours
  }
  const item = new Item(link, say, locale);
  const actions = new Actions(link, hands(link, say, () => picture.connect(), text => item.tell(text)), say, locale);
  const menu = new Menu(item, link, actions, say, locale);
  item.extend.onclick = () => void actions.extend();
  bar.append(item.node);
  let before = link.state.kind;
  const update = (): void => {
    const { kind } = link.state;
    item.update();
    menu.update();
    if (kind === "here" && (before === "lost" || before === "restarting")) {
      picture.connect(); // also where the picture's own tie only seems to hold
    }
    if (kind === "released" && before !== "released") {
      menu.close(false);
      picture.end();
      const { title, lines, label } = actions.goodbye();
      void tell(title, lines, label).then(() => actions.back());
    }
    before = kind;
  };
  link.onChange(update);
  update();
});

window.addEventListener("beforeunload", event => {
  if (files.busy || notes.dirty) {
    event.preventDefault();
  }
});
