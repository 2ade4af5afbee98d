/** The hands that JupyterLab lends to the cluster's menu: its dialogs, open documents, kernels and terminals. */

import type { Hands } from "./actions.js";
import { el } from "./dom.js";
import type { AppUtils, JupyterFrontEnd, LuminoWidget, MainWidget } from "./jupyter.js";
import type { Say } from "./words.js";

export class Documents implements Hands {
  readonly words: Hands["words"];

  constructor(
    private readonly app: JupyterFrontEnd,
    private readonly ui: AppUtils,
    private readonly say: Say,
    private readonly widget: (node: HTMLElement) => LuminoWidget,
    readonly tell: (text: string) => void
  ) {
    this.words = {
      whenDone: say(
        "Running cells go on and write their output into the notebook. When nothing runs any more the cluster goes back. Open documents are saved first."
      ),
      release: say("All files in work stay; open documents are saved first. Kernels and terminals end."),
      restart: say("Open documents are saved first.")
    };
  }

  async sure(
    title: string,
    lines: string[],
    label: string,
    danger: boolean,
    beside?: HTMLElement
  ): Promise<boolean> {
    const { Dialog } = this.ui;
    const { button } = await this.ui.showDialog({
      title,
      body: beside ? this.widget(el("div", {}, el("p", {}, lines.join(" ")), beside)) : lines.join(" "),
      buttons: [
        Dialog.cancelButton({ label: this.say("Cancel") }),
        (danger ? Dialog.warnButton : Dialog.okButton)({ label })
      ],
      defaultButton: danger ? 0 : 1
    });
    return button.accept;
  }

  async refused(text: string): Promise<void> {
    this.ui.Notification.emit(text, "error", { autoClose: 10_000 });
    this.tell(text);
  }

  async saved(): Promise<boolean> {
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

  /** Kernels' own ties, of all open documents and consoles. */
  reconnect(): void {
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
}
