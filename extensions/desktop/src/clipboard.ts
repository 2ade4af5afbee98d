/**
 * Text between the two clipboards: by itself where the browser allows it, through a field where it does not.
 *
 * A browser lets a page read its clipboard only with the person's permission, on an encrypted or local address, and
 * while the page has the focus. So the desktop is told at the moment somebody comes back to the page.
 */

import { el, put } from "./dom.js";
import type { Picture } from "./picture.js";
import type { Say } from "./words.js";

type Permission = "granted" | "prompt" | "denied";

export class Clipboard {
  readonly box = el("div", { class: "clipboard" });
  private readonly field: HTMLTextAreaElement;
  private readonly about = el("p", { class: "quiet" });
  private readonly allow: HTMLButtonElement;
  private last = "";
  private permission: Permission = "denied";

  constructor(
    private readonly picture: Picture,
    private readonly say: Say,
    private readonly tell: (text: string) => void
  ) {
    this.field = el("textarea", {
      rows: "8",
      spellcheck: "false",
      "aria-label": say("Text on the clipboard of the desktop"),
      placeholder: say("What you copy on the desktop appears here. What you type here can be pasted there.")
    });
    this.field.oninput = () => this.send(this.field.value);
    const copy = el("button", { type: "button", class: "secondary" }, say("Copy"));
    copy.onclick = () => void this.copy(copy);
    this.allow = el("button", { type: "button", class: "secondary" }, say("Allow"));
    this.allow.onclick = () => void this.ask();
    this.box.append(this.field, el("div", { class: "buttons" }, copy, this.allow), this.about);
    picture.onText = text => void this.came(text);
    window.addEventListener("focus", () => void this.read());
    document.addEventListener("visibilitychange", () => void this.read());
    void this.look();
  }

  shown(): void {
    void this.look();
  }

  private async look(): Promise<void> {
    const { say } = this;
    this.permission = await permission();
    this.allow.hidden = this.permission !== "prompt";
    put(
      this.about,
      {
        granted: say("Your browser keeps both clipboards the same."),
        prompt: say("Your browser can do this by itself, if you allow it."),
        denied: say("Your browser does not let this page use its clipboard; use the field above.")
      }[this.permission]
    );
    await this.read();
  }

  /** Asks the browser, which asks the person. */
  private async ask(): Promise<void> {
    try {
      this.send(await navigator.clipboard.readText());
    } catch {
      // refused; the line below the field says so
    }
    await this.look();
  }

  private async read(): Promise<void> {
    if (this.permission !== "granted" || !document.hasFocus()) {
      return;
    }
    try {
      const text = await navigator.clipboard.readText();
      if (text && text !== this.last) {
        this.send(text);
      }
    } catch {
      // the page lost the focus meanwhile, or there is a picture on the clipboard
    }
  }

  private send(text: string): void {
    if (this.picture.paste(text)) {
      this.last = text;
      if (this.field.value !== text) {
        this.field.value = text;
      }
    }
  }

  private async came(text: string): Promise<void> {
    this.last = text;
    this.field.value = text;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      this.tell(this.say("Text was copied on the desktop: see Clipboard."));
    }
  }

  private async copy(button: HTMLButtonElement): Promise<void> {
    try {
      await navigator.clipboard.writeText(this.field.value);
    } catch {
      this.field.select();
      document.execCommand("copy"); // where the address is not encrypted there is nothing newer
    }
    this.last = this.field.value;
    const label = button.textContent;
    button.textContent = this.say("Copied");
    window.setTimeout(() => (button.textContent = label), 1500);
  }
}

async function permission(): Promise<Permission> {
  if (!("clipboard" in navigator) || !("readText" in navigator.clipboard)) {
    return "denied";
  }
  try {
    const name = "clipboard-read" as PermissionName;
    return (await navigator.permissions.query({ name })).state;
  } catch {
    return "denied"; // this browser asks each time, which would be a menu at every glance
  }
}
