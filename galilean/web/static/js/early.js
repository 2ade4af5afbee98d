"use strict";
// Before anything is drawn: light or dark. Same key as the hub's own switch, so both know one choice.
(() => {
  const key = "jupyterhub-bs-theme";
  const wish = matchMedia("(prefers-color-scheme: dark)");
  // Hub and portal on hosts of their own have no storage in common, but a cookie.
  const shared = () => document.querySelector('meta[name="galilean-domain"]') && /(?:^|; )galilean_theme=(\w+)/.exec(document.cookie)?.[1];
  const read = () => { try { return shared() || localStorage.getItem(key); } catch { return null; } };
  const apply = () => {
    const stored = read();
    const theme = stored === "light" || stored === "dark" ? stored : wish.matches ? "dark" : "light";
    document.documentElement.setAttribute("data-bs-theme", theme);
  };
  apply();
  wish.addEventListener("change", apply);
  addEventListener("storage", (event) => { if (event.key === key) apply(); });
  const language = document.querySelector('meta[name="galilean-language"]');
  if (language) document.documentElement.lang = language.content;
  // The hub's frame configures require.js, which our own pages do not load.
  if (!window.require) window.require = { config() {} };
})();
