// Copies what the pages need from node_modules into galilean/web/static/vendor (not committed).
// Idempotent; run by `npm run build` after `npm ci`.
import { cpSync, existsSync, mkdirSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const modules = join(root, "node_modules");
const vendor = join(root, "galilean", "web", "static", "vendor");

const files = {
  "htmx.org/dist/htmx.min.js": "htmx.min.js",
  "htmx.org/LICENSE": "htmx.LICENSE.txt",
  "tus-js-client/dist/tus.min.js": "tus.min.js",
  "tus-js-client/LICENSE": "tus-js-client.LICENSE.txt",
  "bootstrap-icons/LICENSE": "bootstrap-icons.LICENSE.txt",
  // As a font: for the home page that administrators write. Pages of ours have them inline.
  "bootstrap-icons/font/bootstrap-icons.min.css": "bootstrap-icons/bootstrap-icons.min.css",
  "bootstrap-icons/font/fonts/bootstrap-icons.woff2": "bootstrap-icons/fonts/bootstrap-icons.woff2",
};

// Only the icons that pages use: an unknown one is an error in the template, not a missing picture.
const icons = `
  activity arrow-clockwise arrow-down arrow-left arrow-right arrow-up box box-arrow-up-right
  broadcast calendar-event check check-lg chevron-down chevron-right clock cloud-download cloud-upload cpu dash
  compass copy database arrow-counterclockwise diagram-2 download exclamation-circle-fill exclamation-triangle-fill file-earmark file-earmark-code
  file-earmark-image file-earmark-text file-earmark-zip files filter eye eye-slash image folder folder-plus folder2-open funnel gear
  globe2 grid hdd hdd-rack hourglass-split house inbox info-circle journal-code lightning-charge-fill layout-three-columns list lock
  memory moon pencil people person person-check person-plus pin-angle play-fill plus plus-lg
  question-circle search send share slash-circle sliders speedometer2 star star-fill stop-fill sun terminal
  three-dots trash upload wifi-off wrench x x-lg
`.trim().split(/\s+/);
for (const name of icons) files[`bootstrap-icons/icons/${name}.svg`] = `icons/${name}.svg`;

// The terminal page, which nodes serve themselves.
const node = join(root, "spawner", "node", "static", "vendor");
rmSync(node, { recursive: true, force: true });
mkdirSync(node, { recursive: true });
for (const [from, to] of Object.entries({
  "@xterm/xterm/lib/xterm.js": "xterm.js",
  "@xterm/xterm/css/xterm.css": "xterm.css",
  "@xterm/xterm/LICENSE": "xterm.LICENSE.txt",
  "@xterm/addon-fit/lib/addon-fit.js": "addon-fit.js",
})) cpSync(join(modules, from), join(node, to));

rmSync(vendor, { recursive: true, force: true });
for (const [from, to] of Object.entries(files)) {
  const source = join(modules, from);
  if (!existsSync(source)) throw new Error(`${from} is missing: run npm ci first`);
  mkdirSync(dirname(join(vendor, to)), { recursive: true });
  cpSync(source, join(vendor, to));
}
console.log(`${Object.keys(files).length} files in ${vendor}`);
