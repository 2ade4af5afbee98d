/** The pill in the top bar: what, where, how long, until when. It ticks by itself once a second. */

import { el, icon, mark, put } from "./dom.js";
import type { Link } from "./link.js";
import { clock, fate } from "./times.js";
import type { Say } from "./words.js";

/** When the pill turns amber, before an end that is known. */
const AMBER_SECONDS = 300;
const LATE_MS = 90_000;
const AWAY_QUIET_MS = 4000;

export class Item {
  readonly node = el("div", { class: "galilean-item" });
  readonly pill = el("button", {
    type: "button",
    class: "galilean-pill",
    "aria-haspopup": "dialog",
    "aria-expanded": "false"
  });
  readonly extend: HTMLButtonElement;
  private readonly project = el("span", { class: "galilean-project" });
  private readonly name = el("span", { class: "galilean-node" });
  private readonly held = el("span", { class: "galilean-held" });
  private readonly until = el("span", { class: "galilean-until" });
  private readonly tiny = el("span", { class: "galilean-tiny", "aria-hidden": "true" });
  private readonly line = el("span", { class: "galilean-line" });
  /** Read by screen readers when it changes; never the ticking time. */
  private readonly spoken = el("span", { class: "galilean-spoken", role: "status" });

  private awaySince = 0;

  constructor(
    private readonly link: Link,
    private readonly say: Say,
    private readonly locale: string
  ) {
    this.extend = el("button", { type: "button", class: "galilean-pill-extend" }, say("Extend"));
    this.extend.hidden = true;
    this.pill.append(mark(), this.project, this.name, this.held, this.until, this.tiny, icon("chevron"));
    this.node.append(this.line, this.extend, this.pill, this.spoken);
    window.setInterval(() => this.tick(), 1000);
  }

  tell(text: string): void {
    put(this.spoken, text);
  }

  update(): void {
    const { status } = this.link;
    this.drawLine();
    put(this.project, status?.project?.name ?? "Galilean");
    put(this.name, status?.node.name ?? "");
    this.tick();
  }

  private drawLine(): void {
    const { link, say } = this;
    const line = {
      waiting: "",
      here: this.portalAway() ? say("The portal is away; your work here goes on.") : "",
      lost: say("Connection lost. Trying again …"),
      restarting: this.late()
        ? say("The node has not come back yet; the project's page says why.")
        : say("The node restarts …"),
      released: ""
    }[link.state.kind];
    if (line !== this.line.textContent) {
      const healed = link.state.kind === "here" && this.node.dataset["state"] === "lost";
      put(this.line, line);
      this.line.title = line;
      this.tell(line || (healed ? say("Connected again.") : ""));
    }
    this.node.dataset["state"] = link.state.kind;
  }

  /** Whether a node that is made anew takes longer than one that comes back takes. */
  private late(): boolean {
    const { state } = this.link;
    return state.kind === "restarting" && Date.now() - state.since > LATE_MS;
  }

  /** Whether the portal has been away for so long that it is worth a line: at its first question it is, too. */
  private portalAway(): boolean {
    if (!this.link.status?.portal_away) {
      this.awaySince = 0;
      return false;
    }
    this.awaySince ||= Date.now();
    return Date.now() - this.awaySince >= AWAY_QUIET_MS;
  }

  tick(): void {
    const { link, say } = this;
    const { status } = link;
    if (!status) {
      return;
    }
    this.drawLine();
    const now = link.now();
    const held = heldSeconds(link);
    put(this.held, held === null ? "" : clock(held));
    const ends = status.release ? fate(say, status.release, now, this.locale) : null;
    put(this.until, ends?.short ?? "");
    put(this.tiny, ends?.tiny ?? "");
    const warned = status.warning !== null || (ends?.left != null && ends.left < AMBER_SECONDS);
    this.node.classList.toggle("galilean-soon", warned);
    this.extend.hidden = !(warned && status.extend);
    const label = [
      status.project?.name ?? "",
      status.node.name,
      held === null ? "" : say("held {time}", { time: clock(held) }),
      ends?.short ?? ""
    ];
    this.pill.setAttribute("aria-label", say("Cluster: {text}", { text: label.filter(Boolean).join(", ") }));
  }
}

/** Held time now: as told, and going on by the clock since. */
export function heldSeconds(link: Link): number | null {
  const { status } = link;
  if (!status || status.held_seconds === null) {
    return null;
  }
  const since = (link.now().getTime() - new Date(status.now).getTime()) / 1000;
  return status.held_seconds + (link.state.kind === "released" ? 0 : Math.max(0, since));
}
