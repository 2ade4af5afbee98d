/** What the menu does: every loss is named before, and open documents are saved first. */

import type { AppUtils, JupyterFrontEnd, MainWidget } from "./jupyter.js";
import { Link, Refused } from "./link.js";
import { busyWords, moment } from "./times.js";
import type { Say } from "./words.js";

export class Actions {
  constructor(
    private readonly app: JupyterFrontEnd,
    private readonly ui: AppUtils,
    private readonly link: Link,
    private readonly say: Say,
    private readonly locale: string,
    /** Says one quiet line, also to a screen reader. */
    private readonly tell: (text: string) => void
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
        this.tell(this.say("Kept until {time}.", { time: moment(new Date(at), this.link.now(), this.locale) }));
      }
    }
  }

  /** "Continue without me", after it was said what that means. */
  async whenDone(asked = true): Promise<void> {
    const { say } = this;
    if (
      asked &&
      !(await this.sure(
        say("Continue without you?"),
        [
          say(
            "Running cells go on and write their output into the notebook. When nothing runs any more the cluster goes back. Open documents are saved first."
          )
        ],
        say("Continue"),
        false
      ))
    ) {
      return;
    }
    if ((await this.saved()) && (await this.done(this.link.ask("when-done")))) {
      this.tell(say("It goes back when nothing runs any more."));
    }
  }

  async release(): Promise<void> {
    const { say, link } = this;
    const lines = [say("All files in work stay; open documents are saved first. Kernels and terminals end.")];
    const sure = await this.sure(say("Release {project}?", { project: this.project }), lines, say("Release"));
    if (sure && (await this.saved())) {
      await this.done(link.ask("release"));
    }
  }

  async restart(): Promise<void> {
    const { say, link } = this;
    const lines = [
      say(
        "All kernels and terminals of this node end, and what they hold in memory is lost. Files stay; open documents are saved first."
      )
    ];
    const title = say("Restart {node}?", { node: link.status?.node.name ?? "" });
    if ((await this.sure(title, lines, say("Restart node"))) && (await this.saved())) {
      await this.done(link.ask("restart-node"));
    }
  }

  reconnect(): void {
    this.link.connect();
    this.reconnectKernels();
  }

  /** Kernels' own ties, of all open documents and consoles. */
  reconnectKernels(): void {
    for (const widget of this.widgets()) {
      void widget.sessionContext?.session?.kernel?.reconnect().catch(() => undefined);
    }
  }

  terminal(): void {
    const { commands } = this.app;
    if (commands.hasCommand("terminal:create-new")) {
      void commands.execute("terminal:create-new");
    }
  }

  back(): void {
    const address = this.link.status?.project?.url ?? this.link.status?.portal_url;
    if (address) {
      window.location.assign(address);
    }
  }

  /** Show again what the node wrote into a notebook that nobody changed here. */
  revert(path: string): void {
    for (const widget of this.widgets()) {
      if (widget.context?.path === path && !widget.context.model.dirty) {
        void widget.context.revert();
      }
    }
  }

  private widgets(): MainWidget[] {
    return [...this.app.shell.widgets("main")];
  }

  private async sure(title: string, lines: string[], label: string, warns = true): Promise<boolean> {
    const busy = busyWords(this.say, this.link.status?.busy ?? { kernels: 0, terminals: 0, batch: 0 });
    const body = [...(busy ? [this.say("Now: {busy}.", { busy })] : []), ...lines].join(" ");
    const { Dialog } = this.ui;
    const { button } = await this.ui.showDialog({
      title,
      body,
      buttons: [
        Dialog.cancelButton({ label: this.say("Cancel") }),
        (warns ? Dialog.warnButton : Dialog.okButton)({ label })
      ],
      defaultButton: warns ? 0 : 1
    });
    return button.accept;
  }

  /** Save every open document with changes; says which could not be, and then nothing else happens. */
  private async saved(): Promise<boolean> {
    const failed = new Set<string>();
    for (const { context } of this.widgets()) {
      if (context?.model.dirty && !context.model.readOnly) {
        await context.save().catch(() => failed.add(context.path));
        if (context.model.dirty) {
          failed.add(context.path);
        }
      }
    }
    if (failed.size) {
      await this.refused(this.say("Documents could not be saved: {names}", { names: [...failed].join(", ") }));
    }
    return failed.size === 0;
  }

  private async done(asked: Promise<void>): Promise<boolean> {
    try {
      await asked;
      return true;
    } catch (error) {
      if (!(error instanceof Refused)) {
        throw error;
      }
      await this.refused(
        this.say("That did not work: {text}", { text: error.message || this.say("The node does not answer.") })
      );
      return false;
    }
  }

  private async refused(text: string): Promise<void> {
    this.ui.Notification.emit(text, "error", { autoClose: 10_000 });
    this.tell(text);
  }
}
