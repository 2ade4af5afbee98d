// Native <dialog>: the browser keeps the focus inside and gives it back.
//   <button data-open="id">           opens a dialog of the page (a drawer or a question)
//   <button hx-get="…" hx-target="#dialogs">  fetches one; a <dialog> that arrives in #dialogs opens itself
//   <… data-close>                    closes the one it stands in

/** Open a dialog (element or id) and return it. */
export function open(dialog) {
  const element = typeof dialog === "string" ? document.getElementById(dialog) : dialog;
  if (element && !element.open) element.showModal();
  return element;
}

/** Close it and tell others by `galilean:closed` on it. */
export function close(dialog) {
  const element = typeof dialog === "string" ? document.getElementById(dialog) : dialog;
  element?.close();
}

export function startDialogs() {
  document.addEventListener("click", (event) => {
    const opener = event.target.closest("[data-open]");
    if (opener) { open(opener.dataset.open); return; }
    const closer = event.target.closest("[data-close]");
    if (closer) { event.preventDefault(); close(closer.closest("dialog")); return; }
    // A click on the ground beside a drawer closes it; a question must be answered.
    if (event.target.matches?.("dialog[data-drawer]")) {
      const box = event.target.getBoundingClientRect();
      if (event.clientX < box.left || event.clientY < box.top) close(event.target);
    }
  });
  const box = document.getElementById("dialogs");
  document.body.addEventListener("htmx:afterSettle", (event) => {
    if (event.detail.target !== box) return;
    const dialog = box.querySelector("dialog");
    if (dialog) { dialog.addEventListener("close", () => dialog.remove(), { once: true }); open(dialog); }
  });
  document.body.addEventListener("galilean:close-dialog", () => {
    for (const dialog of document.querySelectorAll("dialog[open]")) close(dialog);
  });
}
