/**
 * What the menu of the cluster does, in JupyterLab and on the desktop: every loss is named before.
 *
 * The page that it stands on lends its hands: how it asks, says and saves. Nothing here knows which page that is.
 */

import { type Ask, type Link, Refused } from "./link.js";
import { lossPart } from "./losses.js";
import { busyWords, moment } from "./times.js";
import type { Say } from "./words.js";

/** What a page does for the menu. */
export interface Hands {
  /** The second step before a loss; whether the person wants it. `beside` stands below the lines, if anything does. */
  sure(title: string, lines: string[], label: string, danger: boolean, beside?: HTMLElement): Promise<boolean>;
  /** Says that something did not work. */
  refused(text: string): Promise<void>;
  /** Says one quiet line, also to a screen reader. */
  tell(text: string): void;
  /** Saves what is open; `false` = not all could be saved (and it said so), so nothing else happens. */
  saved(): Promise<boolean>;
  /** Ties of the page's own to its node, after the link's. */
  reconnect(): void;
  /** Opens a terminal on this node. */
  terminal(): void;
  /** What is lost or kept of this page's own, in its words. */
  words: { whenDone: string; release: string; restart: string };
}

/** How a node is made anew. */
export type How = "restart" | "reset";

export class Actions {
  constructor(
    private readonly link: Link,
    private readonly hands: Hands,
    private readonly say: Say,
    private readonly locale: string
  ) {}

  get project(): string {
    return this.link.status?.project?.name ?? this.link.status?.node.name ?? "";
  }

  async extend(): Promise<void> {
    const until = this.link.status?.extend?.until;
    if (await this.done("extend")) {
      const release = this.link.status?.release;
      const at = release?.kept_until ?? release?.at ?? until;
      if (at) {
        const time = moment(new Date(at), this.link.now(), this.locale);
        this.hands.tell(this.say("Kept until {time}.", { time }));
      }
    }
  }

  /** "Continue without me", after it was said what that means. */
  async whenDone(asked = true): Promise<void> {
    const { say } = this;
    if (asked && !(await this.sure(say("Continue without you?"), [this.hands.words.whenDone], say("Continue"), false))) {
      return;
    }
    if ((await this.hands.saved()) && (await this.done("when-done"))) {
      this.hands.tell(say("It goes back when nothing runs any more."));
    }
  }

  async release(): Promise<void> {
    const { say } = this;
    const title = say("Release {project}?", { project: this.project });
    const lines = [this.hands.words.release];
    if ((await this.sure(title, lines, say("Release"), true, this.losses())) && (await this.hands.saved())) {
      await this.done("release");
    }
  }

  /** This node, or another one of the cluster, begins anew; the others go on. */
  async renew(how: How, rank?: number): Promise<void> {
    const { say, link } = this;
    const own = link.status?.node.rank;
    const other = rank !== undefined && rank !== own ? link.status?.nodes.find(item => item.rank === rank) : undefined;
    const node = other?.name ?? link.status?.node.name ?? "";
    const told = link.status?.loses?.[how];
    const lines = told
      ? [...told.goes, told.stays, ...(other ? [] : [this.hands.words.restart])]
      : [say("All programs of this node end, and what they hold in memory is lost."), this.hands.words.restart];
    const title = how === "restart" ? say("Restart {node}?", { node }) : say("Reset {node}?", { node });
    const label = how === "restart" ? say("Restart node") : say("Reset node");
    const beside = how === "reset" ? this.losses(other?.rank ?? own) : undefined;
    if ((await this.sure(title, lines.filter(Boolean), label, true, beside)) && (await this.hands.saved())) {
      await this.done(`${how}-node`, other ? { rank } : {});
    }
  }

  reconnect(): void {
    this.link.connect();
    this.hands.reconnect();
  }

  terminal(): void {
    this.hands.terminal();
  }

  back(): void {
    const address = this.link.status?.project?.url ?? this.link.status?.portal_url;
    if (address) {
      window.location.assign(address);
    }
  }

  /** The last words on a cluster that is gone: by whom, and what is kept; and what leads on. */
  goodbye(): { title: string; lines: string[]; label: string } {
    const { say, link } = this;
    const { by: name, explanation } = link.state.kind === "released" ? link.state : { by: "", explanation: "" };
    const by = explanation
      ? say("By {name}: {text}", { name: name ?? "", text: explanation })
      : name
        ? say("Released by {name}.", { name })
        : "";
    const away = link.status?.project?.url ?? link.status?.portal_url;
    return {
      title: say("{project} was released", { project: this.project }),
      lines: [by, say("Your files are kept. Nothing is counted any more.")].filter(Boolean),
      label: away ? say("Back to the project") : say("Close")
    };
  }

  /** What is lost outside of work, filled in by and by; nothing where no node could be looked at. */
  private losses(rank?: number): HTMLElement | undefined {
    return this.link.status?.nodes.some(node => node.save_url)
      ? lossPart(this.say, this.link.losses(rank))
      : undefined;
  }

  private sure(
    title: string,
    lines: string[],
    label: string,
    danger = true,
    beside?: HTMLElement
  ): Promise<boolean> {
    const busy = busyWords(this.say, this.link.status?.busy ?? { kernels: 0, terminals: 0, batch: 0 });
    return this.hands.sure(title, [...(busy ? [this.say("Now: {busy}.", { busy })] : []), ...lines], label, danger, beside);
  }

  private async done(what: Ask, body: object = {}): Promise<boolean> {
    try {
      await this.link.ask(what, body);
      return true;
    } catch (error) {
      if (!(error instanceof Refused)) {
        throw error;
      }
      const text = error.message || this.say("The node does not answer.");
      await this.hands.refused(this.say("That did not work: {text}", { text }));
      return false;
    }
  }
}
