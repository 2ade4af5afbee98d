/** What the item's menu does on this page; the same as in JupyterLab, without documents to save. */

import { type Link, Refused } from "../../lab/src/link.js";
import { busyWords, moment } from "../../lab/src/times.js";
import { sure, tell } from "./dialogs.js";
import type { Say } from "./words.js";

export class Cluster {
  constructor(
    private readonly link: Link,
    private readonly say: Say,
    private readonly locale: string,
    private readonly connect: () => void,
    private readonly spoken: (text: string) => void
  ) {}

  get project(): string {
    return this.link.status?.project?.name ?? this.link.status?.node.name ?? "";
  }

  async extend(): Promise<void> {
    const until = this.link.status?.extend?.until;
    if (await this.done(this.link.ask("extend"))) {
      const release = this.link.status?.release;
      const at = release?.kept_until ?? release?.at ?? until;
      if (at) {
        this.spoken(this.say("Kept until {time}.", { time: moment(new Date(at), this.link.now(), this.locale) }));
      }
    }
  }

  async whenDone(): Promise<void> {
    const { say } = this;
    const lines = [
      say(
        "Running programs go on after you leave. When nothing runs any more the cluster goes back; what is not saved on the desktop is lost then."
      )
    ];
    if (await sure(say, say("Continue without you?"), [...this.now(), ...lines], say("Continue"), false)) {
      await this.done(this.link.ask("when-done"));
    }
  }

  async release(): Promise<void> {
    const { say } = this;
    const lines = [
      say("All files in work stay. Programs on the desktop, kernels and terminals end; what is not saved in them is lost.")
    ];
    const title = say("Release {project}?", { project: this.project });
    if (await sure(say, title, [...this.now(), ...lines], say("Release"))) {
      await this.done(this.link.ask("release"));
    }
  }

  async restart(): Promise<void> {
    const { say } = this;
    const lines = [
      say("The desktop, all kernels and terminals of this node end, and what is not saved in them is lost. Files stay.")
    ];
    const title = say("Restart {node}?", { node: this.link.status?.node.name ?? "" });
    if (await sure(say, title, [...this.now(), ...lines], say("Restart node"))) {
      await this.done(this.link.ask("restart-node"));
    }
  }

  reconnect(): void {
    this.link.connect();
    this.connect();
  }

  terminal(): void {
    const { status } = this.link;
    const address = status?.nodes.find(node => node.rank === status.node.rank)?.terminal_url;
    if (address) {
      window.open(address, "_blank", "noopener");
    }
  }

  back(): void {
    const address = this.link.status?.project?.url ?? this.link.status?.portal_url;
    if (address) {
      window.location.assign(address);
    }
  }

  /** The cluster is gone: by whom, and what is kept. */
  async goodbye(): Promise<void> {
    const { say, link } = this;
    const { by: name, explanation } = link.state.kind === "released" ? link.state : { by: "", explanation: "" };
    const by = explanation
      ? say("By {name}: {text}", { name: name ?? "", text: explanation })
      : name
        ? say("Released by {name}.", { name })
        : "";
    const away = link.status?.project?.url ?? link.status?.portal_url;
    await tell(
      say("{project} was released", { project: this.project }),
      [by, say("Your files are kept. Nothing is counted any more.")],
      away ? say("Back to the project") : say("Close")
    );
    this.back();
  }

  private now(): string[] {
    const busy = busyWords(this.say, this.link.status?.busy ?? { kernels: 0, terminals: 0, batch: 0 });
    return busy ? [this.say("Now: {busy}.", { busy })] : [];
  }

  private async done(asked: Promise<void>): Promise<boolean> {
    try {
      await asked;
      return true;
    } catch (error) {
      if (!(error instanceof Refused)) {
        throw error;
      }
      const text = error.message || this.say("The node does not answer.");
      await tell(this.say("That did not work: {text}", { text }), [], this.say("Close"));
      return false;
    }
  }
}
