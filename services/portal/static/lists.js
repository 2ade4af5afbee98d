// Lists: search as one types, sort at once; the address stays one that can be sent.
import { xsrf } from "galilean/page";
import { refreshTimes } from "galilean/times";

const form = document.querySelector("form[data-search]");
if (form) {
  const box = document.getElementById("project-list");
  let timer = 0, control = null;
  async function search() {
    control?.abort();
    const mine = (control = new AbortController());
    const url = new URL(form.action);
    for (const [key, value] of new FormData(form)) if (value && !(key === "sort" && value === "recent")) url.searchParams.set(key, value);
    try {
      const page = new DOMParser().parseFromString(await (await fetch(url, { signal: mine.signal, cache: "no-store", headers: { "X-XSRFToken": xsrf } })).text(), "text/html");
      const found = page.getElementById("project-list");
      if (!found) { location.assign(url); return; }
      box.replaceChildren(...document.adoptNode(found).childNodes);
      history.replaceState({}, "", url);
      document.dispatchEvent(new CustomEvent("galilean:list"));
      window.htmx?.process(box);
      refreshTimes(box);
    } catch (error) {
      if (error.name !== "AbortError") location.assign(url);
    }
  }
  form.addEventListener("input", (event) => { if (event.target.type === "search") { clearTimeout(timer); timer = setTimeout(search, 150); } });
  form.addEventListener("change", (event) => { if (event.target.matches("[data-submit]")) search(); });
  form.addEventListener("submit", (event) => { event.preventDefault(); clearTimeout(timer); search(); });
}
