/** Light or dark, before anything is drawn: what was chosen in the portal, else what the system asks for. */
(() => {
  let chosen: string | null = null;
  try {
    chosen = localStorage.getItem("jupyterhub-bs-theme");
  } catch {
    // a private window
  }
  chosen ??= /(?:^|; )galilean_theme=(light|dark)/.exec(document.cookie)?.[1] ?? null;
  const dark = chosen ? chosen === "dark" : window.matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset["bsTheme"] = dark ? "dark" : "light";
  document.documentElement.dataset["jpThemeLight"] = String(!dark);
})();
