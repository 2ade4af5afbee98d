// Makes the viewer of PDFs: services/portal/pdf with PDF.js (Apache-2.0) → services/portal/static/pdf (not committed).
//
// One classic script, with the worker as text in it: the frame it runs in has an opaque origin and can fetch nothing.
// Beside it stand the parts of PDF.js that only some files need; the page around the frame hands them in.
import { cpSync, mkdirSync, readdirSync, renameSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import { build } from "esbuild";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const modules = join(root, "node_modules");
const pdfjs = join(modules, "pdfjs-dist");
const target = join(root, "services", "portal", "static", "pdf");
const making = join(root, "build", `pdf.${process.pid}`);
const shared = {
  absWorkingDir: root,
  bundle: true,
  minify: true,
  format: "iife",
  target: "es2022",
  legalComments: "none",
  logLevel: "error",
  logOverride: { "empty-import-meta": "silent" }, // it asks only in Node where it is
};

const made = await build({ ...shared, write: false, entryPoints: [join(pdfjs, "legacy/build/pdf.worker.mjs")] });
const worker = {
  name: "pdf-worker",
  setup(all) {
    all.onResolve({ filter: /^galilean:pdf-worker$/ }, () => ({ path: "worker", namespace: "text" }));
    all.onLoad({ filter: /.*/, namespace: "text" }, () => ({ contents: made.outputFiles[0].text, loader: "text" }));
  },
};
rmSync(making, { recursive: true, force: true });
mkdirSync(making, { recursive: true });
await build({
  ...shared,
  entryPoints: [join(root, "services", "portal", "pdf", "view.js")],
  outfile: join(making, "view.js"),
  nodePaths: [modules],
  plugins: [worker],
});
cpSync(join(pdfjs, "LICENSE"), join(making, "pdfjs.LICENSE.txt"));
for (const [folder, name, wanted] of [
  ["cmaps", "cmaps", /\.bcmap$|LICENSE/],
  ["standard_fonts", "fonts", /\.(pfb|ttf)$|LICENSE/],
  ["wasm", "wasm", /\.wasm$|LICENSE/],
]) {
  mkdirSync(join(making, name));
  for (const file of readdirSync(join(pdfjs, folder)).filter((one) => wanted.test(one)))
    cpSync(join(pdfjs, folder, file), join(making, name, file));
}
rmSync(target, { recursive: true, force: true });
mkdirSync(dirname(target), { recursive: true }); // in an image nothing else may be there
renameSync(making, target);
console.log(`the viewer of PDFs is in ${target}`);
