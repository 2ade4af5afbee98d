// The search of everything: one box in the top bar. / or Ctrl-K opens it, arrows choose, Enter goes there.
import { xsrf } from "galilean/page";

export function startFind() {
  const form = document.querySelector("form[data-find]");
  if (!form) return;
  const field = form.querySelector("input"), panel = document.getElementById("find-panel");
  let asked = "", timer = 0, control = null;
  const links = () => [...panel.querySelectorAll("a")];
  const chosen = () => links().findIndex((link) => link.getAttribute("aria-selected") === "true");
  function hide() { panel.hidden = true; field.setAttribute("aria-expanded", "false"); field.removeAttribute("aria-activedescendant"); }
  function choose(index) {
    links().forEach((link, at) => {
      link.id ||= `found-${at}`;
      link.setAttribute("aria-selected", String(at === index));
      if (at === index) { link.scrollIntoView({ block: "nearest" }); field.setAttribute("aria-activedescendant", link.id); }
    });
  }
  async function look() {
    const text = field.value.trim();
    if (text === asked) { if (text && panel.childElementCount) panel.hidden = false; return; }
    asked = text;
    control?.abort();
    if (!text) { hide(); panel.replaceChildren(); return; }
    const mine = (control = new AbortController());
    try {
      const answer = await fetch(`${form.action}?${new URLSearchParams({ q: text })}`, { signal: mine.signal, cache: "no-store", headers: { "HX-Request": "true", "X-XSRFToken": xsrf } });
      if (!answer.ok) { hide(); return; }
      panel.innerHTML = await answer.text(); // a part of a page of ours, escaped there
      panel.hidden = document.activeElement !== field;
      field.setAttribute("aria-expanded", String(!panel.hidden));
    } catch (error) { if (error.name !== "AbortError") hide(); }
  }
  field.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(look, 120); });
  field.addEventListener("focus", look);
  field.addEventListener("keydown", (event) => {
    if (event.isComposing) return;
    const count = links().length;
    if (event.key === "Escape" && !panel.hidden) { event.preventDefault(); hide(); }
    else if ((event.key === "ArrowDown" || event.key === "ArrowUp") && count && !panel.hidden) {
      event.preventDefault();
      const at = chosen(), down = event.key === "ArrowDown";
      choose(at < 0 ? (down ? 0 : count - 1) : (at + (down ? 1 : count - 1)) % count);
    } else if (event.key === "Enter" && !panel.hidden && chosen() >= 0) {
      event.preventDefault();
      location.assign(links()[chosen()].href);
    }
  });
  document.addEventListener("click", (event) => { if (!form.contains(event.target)) hide(); });
  form.addEventListener("focusout", (event) => { if (!form.contains(event.relatedTarget)) setTimeout(hide, 150); });
  document.addEventListener("keydown", (event) => {
    if (event.key.toLowerCase() === "k" && (event.ctrlKey || event.metaKey) && !event.altKey && !event.shiftKey) {
      const shown = [field, ...document.querySelectorAll(".account input[type=search]")].find((item) => item.offsetParent);
      if (!shown) { location.assign(form.action); event.preventDefault(); return; }
      event.preventDefault();
      shown.focus();
      shown.select();
    }
  });
}
