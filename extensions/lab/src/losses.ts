/**
 * The part of a dialog that names what is lost outside of work, filled in while the dialog is open.
 *
 * Nodes are looked at meanwhile, which takes a second or more: nobody has to wait for it, and a dialog is answered
 * whether or not it is known. The sentences are the portal's.
 */

import { el } from "./dom.js";
import type { Losses } from "./status.js";
import type { Say } from "./words.js";

/** Asks, and shows what is told; empty where nobody can tell. */
export function lossPart(say: Say, asked: Promise<Losses>): HTMLElement {
  const part = el("div", { class: "galilean-losses", "aria-live": "polite" });
  part.append(el("p", {}, say("Looking at what changed outside work … You need not wait for it.")));
  void asked.then(
    told => part.replaceChildren(...shown(say, told)),
    () => part.replaceChildren(el("p", {}, say("What would be lost outside work could not be looked at.")))
  );
  return part;
}

function shown(say: Say, told: Losses): Node[] {
  const found: Node[] = [];
  if (told.parts.length) {
    const items = told.parts.map(({ name, lines, save_url }) => {
      const address = save_url && /^(https?:|\/)/.test(save_url) ? save_url : "";
      return el(
        "li",
        {},
        name && el("strong", {}, name),
        ...lines.map(line => el("span", {}, line)),
        address && el("a", { href: address, target: "_blank", rel: "noopener" }, say("Save image …"))
      );
    });
    const title = say("Outside work, and lost:");
    found.push(el("p", {}, el("strong", {}, title)), el("ul", { tabindex: "0", "aria-label": title }, ...items));
  }
  if (told.nothing) {
    found.push(el("p", {}, told.nothing));
  }
  return found;
}
