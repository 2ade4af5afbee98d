/** Elements and line drawings of the page, beside those of JupyterLab's item. */

export { el, mark, put } from "../../lab/src/dom.js";

const PATHS: Record<string, string> = {
  folder: "M1.5 4v8.5h13V5.5H8L6.5 3.5H1.5z",
  clipboard: "M5 2.5H3v12h10v-12h-2M5.5 1.5h5v2.5h-5zM5.5 8h5M5.5 11h5",
  note: "M3 1.5h10v13H3zM5.5 5h5M5.5 8h5M5.5 11h3",
  sliders: "M1.5 4h7M12 4h2.5M10 2.5v3M1.5 8h2M7 8h7.5M5 6.5v3M1.5 12h8M13 12h1.5M11 10.5v3",
  fullscreen: "M2 6V2h4M10 2h4v4M14 10v4h-4M6 14H2v-4",
  dots: "M3.5 8h.01M8 8h.01M12.5 8h.01",
  plug: "M6 2v3M10 2v3M4 5h8v3a4 4 0 0 1-8 0zM8 12v2.5",
  restart: "M13 8a5 5 0 1 1-1.6-3.7M13.2 2.5v3h-3",
  lab: "M3 1.5h10v13H3zM6 1.5v13M8.5 5h2.5",
  desktop: "M1.5 2.5h13v8.5h-13zM8 11v3M5 14h6",
  window: "M1.5 2.5h13v11h-13zM1.5 5.5h13",
  moon: "M13.5 9.5A6 6 0 0 1 6.5 2.5a6 6 0 1 0 7 7z",
  x: "M4 4l8 8M12 4l-8 8",
  up: "M8 13V3M4 7l4-4 4 4",
  download: "M8 2v8M4.5 7L8 10.5 11.5 7M2.5 13.5h11",
  upload: "M8 10.5v-8M4.5 6L8 2.5 11.5 6M2.5 13.5h11",
  file: "M4 1.5h5.5L12.5 4.5v10h-8.5zM9 1.5V5h3.5"
};

/** A line drawing of 16 pixels. */
export function icon(name: string): SVGSVGElement {
  const element = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  element.setAttribute("viewBox", "0 0 16 16");
  element.setAttribute("class", `icon icon-${name}`);
  element.setAttribute("aria-hidden", "true");
  element.setAttribute("focusable", "false");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", PATHS[name] ?? "");
  element.append(path);
  return element;
}

/** Bytes as one reads them: `12.3 MB`. */
export function bytes(n: number): string {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let at = 0;
  while (n >= 1000 && at < units.length - 1) {
    n /= 1024;
    at += 1;
  }
  return `${at ? n.toFixed(1) : n}\u00a0${units[at]}`;
}
