/** Small helpers for elements; texts go in as text, never as markup. */

type Child = Node | string | null | undefined | false;

export function el<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Record<string, string> = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    element.setAttribute(name, value);
  }
  element.append(...children.filter((child): child is Node | string => !!child));
  return element;
}

/** Set a text only where it differs: a reader of screens is told of changes, not of sameness. */
export function put(element: Element, text: string): void {
  if (element.textContent !== text) {
    element.textContent = text;
  }
}

const PATHS: Record<string, string> = {
  chevron: "M4 6.5l4 4 4-4",
  desktop: "M1.5 2.5h13v8.5h-13zM5.5 13.5h5M8 11v2.5",
  terminal: "M2 3h12v10H2zM4.5 6l2 2-2 2M8 10.5h3",
  hourglass: "M4 2h8M4 14h8M5 2v3l3 3 3-3V2M5 14v-3l3-3 3 3v3",
  image: "M2 5l6-3 6 3v6l-6 3-6-3zM2 5l6 3 6-3M8 8v6",
  bell: "M4 11V7a4 4 0 0 1 8 0v4l1.2 1.5H2.8zM6.7 14h2.6",
  plug: "M6 2v3M10 2v3M4 5h8v3a4 4 0 0 1-8 0zM8 12v2.5",
  restart: "M13 8a5 5 0 1 1-1.6-3.7M13.2 2.5v3h-3",
  release: "M9 3H2.5v10H9M6 8h8M11.5 5.5L14 8l-2.5 2.5",
  back: "M7 3.5L2.5 8 7 12.5M3 8h10.5"
};

/** A line drawing of 16 pixels. */
export function icon(name: string): SVGSVGElement {
  return svg("0 0 16 16", `<path d="${PATHS[name] ?? ""}"/>`, "galilean-icon");
}

/** The mark: the planet and its four moons. */
export function mark(): SVGSVGElement {
  const moons = [
    [2.6, 10.4, 1.6],
    [22.6, 6, 1.3],
    [26, 8, 1.5],
    [29.8, 5, 1.6]
  ].map(([x, y, r]) => `<circle class="moon" cx="${x}" cy="${y}" r="${r}"/>`);
  return svg(
    "0 0 32 16",
    `<circle cx="13.5" cy="8" r="6.2"/><path d="M7.8 6h11.4M7.4 8.6h12.2M8.3 11h10.4"/>${moons.join("")}`,
    "galilean-mark"
  );
}

function svg(box: string, drawing: string, name: string): SVGSVGElement {
  const element = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  element.setAttribute("viewBox", box);
  element.setAttribute("class", name);
  element.setAttribute("aria-hidden", "true");
  element.setAttribute("focusable", "false");
  element.innerHTML = drawing; // our own constants only
  return element;
}
