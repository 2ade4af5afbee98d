/** Files to and from the node: dropped anywhere on the page, or through a folder's list. */

import { bytes, el, icon, put } from "./dom.js";
import type { Node } from "./node.js";
import type { Panels } from "./panels.js";
import type { Say } from "./words.js";

interface Entry {
  name: string;
  folder: boolean;
  bytes: number | null;
}

/** So many go up at a time. */
const AT_ONCE = 2;
const SHOWN = 1000;

export class Files {
  readonly box = el("div", { class: "files" });
  private path: string;
  private readonly crumbs = el("nav", { class: "crumbs" });
  private readonly list = el("ul", { class: "entries" });
  private readonly line = el("p", { class: "quiet" });
  private readonly uploads = el("ul", { class: "uploads", "aria-live": "polite" });
  private readonly drop = el("div", { class: "drop" });
  private readonly waiting: (() => void)[] = [];
  private running = 0;

  constructor(
    private readonly node: Node,
    private readonly say: Say,
    private readonly panels: Panels
  ) {
    this.path = node.data.folder;
    const input = el("input", { type: "file", multiple: "", hidden: "" });
    input.onchange = () => {
      this.send([...(input.files ?? [])]);
      input.value = "";
    };
    const pick = el("button", { type: "button", class: "primary" }, icon("upload"), el("span", {}, say("Upload files")));
    pick.onclick = () => input.click();
    const hint = el("span", { class: "quiet" }, say("or drop them anywhere on this page"));
    this.box.append(el("div", { class: "pick" }, pick, input, hint), this.uploads, this.crumbs, this.list, this.line);
    this.drop.hidden = true;
    document.body.append(this.drop);
    this.listen();
  }

  get busy(): boolean {
    return this.running + this.waiting.length > 0;
  }

  shown(): void {
    void this.go(this.path);
  }

  private listen(): void {
    let depth = 0;
    const ours = (event: DragEvent): boolean => !!event.dataTransfer?.types.includes("Files");
    window.addEventListener("dragenter", event => {
      if (ours(event)) {
        event.preventDefault();
        depth += 1;
        put(this.drop, this.say("Drop to put it into {folder}", { folder: this.path || "~" }));
        this.drop.hidden = false;
      }
    });
    window.addEventListener("dragover", event => {
      if (ours(event)) {
        event.preventDefault();
      }
    });
    window.addEventListener("dragleave", event => {
      if (ours(event)) {
        depth -= 1;
        this.drop.hidden = depth <= 0;
      }
    });
    window.addEventListener("drop", event => {
      depth = 0;
      this.drop.hidden = true;
      if (!ours(event)) {
        return;
      }
      event.preventDefault();
      const items = [...(event.dataTransfer?.items ?? [])];
      const folders = new Set(
        items.filter(item => item.webkitGetAsEntry?.()?.isDirectory).map(item => item.getAsFile()?.name)
      );
      this.panels.show("files");
      this.send([...(event.dataTransfer?.files ?? [])], folders);
    });
  }

  private send(files: File[], folders: Set<string | undefined> = new Set()): void {
    for (const file of files) {
      this.upload(file, folders.has(file.name));
    }
  }

  private upload(file: File, folder: boolean): void {
    const { say } = this;
    const bar = el("span", { class: "fill" });
    const state = el("span", { class: "quiet" }, say("waiting"));
    const stop = el(
      "button",
      { type: "button", class: "tool", "aria-label": say("Stop uploading {name}", { name: file.name }) },
      icon("x")
    );
    const row = el("li", {}, el("span", { class: "filename" }, file.name), state, stop, el("span", { class: "track" }, bar));
    this.uploads.prepend(row);
    const into = this.path;
    let over = false;
    const done = (text: string, tone = ""): void => {
      over = true;
      put(state, text);
      stop.hidden = true;
      row.className = tone;
      if (!tone) {
        window.setTimeout(() => row.remove(), 8000);
      }
    };
    if (folder) {
      done(say("Folders: pack them into one file first"), "bad");
      return;
    }
    const request = new XMLHttpRequest();
    stop.onclick = () => {
      const at = this.waiting.indexOf(begin);
      if (at >= 0) {
        this.waiting.splice(at, 1);
      }
      done(say("Stopped"), "stopped");
      request.abort();
    };
    request.upload.onprogress = event => {
      const part = event.total ? event.loaded / event.total : 0;
      bar.style.width = `${100 * part}%`;
      put(state, say("{percent} of {size}", { percent: `${Math.floor(100 * part)}\u00a0%`, size: bytes(file.size) }));
    };
    request.onloadend = () => {
      this.running -= 1;
      this.next();
      if (over) {
        return;
      }
      const said = parsed(request.responseText);
      if (request.status === 201) {
        bar.style.width = "100%";
        const name = said.name ?? file.name;
        done(name === file.name ? say("{size} uploaded", { size: bytes(file.size) }) : say("Kept as {name}", { name }));
        void this.go(this.path);
        return;
      }
      const why: Record<string, string> = {
        full: say("No room left on the disk"),
        "read-only": say("Read-only here"),
        path: say("This name cannot be used"),
        disk: say("The disk refused it")
      };
      done(why[said.reason ?? ""] ?? say("The connection broke"), "bad");
    };
    const begin = (): void => {
      this.running += 1;
      request.open("PUT", this.node.address("api/file", { path: into, name: file.name }));
      request.setRequestHeader("X-XSRFToken", this.node.data.xsrf);
      request.setRequestHeader("Content-Type", "application/octet-stream");
      request.send(file);
    };
    this.waiting.push(begin);
    this.next();
  }

  private next(): void {
    while (this.running < AT_ONCE) {
      const begin = this.waiting.shift();
      if (!begin) {
        return;
      }
      begin();
    }
  }

  /** Show a folder. */
  private async go(path: string): Promise<void> {
    const { say } = this;
    const answer = await this.node.api("files", {}, { path }).catch(() => null);
    if (!answer?.ok) {
      if (answer?.status === 404 && path && path !== "work") {
        await this.go("work");
      } else {
        put(this.line, say("This folder cannot be read."));
      }
      return;
    }
    const said = (await answer.json()) as { path: string; entries: Entry[]; more: boolean };
    this.path = said.path;
    this.drawCrumbs();
    this.list.replaceChildren(...said.entries.map(entry => this.entry(entry)));
    put(
      this.line,
      said.more
        ? say("The first {n} are shown.", { n: SHOWN })
        : said.entries.length
          ? ""
          : say("This folder is empty")
    );
  }

  private drawCrumbs(): void {
    const parts = this.path ? this.path.split("/") : [];
    const all = [this.crumb(this.say("Home"), "")];
    parts.forEach((part, at) => all.push(this.crumb(part, parts.slice(0, at + 1).join("/"))));
    this.crumbs.replaceChildren(...all.flatMap((item, at) => (at ? ["/", item] : [item])));
    if (parts[0] !== "work") {
      const hint = this.say("only work is kept when the cluster goes back");
      this.crumbs.append(el("span", { class: "quiet" }, hint));
    }
  }

  private crumb(text: string, path: string): HTMLElement {
    const here = path === this.path;
    const button = el("button", { type: "button", class: "crumb", ...(here ? { "aria-current": "true" } : {}) }, text);
    button.onclick = () => void this.go(path);
    return button;
  }

  private entry(entry: Entry): HTMLElement {
    const path = this.path ? `${this.path}/${entry.name}` : entry.name;
    if (entry.folder) {
      const open = el("button", { type: "button" }, icon("folder"), el("span", { class: "filename" }, entry.name));
      open.onclick = () => void this.go(path);
      return el("li", {}, open);
    }
    const label = this.say("Download {name}", { name: entry.name });
    return el(
      "li",
      {},
      el(
        "a",
        { href: this.node.address("api/file", { path }), download: entry.name, "aria-label": label, title: label },
        icon("file"),
        el("span", { class: "filename" }, entry.name),
        el("span", { class: "quiet" }, bytes(entry.bytes ?? 0)),
        icon("download")
      )
    );
  }
}

function parsed(text: string): { name?: string; reason?: string } {
  try {
    return JSON.parse(text) as { name?: string; reason?: string };
  } catch {
    return {};
  }
}
