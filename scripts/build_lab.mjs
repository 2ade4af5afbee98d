// Makes JupyterLab's extension: extensions/lab/src → extensions/lab/labextensions/@galilean/lab (not committed).
//
// No bundler: TypeScript is compiled to the browser's own modules, in a folder whose name is a hash of what is in
// it, so that nobody's browser mixes two versions. JupyterLab is told by package.json which script to read first.
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { cpSync, mkdirSync, readFileSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const room = join(root, "extensions", "lab");
const built = join(root, "build", "lab");
const target = join(room, "labextensions", "@galilean", "lab");
const making = `${target}.${process.pid}`;

rmSync(built, { recursive: true, force: true });
const compiler = join(root, "node_modules", "typescript", "bin", "tsc");
const done = spawnSync(process.execPath, [compiler, "-p", room, "--outDir", built], { stdio: "inherit" });
if (done.status !== 0) process.exit(done.status ?? 1);
cpSync(join(room, "style", "lab.css"), join(built, "lab.css"));

const files = readdirSync(built).sort();
const hash = createHash("sha256");
for (const file of files) hash.update(`${file}\n`).update(readFileSync(join(built, file)));
const name = hash.digest("hex").slice(0, 16);

const about = JSON.parse(readFileSync(join(room, "package.json"), "utf8"));
about.jupyterlab._build = { load: `static/${name}/remoteEntry.js`, extension: "./extension" };
rmSync(making, { recursive: true, force: true });
mkdirSync(join(making, "static", name), { recursive: true });
for (const file of files) cpSync(join(built, file), join(making, "static", name, file));
writeFileSync(join(making, "package.json"), `${JSON.stringify(about, null, 2)}\n`);
rmSync(target, { recursive: true, force: true });
renameSync(making, target);
console.log(`${files.length} files in ${target}`);
