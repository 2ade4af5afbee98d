// Makes the desktop's page: extensions/desktop/src with noVNC → extensions/desktop/static/<hash> (not committed).
//
// In one file, other than JupyterLab's extension: noVNC alone is sixty modules, each a request through two proxies
// before the first picture. The folder's name is a hash of what is in it, so that browsers may keep it for ever.
import { createHash } from "node:crypto";
import { cpSync, mkdirSync, readFileSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import { build } from "esbuild";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const room = join(root, "extensions", "desktop");
const built = join(root, "build", "desktop");
const target = join(room, "static");
const making = `${target}.${process.pid}`;

rmSync(built, { recursive: true, force: true });
await build({
  absWorkingDir: room,
  entryPoints: { page: "src/page.ts" },
  outdir: built,
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  legalComments: "none",
  logLevel: "warning",
  nodePaths: [join(root, "node_modules")],
});
await build({ absWorkingDir: room, entryPoints: { theme: "src/theme.ts" }, outdir: built, minify: true, target: "es2022" });
const styles = [join(root, "extensions", "lab", "style", "lab.css"), join(room, "style", "page.css")];
writeFileSync(join(built, "page.css"), styles.map((file) => readFileSync(file, "utf8")).join("\n"));
// noVNC (MPL-2.0) and what it brings along stand in the file; their notices stand beside it.
const novnc = join(root, "node_modules", "@novnc", "novnc");
cpSync(join(novnc, "LICENSE.txt"), join(built, "novnc.LICENSE.txt"));
cpSync(join(novnc, "vendor", "pako", "LICENSE"), join(built, "pako.LICENSE.txt"));

const files = readdirSync(built).sort();
const hash = createHash("sha256");
for (const file of files) hash.update(`${file}\n`).update(readFileSync(join(built, file)));
const name = hash.digest("hex").slice(0, 16);
rmSync(making, { recursive: true, force: true });
mkdirSync(join(making, name), { recursive: true });
for (const file of files) cpSync(join(built, file), join(making, name, file));
rmSync(target, { recursive: true, force: true });
renameSync(making, target);
console.log(`${files.length} files in ${join(target, name)}`);
