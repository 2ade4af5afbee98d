// The pages of a PDF, drawn by PDF.js in a frame of opaque origin (services/portal/pdf_view.py).
//
// The frame has no network and no rights. The page around it hands the file in, and those parts of PDF.js that only some
// files need: character maps, standard fonts, decoders. Scripts and forms inside a PDF do not run, its links go nowhere.
// Pages are drawn as they come into sight, and given back when they are far away.
import * as pdfjs from "pdfjs-dist/legacy/build/pdf.mjs";
import workerText from "galilean:pdf-worker";

const FAR_PAGES = 12, PIXELS_MOST = 16_000_000, SCALES = [0.5, 0.67, 0.8, 1, 1.25, 1.5, 2, 3];
const words = JSON.parse(document.querySelector("[data-words]").textContent);
const find = (name) => document.querySelector(`[data-${name}]`);
const pagesBox = find("pages"), said = find("said"), where = find("where");

// ---- what the page around hands in ----
const waiting = new Map();
let asked = 0;
function ask(wanted) {
  return new Promise((resolve, reject) => {
    const id = ++asked;
    waiting.set(id, { resolve, reject });
    parent.postMessage({ galilean: "pdf", id, ...wanted }, "*");
  });
}
addEventListener("message", (event) => {
  if (event.source !== parent || event.data?.galilean !== "pdf") return;
  const who = waiting.get(event.data.id);
  waiting.delete(event.data.id);
  if (event.data.bytes) who?.resolve(event.data.bytes); else who?.reject(new Error(event.data.problem || ""));
});
const part = async (kind, name) => new Uint8Array(await ask({ want: kind, name }));
class CMaps { async fetch({ name }) { return { cMapData: await part("cmaps", `${name}.bcmap`), isCompressed: true }; } }
class Fonts { async fetch({ filename }) { return part("fonts", filename); } }
class Decoders { async fetch({ filename }) { return part("wasm", filename); } }

// ---- drawing ----
let file, pages = [], zoom = 0, base = 1, looking;

const fitting = (page) => Math.max(0.2, Math.min(3, (pagesBox.clientWidth - 24) / page.getViewport({ scale: 1 }).width));
const scale = () => (zoom || base);

function measure(entry) {
  const view = entry.page ? entry.page.getViewport({ scale: scale() }) : null;
  const width = view ? view.width : entry.width * scale(), height = view ? view.height : entry.height * scale();
  entry.box.style.width = `${width}px`;
  entry.box.style.height = `${height}px`;
}

async function draw(entry) {
  if (entry.drawn === scale() || entry.drawing) return;
  entry.drawing = true;
  const wanted = scale();
  try {
    entry.page ||= await file.getPage(entry.number);
    measure(entry);
    const view = entry.page.getViewport({ scale: wanted });
    const sharp = Math.min(devicePixelRatio || 1, 2, Math.sqrt(PIXELS_MOST / (view.width * view.height)));
    const canvas = document.createElement("canvas");
    canvas.width = Math.floor(view.width * sharp);
    canvas.height = Math.floor(view.height * sharp);
    await entry.page.render({ canvas, viewport: view, transform: [sharp, 0, 0, sharp, 0, 0], annotationMode: pdfjs.AnnotationMode.ENABLE }).promise;
    const text = document.createElement("div");
    text.className = "text-layer";
    text.style.setProperty("--total-scale-factor", wanted);
    entry.box.replaceChildren(canvas, text);
    await new pdfjs.TextLayer({ textContentSource: entry.page.streamTextContent(), container: text, viewport: view }).render();
    entry.drawn = wanted;
  } catch {
    entry.drawn = wanted;
    entry.box.textContent = words.page;
  }
  entry.drawing = false;
  if (entry.seen && scale() !== entry.drawn) draw(entry);
}

function forget(entry) {
  if (!entry.drawn || entry.drawing) return;
  entry.drawn = 0;
  entry.box.replaceChildren();
  entry.page?.cleanup();
}

function current() {
  const middle = pagesBox.scrollTop + pagesBox.clientHeight / 3;
  const index = pages.findLastIndex((entry) => entry.box.offsetTop <= middle);
  return Math.max(0, index);
}

function tell() {
  const here = current();
  where.textContent = words.where.replace("{page}", here + 1).replace("{pages}", pages.length);
  find("back").disabled = here === 0;
  find("on").disabled = here === pages.length - 1;
  for (const entry of pages) if (Math.abs(entry.number - 1 - here) > FAR_PAGES) forget(entry);
}

function rescale(to) {
  const entry = pages[current()], part = (pagesBox.scrollTop - entry.box.offsetTop) / (entry.box.offsetHeight || 1);
  zoom = to;
  pages.forEach(measure);
  pagesBox.scrollTop = entry.box.offsetTop + part * entry.box.offsetHeight;
  pages.filter((one) => one.seen).forEach(draw);
}

const turn = (by) => pages[Math.max(0, Math.min(pages.length - 1, current() + by))].box.scrollIntoView();
find("back").addEventListener("click", () => turn(-1));
find("on").addEventListener("click", () => turn(1));
find("in").addEventListener("click", () => rescale(SCALES.find((one) => one > scale() + 0.01) ?? SCALES.at(-1)));
find("out").addEventListener("click", () => rescale(SCALES.findLast((one) => one < scale() - 0.01) ?? SCALES[0]));
find("fit").addEventListener("click", () => { base = fitting(pages[current()].page || pages[0].page); rescale(0); });
pagesBox.addEventListener("scroll", () => { clearTimeout(looking); looking = setTimeout(tell, 60); }, { passive: true });
addEventListener("resize", () => { if (pages[0]?.page && !zoom) { base = fitting(pages[0].page); rescale(0); } });

const PROBLEMS = { PasswordException: words.password, InvalidPDFException: words.broken };
async function begin() {
  const worker = new Worker(URL.createObjectURL(new Blob([workerText], { type: "text/javascript" })));
  const data = new Uint8Array(await ask({ want: "file" }));
  file = await pdfjs.getDocument({
    data,
    worker: new pdfjs.PDFWorker({ port: worker }),
    CMapReaderFactory: CMaps,
    StandardFontDataFactory: Fonts,
    WasmFactory: Decoders,
    cMapUrl: "cmaps/",
    standardFontDataUrl: "fonts/",
    wasmUrl: "wasm/",
    useWorkerFetch: false,
    isEvalSupported: false,
    enableXfa: false,
    stopAtErrors: false,
    verbosity: 0,
  }).promise;
  const first = await file.getPage(1), size = first.getViewport({ scale: 1 });
  base = fitting(first);
  const sight = new IntersectionObserver((entries) => {
    for (const one of entries) {
      const entry = pages[Number(one.target.dataset.number) - 1];
      entry.seen = one.isIntersecting;
      if (entry.seen) draw(entry);
    }
  }, { root: pagesBox, rootMargin: "400px" });
  pages = Array.from({ length: file.numPages }, (_, index) => {
    const box = document.createElement("div");
    box.className = "page";
    box.dataset.number = index + 1;
    box.setAttribute("role", "region");
    box.setAttribute("aria-label", words.of.replace("{page}", index + 1));
    return { number: index + 1, box, page: index ? null : first, width: size.width, height: size.height, seen: false, drawn: 0, drawing: false };
  });
  pages.forEach(measure);
  pagesBox.replaceChildren(...pages.map((entry) => entry.box));
  said.hidden = true;
  find("tools").hidden = false;
  for (const entry of pages) sight.observe(entry.box);
  tell();
}
begin().catch((problem) => { said.textContent = PROBLEMS[problem?.name] || problem?.message || words.broken; });
