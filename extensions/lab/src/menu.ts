/** The menu below the pill: a small dialog, a sheet from below on a phone. All of it works by keyboard. */

import type { Actions } from "./actions.js";
import { el, icon, put } from "./dom.js";
import type { Item } from "./item.js";
import { heldSeconds } from "./item.js";
import type { Link } from "./link.js";
import type { NodeDoors } from "./status.js";
import { busyWords, clock, fate, memoryWords, moment, sizeWords } from "./times.js";
import type { Say } from "./words.js";

const WARN_PERCENT = 80;
const FULL_PERCENT = 98;

export class Menu {
  private readonly box = el("div", {
    class: "galilean-menu",
    role: "dialog",
    tabindex: "-1",
    id: "galilean-menu"
  });
  private readonly title = el("h2", { class: "galilean-title" });
  private readonly project: HTMLAnchorElement;
  private readonly size = el("p", { class: "galilean-size" });
  private readonly held = el("p", { class: "galilean-heldline" });
  private readonly bars = el("div", { class: "galilean-bars" });
  private readonly fateTitle = el("strong");
  private readonly fateMore = el("span");
  private readonly extend: HTMLButtonElement;
  private readonly nodes = el("div", { class: "galilean-nodes", role: "group" });
  /** The other page of this node: its desktop from JupyterLab, JupyterLab from its desktop. */
  private readonly other = el(
    "a",
    { class: "galilean-row", target: "_blank", rel: "noopener" },
    icon("desktop"),
    el("span", { class: "galilean-rowtext" })
  );
  /** Saves this node as an image, where the backend can. */
  private readonly save = el(
    "a",
    { class: "galilean-row", target: "_blank", rel: "noopener" },
    icon("image"),
    el("span", { class: "galilean-rowtext" })
  );
  private readonly terminal: HTMLButtonElement;
  private readonly whenDone: HTMLButtonElement;
  private readonly notify: HTMLButtonElement;
  private readonly restart: HTMLButtonElement;
  private readonly reset: HTMLButtonElement;
  private readonly release: HTMLButtonElement;
  private readonly back: HTMLButtonElement;
  private drawn = "";

  constructor(
    private readonly item: Item,
    private readonly link: Link,
    private readonly actions: Actions,
    private readonly say: Say,
    private readonly locale: string
  ) {
    this.box.setAttribute("aria-label", say("The cluster of this page"));
    this.box.hidden = true;
    this.nodes.setAttribute("aria-label", say("Nodes"));
    this.project = el("a", { target: "_blank", rel: "noopener" }, say("View project"));
    this.extend = el("button", { type: "button", class: "galilean-primary" }, say("Extend"));
    this.extend.onclick = () => void actions.extend();
    this.other.onclick = () => this.close();
    this.save.onclick = () => this.close();
    put(this.save.querySelector(".galilean-rowtext") as HTMLElement, say("Save image …"));
    this.terminal = this.row("terminal", say("Open terminal"), () => actions.terminal());
    this.whenDone = this.row("hourglass", say("Continue without me"), () => void actions.whenDone());
    hint(this.whenDone, say("release when done"));
    this.notify = this.row("bell", say("Warn me outside this tab, too"), () => {
      void Notification.requestPermission().then(() => this.update());
    });
    const reconnect = this.row("plug", say("Reconnect"), () => actions.reconnect());
    this.restart = this.row("restart", say("Restart node …"), () => void actions.renew("restart"));
    hint(this.restart, say("kernels end"));
    this.reset = this.row("restart", say("Reset node …"), () => void actions.renew("reset"));
    hint(this.reset, say("only work stays"));
    this.release = this.row("release", say("Release …"), () => void actions.release());
    this.release.classList.add("galilean-danger");
    this.back = this.row("back", say("Back to the project"), () => actions.back());
    this.box.append(
      el("div", { class: "galilean-head" }, this.title, this.project),
      this.size,
      this.held,
      this.bars,
      el("div", { class: "galilean-fate" }, el("div", {}, this.fateTitle, this.fateMore), this.extend),
      this.nodes,
      this.other,
      this.terminal,
      this.save,
      this.whenDone,
      this.notify,
      el("hr"),
      reconnect,
      this.restart,
      this.reset,
      el("hr"),
      this.release,
      this.back
    );
    document.body.append(this.box);
    item.pill.setAttribute("aria-controls", this.box.id);
    item.pill.onclick = () => this.toggle();
    this.box.addEventListener("keydown", event => this.key(event));
    document.addEventListener("pointerdown", event => {
      const target = event.target as Node;
      if (!this.box.contains(target) && !item.node.contains(target)) {
        this.close(false);
      }
    });
    window.addEventListener("resize", () => this.place());
    window.setInterval(() => this.open && this.update(), 1000);
  }

  get open(): boolean {
    return !this.box.hidden;
  }

  toggle(): void {
    if (this.open) {
      this.close();
    } else if (this.link.status) {
      this.box.hidden = false;
      this.item.pill.setAttribute("aria-expanded", "true");
      this.update();
      this.place();
      this.box.focus();
    }
  }

  close(focus = true): void {
    if (this.open) {
      this.box.hidden = true;
      this.item.pill.setAttribute("aria-expanded", "false");
      if (focus) {
        this.item.pill.focus();
      }
    }
  }

  update(): void {
    const { link, say } = this;
    const { status } = link;
    if (!status) {
      return;
    }
    const now = link.now();
    put(this.title, status.project?.name ?? status.node.name);
    this.project.hidden = this.back.hidden = !status.project?.url;
    this.project.href = status.project?.url ?? "";
    put(this.size, status.size ? sizeWords(say, status.size) : "");
    const held = heldSeconds(link);
    put(this.held, held === null ? "" : say("Held {time}", { time: clock(held) }));
    this.drawBars();
    const ends = status.release ? fate(say, status.release, now, this.locale) : null;
    put(this.fateTitle, ends?.title ?? "");
    put(this.fateMore, ends?.more ?? "");
    (this.fateTitle.closest(".galilean-fate") as HTMLElement).hidden = !ends;
    this.extend.hidden = !status.extend;
    const until = status.extend?.until;
    const label = until ? say("Extend until {time}", { time: moment(new Date(until), now, this.locale) }) : "";
    this.extend.title = label;
    this.extend.setAttribute("aria-label", label || say("Extend"));
    this.drawNodes(status.nodes);
    this.terminal.hidden = status.nodes.length > 1;
    const own = status.nodes.find(node => node.rank === status.node.rank);
    const other = own && status.nodes.length === 1 ? otherDoor(say, own) : null;
    this.other.hidden = !other;
    this.other.href = other?.url ?? "";
    put(this.other.querySelector(".galilean-rowtext") as HTMLElement, other?.open ?? "");
    this.save.hidden = !own?.save_url;
    this.save.href = own?.save_url ?? "";
    this.whenDone.hidden = !status.can.when_done || !!status.release?.when_done;
    this.notify.hidden = !("Notification" in window) || Notification.permission !== "default";
    this.restart.hidden = !status.can.restart;
    this.reset.hidden = !status.can.reset;
    this.release.hidden = !status.can.release;
    hint(this.release, busyWords(say, status.busy));
    const away = status.portal_away || link.state.kind !== "here";
    for (const button of [this.extend, this.whenDone, this.restart, this.reset, this.release]) {
      button.disabled = away;
    }
  }

  private drawBars(): void {
    const { say } = this;
    const use = this.link.status?.use;
    const rows: [string, number | null, string, boolean?][] = [];
    if (use) {
      rows.push([say("CPU"), use.cpu_percent, percent(say, use.cpu_percent)]);
      const all = use.memory_limit_bytes ?? this.link.status?.size?.memory_bytes ?? null;
      if (use.memory_bytes !== null && all) {
        rows.push([say("Memory"), (100 * use.memory_bytes) / all, memoryWords(say, use.memory_bytes, all), true]);
      }
      if (use.gpu_percent !== null) {
        rows.push([say("GPU"), use.gpu_percent, percent(say, use.gpu_percent)]);
      }
    }
    this.bars.hidden = rows.length === 0;
    this.bars.replaceChildren(
      ...rows.map(([name, value, text, limited]) => {
        const part = Math.min(100, Math.max(0, value ?? 0));
        // Much memory is a danger; a busy processor is what one came for.
        const tone = !limited || part < WARN_PERCENT ? "" : part < FULL_PERCENT ? "galilean-high" : "galilean-full";
        const bar = el("div", {
          class: `galilean-bar ${tone}`,
          role: "meter",
          "aria-label": name,
          "aria-valuemin": "0",
          "aria-valuemax": "100",
          "aria-valuenow": String(Math.round(part)),
          "aria-valuetext": text
        });
        const fill = el("span");
        fill.style.width = `${part}%`;
        bar.append(fill);
        return el("div", { class: "galilean-barrow" }, el("span", {}, name), bar, el("b", {}, text));
      })
    );
  }

  private drawNodes(nodes: NodeDoors[]): void {
    const { say } = this;
    const key = JSON.stringify(nodes);
    this.nodes.hidden = nodes.length < 2 && !nodes.some(node => node.more?.length);
    if (key === this.drawn) {
      return;
    }
    this.drawn = key;
    const own = this.link.status?.node.rank;
    const words = { starting: say("starting"), restarting: say("restarting"), lost: say("lost") };
    this.nodes.replaceChildren(
      ...nodes.map(node => {
        const door = (text: string, address: string): HTMLAnchorElement =>
          el(
            "a",
            {
              href: address,
              target: "_blank",
              rel: "noopener",
              class: "galilean-door",
              "aria-label": say("{door} on {node}", { door: text, node: node.name })
            },
            text
          );
        const here = node.rank === own;
        const terminal = el("button", { type: "button", class: "galilean-door" }, say("Terminal"));
        terminal.setAttribute("aria-label", say("{door} on {node}", { door: say("Terminal"), node: node.name }));
        terminal.onclick = () => {
          this.close();
          this.actions.terminal();
        };
        const other = here ? otherDoor(say, node) : null;
        const doors = here
          ? [
              el("span", { class: "galilean-quiet" }, say("this page")),
              ...(other ? [door(other.name, other.url)] : []),
              terminal
            ]
          : node.state && node.state !== "ready"
            ? [el("span", { class: "galilean-quiet", title: node.why ?? "" }, words[node.state]), ...this.again(node)]
            : [
                door(say("Lab"), node.lab_url),
                ...(node.desktop_url ? [door(say("Desktop"), node.desktop_url)] : []),
                door(say("Terminal"), node.terminal_url)
              ];
        const dot = el("span", { class: `galilean-dot galilean-${node.state ?? "unknown"}` });
        const row = el("div", { class: "galilean-noderow" }, dot, el("span", {}, node.name), ...doors);
        const more = (node.state ?? "ready") === "ready" ? (node.more ?? []) : [];
        return more.length
          ? el("div", {}, row, el("div", { class: "galilean-more" }, ...more.map(one => door(one.title, one.url))))
          : row;
      })
    );
  }

  /** A node that is lost may be had again. */
  private again(node: NodeDoors): HTMLElement[] {
    const { can } = this.link.status ?? {};
    const how = can?.restart ? "restart" : can?.reset ? "reset" : null;
    if (node.state !== "lost" || !how) {
      return [];
    }
    const button = el("button", { type: "button", class: "galilean-door" }, this.say("Try again"));
    button.setAttribute("aria-label", this.say("{door} on {node}", { door: this.say("Try again"), node: node.name }));
    button.onclick = () => {
      this.close();
      void this.actions.renew(how, node.rank);
    };
    return [button];
  }

  /** Below the pill, at its right edge, and never out of the window. */
  private place(): void {
    if (this.open) {
      const rect = this.item.pill.getBoundingClientRect();
      this.box.style.setProperty("--galilean-top", `${rect.bottom + 4}px`);
      this.box.style.setProperty("--galilean-right", `${Math.max(8, window.innerWidth - rect.right)}px`);
    }
  }

  private row(name: string, text: string, act: () => void): HTMLButtonElement {
    const button = el(
      "button",
      { type: "button", class: "galilean-row" },
      icon(name),
      el("span", { class: "galilean-rowtext" }, text),
      el("span", { class: "galilean-hint" })
    );
    button.onclick = () => {
      this.close();
      act();
    };
    return button;
  }

  private key(event: KeyboardEvent): void {
    const stops = [...this.box.querySelectorAll<HTMLElement>("a[href], button:not(:disabled)")].filter(
      stop => stop.offsetParent !== null
    );
    const at = stops.indexOf(document.activeElement as HTMLElement);
    const to: Record<string, number> = {
      ArrowDown: at + 1,
      ArrowUp: at < 0 ? stops.length - 1 : at - 1,
      Home: 0,
      End: stops.length - 1,
      // Round and round, as in a dialog: what lies behind is reached after Escape.
      Tab: event.shiftKey ? (at <= 0 ? stops.length - 1 : at - 1) : at + 1
    };
    const next = to[event.key];
    if (event.key === "Escape") {
      this.close();
    } else if (next !== undefined && stops.length) {
      stops[(next + stops.length) % stops.length]?.focus();
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  }
}

/** What this node shows beside this page; `null` where it has no desktop. */
function otherDoor(say: Say, node: NodeDoors): { name: string; open: string; url: string } | null {
  if (!node.desktop_url) {
    return null;
  }
  const desktop = new URL(node.desktop_url, location.href).pathname;
  return location.pathname === desktop
    ? { name: say("Lab"), open: say("Open JupyterLab"), url: node.lab_url }
    : { name: say("Desktop"), open: say("Open desktop"), url: node.desktop_url };
}

function hint(row: HTMLButtonElement, text: string): void {
  const place = row.querySelector(".galilean-hint");
  if (place) {
    put(place, text);
  }
}

function percent(say: Say, value: number | null): string {
  return value === null ? say("not measured yet") : say("{n} %", { n: Math.round(value) }).replace(" ", "\u00a0");
}
