/** The second step before a loss, and the last word of a cluster. */

import { el } from "./dom.js";
import type { Say } from "./words.js";

/** Ask; whether the person wants it. */
export function sure(
  say: Say,
  title: string,
  lines: string[],
  label: string,
  danger = true,
  beside?: HTMLElement
): Promise<boolean> {
  const cancel = el("button", { type: "button", class: "secondary" }, say("Cancel"));
  const yes = el("button", { type: "button", class: danger ? "danger" : "primary" }, label);
  return show(title, lines, [cancel, yes], danger ? cancel : yes, beside).then(button => button === yes);
}

/** Say something that needs one answer. */
export async function tell(title: string, lines: string[], label: string): Promise<void> {
  const button = el("button", { type: "button", class: "primary" }, label);
  await show(title, lines, [button], button);
}

function show(
  title: string,
  lines: string[],
  buttons: HTMLButtonElement[],
  first: HTMLButtonElement,
  beside?: HTMLElement
): Promise<HTMLButtonElement | null> {
  const heading = el("h1", { id: "dialog-title" }, title);
  const dialog = el(
    "dialog",
    { "aria-labelledby": heading.id },
    heading,
    ...lines.filter(Boolean).map(text => el("p", {}, text)),
    beside,
    el("div", { class: "buttons" }, ...buttons)
  );
  document.body.append(dialog);
  return new Promise(resolve => {
    let chosen: HTMLButtonElement | null = null;
    for (const button of buttons) {
      button.onclick = () => {
        chosen = button;
        dialog.close();
      };
    }
    dialog.onclose = () => {
      dialog.remove();
      resolve(chosen);
    };
    dialog.showModal();
    first.focus();
  });
}
