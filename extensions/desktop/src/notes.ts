/** The note: written as it is typed, never over what somebody else wrote meanwhile. */

import { el, put } from "./dom.js";
import type { Node } from "./node.js";
import type { Say } from "./words.js";

const PAUSE_MS = 800;
const AGAIN_MS = 5000;

export class Notes {
  readonly box = el("div", { class: "notes" });
  dirty = false;
  private readonly field: HTMLTextAreaElement;
  private readonly state = el("p", { class: "quiet", role: "status" });
  private readonly conflict = el("div", { class: "conflict" });
  private known: string | null = null;
  private timer = 0;
  private writing = false;

  constructor(
    private readonly node: Node,
    private readonly say: Say
  ) {
    this.field = el("textarea", { spellcheck: "false", "aria-label": say("Your note") });
    this.field.disabled = true;
    this.field.oninput = () => {
      this.dirty = true;
      put(this.state, say("Not saved yet"));
      this.later(PAUSE_MS);
    };
    const theirs = el("button", { type: "button", class: "secondary" }, say("Take theirs"));
    theirs.onclick = () => {
      this.dirty = false;
      void this.read();
    };
    const mine = el("button", { type: "button", class: "secondary" }, say("Keep mine"));
    mine.onclick = () => void this.over();
    this.conflict.append(
      el("p", {}, say("The note was changed elsewhere meanwhile.")),
      el("div", { class: "buttons" }, theirs, mine)
    );
    this.conflict.hidden = true;
    const lab = el(
      "a",
      { href: `${node.data.base}lab/tree/notes.md`, target: "_blank", rel: "noopener" },
      say("Open in JupyterLab")
    );
    const about = el("p", { class: "quiet" }, say("Markdown, kept with the project as work/notes.md"));
    this.box.append(about, this.field, this.conflict, el("div", { class: "foot" }, this.state, lab));
  }

  shown(): void {
    if (!this.dirty) {
      void this.read();
    }
  }

  hidden(): void {
    if (this.dirty) {
      void this.write();
    }
  }

  private later(ms: number): void {
    window.clearTimeout(this.timer);
    this.timer = window.setTimeout(() => void this.write(), ms);
  }

  private async read(): Promise<void> {
    const answer = await this.node.api("notes").catch(() => null);
    if (answer?.ok) {
      const said = (await answer.json()) as { text: string; known: string };
      if (this.dirty) {
        return;
      }
      this.field.value = said.text;
      this.known = said.known;
      this.conflict.hidden = true;
      put(this.state, "");
      const first = this.field.disabled;
      this.field.disabled = false;
      if (first && this.field.isConnected) {
        this.field.focus();
      }
    } else {
      const text = answer
        ? this.say("This note cannot be shown: it is no text, or longer than 1 MB.")
        : this.say("The node does not answer.");
      put(this.state, text);
    }
  }

  /** Write mine, whatever is there now. */
  private async over(): Promise<void> {
    const answer = await this.node.api("notes").catch(() => null);
    if (answer?.ok) {
      this.known = ((await answer.json()) as { known: string }).known;
      await this.write();
    }
  }

  private async write(): Promise<void> {
    window.clearTimeout(this.timer);
    if (this.writing || this.known === null) {
      return;
    }
    this.writing = true;
    const text = this.field.value;
    put(this.state, this.say("Saving …"));
    const body = JSON.stringify({ text, known: this.known });
    const answer = await this.node.api("notes", { method: "PUT", body }).catch(() => null);
    const said = ((await answer?.json().catch(() => null)) ?? {}) as { known?: string; reason?: string };
    this.writing = false;
    if (answer?.ok) {
      this.known = said.known ?? "";
      this.conflict.hidden = true;
      this.dirty = this.field.value !== text;
      put(this.state, this.say(this.dirty ? "Not saved yet" : "Saved"));
      if (this.dirty) {
        this.later(PAUSE_MS);
      }
    } else if (said.reason === "changed") {
      this.conflict.hidden = false;
      put(this.state, this.say("Not saved yet"));
    } else if (answer && said.reason) {
      const why: Record<string, string> = {
        full: this.say("Not saved: the disk is full."),
        "read-only": this.say("Not saved: the project is read-only here."),
        long: this.say("Not saved: longer than 1 MB.")
      };
      put(this.state, why[said.reason] ?? this.say("Not saved: the disk refused it."));
    } else {
      put(this.state, this.say("Not saved: the node does not answer. Trying again …"));
      this.later(AGAIN_MS);
    }
  }
}
