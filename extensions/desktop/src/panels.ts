/** What the bar's buttons open: one panel at a time, at the right edge, closed by Escape. */

import { el, icon } from "./dom.js";
import type { Say } from "./words.js";

export interface Shown {
  shown?(): void;
  hidden?(): void;
}

interface Panel {
  button: HTMLButtonElement;
  title: string;
  body: HTMLElement;
  part?: Shown;
}

export class Panels {
  readonly box = el("aside", { class: "panel", tabindex: "-1", id: "panel" });
  private readonly title = el("h2");
  private readonly body = el("div", { class: "panelbody" });
  private readonly all = new Map<string, Panel>();
  private open = "";

  constructor(
    say: Say,
    private readonly after: () => void
  ) {
    const close = el("button", { type: "button", class: "tool", title: say("Close"), "aria-label": say("Close") }, icon("x"));
    close.onclick = () => this.close(true);
    this.box.append(el("header", {}, this.title, close), this.body);
    this.box.hidden = true;
    this.box.addEventListener("keydown", event => {
      if (event.key === "Escape") {
        event.stopPropagation();
        this.close(true);
      }
    });
  }

  add(button: HTMLButtonElement, name: string, title: string, body: HTMLElement, part?: Shown): void {
    button.setAttribute("aria-expanded", "false");
    button.setAttribute("aria-controls", this.box.id);
    this.all.set(name, { button, title, body, part });
  }

  toggle(name: string): void {
    if (this.open === name) {
      this.close(true);
    } else {
      this.show(name);
    }
  }

  show(name: string): void {
    const panel = this.all.get(name);
    if (!panel || this.open === name) {
      return;
    }
    this.close(false);
    this.open = name;
    panel.button.setAttribute("aria-expanded", "true");
    this.title.textContent = panel.title;
    this.box.setAttribute("aria-label", panel.title);
    this.box.dataset["name"] = name;
    this.box.style.setProperty("--from", `${panel.button.getBoundingClientRect().left}px`);
    this.body.replaceChildren(panel.body);
    this.box.hidden = false;
    panel.part?.shown?.();
    const first = this.body.querySelector<HTMLElement>("textarea, button, input:checked");
    (first ?? this.box).focus();
  }

  close(back: boolean): void {
    const panel = this.all.get(this.open);
    if (!panel) {
      return;
    }
    panel.button.setAttribute("aria-expanded", "false");
    this.box.hidden = true;
    this.open = "";
    panel.part?.hidden?.();
    if (back) {
      this.after();
    }
  }
}
