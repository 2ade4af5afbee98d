// One line at the lower right, gone after 8 s unless it is hovered or focused.
import { say } from "galilean/page";

const STAY_MS = 8000;

/** Show `text`; `undo` adds a button that calls it; tone "ok" or "bad". */
export function toast(text, { tone = "ok", undo = null, action = "" } = {}) {
  const box = document.getElementById("toasts");
  if (!box || !text) return;
  const line = document.createElement("div");
  line.className = `toastline ${tone}`;
  if (tone === "bad") line.setAttribute("role", "alert");
  const words = document.createElement("span");
  words.textContent = text;
  line.append(words);
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = undo ? action || say("Undo") : say("Close");
  button.addEventListener("click", () => { line.remove(); undo?.(); });
  line.append(button);
  box.append(line);
  let timer;
  const leave = () => { timer = setTimeout(() => line.remove(), STAY_MS); };
  const stay = () => clearTimeout(timer);
  for (const name of ["mouseenter", "focusin"]) line.addEventListener(name, stay);
  for (const name of ["mouseleave", "focusout"]) line.addEventListener(name, leave);
  leave();
  while (box.children.length > 4) box.firstChild.remove();
}
