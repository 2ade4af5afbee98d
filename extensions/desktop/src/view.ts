/** Size and quality of the picture; remembered by the browser. */

import { el } from "./dom.js";
import type { Node } from "./node.js";
import type { Say } from "./words.js";

const KEY = "galilean-desktop-view";
const QUALITIES: Record<string, [quality: number, compression: number]> = {
  sharp: [9, 1],
  balanced: [6, 2],
  light: [2, 9]
};
/** A narrower window shows a whole desktop made small, not a desktop that small. */
const NARROW_PX = 800;

interface Kept {
  size: string;
  quality: string;
}

export class View {
  readonly box = el("div", { class: "view" });
  onChange: () => void = () => undefined;
  private kept: Kept = { size: "window", quality: "balanced" };
  private readonly line = el("p", { class: "quiet", role: "status" });

  constructor(
    private readonly node: Node,
    private readonly say: Say
  ) {
    try {
      const kept = JSON.parse(localStorage.getItem(KEY) ?? "{}") as Partial<Kept>;
      const size = kept.size ?? "";
      this.kept = {
        size: node.data.sizes.includes(size) ? size : "window",
        quality: kept.quality && kept.quality in QUALITIES ? kept.quality : "balanced"
      };
    } catch {
      // a private window
    }
    const size = this.group(say("Size"), "size", [
      ["window", say("Fit the window"), ""],
      ...node.data.sizes.map((text): [string, string, string] => [text, text.replace("x", " × "), ""])
    ]);
    const quality = this.group(say("Quality"), "quality", [
      ["sharp", say("Sharp"), say("for a fast connection")],
      ["balanced", say("Balanced"), ""],
      ["light", say("Light"), say("for a slow connection")]
    ]);
    this.box.append(size, el("p", { class: "quiet" }, say("Always scaled to be seen whole.")), this.line, quality);
  }

  get quality(): number {
    return (QUALITIES[this.kept.quality] ?? [6, 2])[0];
  }

  get compression(): number {
    return (QUALITIES[this.kept.quality] ?? [6, 2])[1];
  }

  /** Whether the desktop takes the size of the window. */
  get follows(): boolean {
    return this.kept.size === "window" && window.innerWidth >= NARROW_PX;
  }

  /** Ask for the chosen size, where it is not the window's. */
  async resize(): Promise<void> {
    if (this.kept.size === "window") {
      return;
    }
    const answer = await this.node
      .api("size", { method: "POST", body: JSON.stringify({ size: this.kept.size }) })
      .catch(() => null);
    this.line.textContent = answer?.ok ? "" : this.say("This size could not be set.");
  }

  private group(title: string, name: keyof Kept, choices: [string, string, string][]): HTMLElement {
    const set = el("fieldset", {}, el("legend", {}, title));
    for (const [value, text, hint] of choices) {
      const input = el("input", { type: "radio", name, value });
      input.checked = this.kept[name] === value;
      input.onchange = () => {
        this.kept = { ...this.kept, [name]: value };
        try {
          localStorage.setItem(KEY, JSON.stringify(this.kept));
        } catch {
          // a private window
        }
        this.line.textContent = "";
        this.onChange();
        if (name === "size") {
          void this.resize();
        }
      };
      set.append(el("label", {}, input, el("span", {}, text), hint ? el("span", { class: "quiet" }, hint) : null));
    }
    return set;
  }
}
