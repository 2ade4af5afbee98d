/** The warning before a release: in the page, and outside of it when the tab is hidden and it is permitted. */

import type { Actions } from "./actions.js";
import type { AppUtils, NotificationAction } from "./jupyter.js";
import type { Link } from "./link.js";
import { moment } from "./times.js";
import type { Say } from "./words.js";

export class Warnings {
  private shown: { id: string; notice: string } | null = null;
  private outside: Notification | null = null;

  constructor(
    private readonly ui: AppUtils,
    private readonly link: Link,
    private readonly actions: Actions,
    private readonly say: Say,
    private readonly locale: string
  ) {}

  update(): void {
    const warning = this.link.state.kind === "released" ? null : (this.link.status?.warning ?? null);
    if (warning?.id === this.shown?.id) {
      return;
    }
    if (this.shown) {
      this.ui.Notification.dismiss(this.shown.notice);
      this.outside?.close();
      this.shown = this.outside = null;
    }
    if (!warning) {
      return;
    }
    const { say } = this;
    const time = moment(new Date(warning.at), this.link.now(), this.locale);
    const text = say(
      warning.busy ? "{project} goes back at {time}; something still runs" : "{project} goes back at {time}",
      { project: this.actions.project, time }
    );
    const actions: NotificationAction[] = [];
    if (this.link.status?.extend) {
      actions.push({
        label: say("Extend"),
        displayType: "accent",
        callback: () => void this.actions.extend()
      });
    }
    if (this.link.status?.can.when_done) {
      actions.push({ label: say("When done"), callback: () => void this.actions.whenDone(false) });
    }
    const notice = this.ui.Notification.emit(text, "warning", { autoClose: false, actions });
    this.shown = { id: warning.id, notice };
    if (document.hidden && "Notification" in window && Notification.permission === "granted") {
      this.outside = new Notification(text, { tag: `galilean-${warning.id}` });
      this.outside.onclick = () => {
        window.focus();
        this.outside?.close();
      };
    }
  }
}
