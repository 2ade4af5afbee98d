// Uploads of the file manager: tus, a few files at once, paused and gone on with, also after the page was loaded
// again. What is under way stands in the browser's storage by tus-js-client; where each is, only the server knows.
import { call, say, xsrf } from "galilean/page";
import { toast } from "galilean/toasts";
import { refreshTimes } from "galilean/times";

const tus = globalThis.tus;
/** At once; more would only share the same line. */
const AT_ONCE = 3;
/** One request at most: a proxy that limits how long a request may last (Node's does, 300 s) cuts none that is moving. */
const PIECE_BYTES = 64 * 2 ** 20;
/** A line that is down is tried again for about ten minutes, then waits for a press. */
const RETRY_MS = [0, 1000, 3000, 5000, 10000, 20000, 30000, 60000, 60000, 60000, 120000, 120000, 120000];

export function sizeText(bytes) {
  let size = bytes;
  for (const unit of ["B", "KB", "MB", "GB"]) { if (size < 1024) return `${unit === "B" ? size : size.toFixed(1)}\u00a0${unit}`; size /= 1024; }
  return `${size.toFixed(1)}\u00a0TB`;
}

const decoded = (path) => path.split("/").map((part) => { try { return decodeURIComponent(part); } catch { return part; } }).join("/");

export class Uploads {
  /** box: where lines stand; api: of the tree; most: bytes of one file, 0 = any; whenTaken, whenDone: see files.js. */
  constructor({ box, api, most, whenTaken, whenDone }) {
    Object.assign(this, { box, api, most, whenTaken, whenDone });
    this.waiting = [];
    this.going = new Set();
    this.arrived = 0;
    this.always = "";
    this.jobs = new Set();
    addEventListener("beforeunload", (event) => { if (this.busy) event.preventDefault(); });
    addEventListener("online", () => { for (const job of this.jobs) if (job.state === "stuck") this.#goOn(job); });
    this.remembered();
  }

  get busy() { return this.waiting.length + this.going.size > 0; }

  /** Add files: {file, path} with the path below `folder` (an address, "" = the top). */
  add(files, folder) {
    for (const { file, path } of files) {
      const name = path || file.name;
      if (this.most && file.size > this.most) {
        toast(say("{name} has {size}; you may upload {most} at once.", { name, size: sizeText(file.size), most: sizeText(this.most) }), { tone: "bad" });
        continue;
      }
      this.#enter({ file, name, folder, taken: this.always || "refuse" });
    }
    this.#next();
  }

  /** What a closed page left: shown, to be chosen again. */
  async remembered() {
    if (!tus) return;
    const found = await tus.defaultOptions.urlStorage.findAllUploads();
    const here = found.filter((one) => one.metadata?.tree === this.api && ![...this.jobs].some((job) => job.key === one.urlStorageKey));
    for (const one of here) {
      let at = -1;
      try {
        const answer = await fetch(one.uploadUrl, { method: "HEAD", headers: { "Tus-Resumable": "1.0.0", "X-XSRFToken": xsrf }, credentials: "same-origin", cache: "no-store" });
        if (answer.ok) at = Number(answer.headers.get("Upload-Offset"));
        else if (answer.status !== 404) continue; // not known to be gone
      } catch { continue; }
      if (at < 0 || at >= one.size) { await tus.defaultOptions.urlStorage.removeUpload(one.urlStorageKey); continue; }
      const job = this.#line({ name: one.metadata.name, folder: one.metadata.folder, size: one.size, state: "left", url: one.uploadUrl, key: one.urlStorageKey });
      this.#tell(job, at);
    }
  }

  #enter(job) {
    for (const left of this.jobs) { // the same file again: the line of what broke off becomes its own
      if (left.state === "left" && left.name === job.name && left.folder === job.folder && left.size === job.file.size) this.#gone(left);
    }
    const made = this.#line({ ...job, size: job.file.size, state: "waiting" });
    this.waiting.push(made);
    this.#tell(made, 0);
  }

  #line(job) {
    job.element = document.createElement("div");
    job.element.className = "upload-line";
    job.element.innerHTML = '<span class="truncate" dir="auto"></span><span class="upload-tools"><button type="button" class="btn btn-quiet sm" data-pause></button><button type="button" class="btn btn-quiet sm" data-stop></button></span><progress max="1" value="0"></progress>';
    job.words = job.element.firstElementChild;
    job.bar = job.element.lastElementChild;
    job.bar.setAttribute("aria-label", job.name);
    [job.pause, job.stop] = job.element.querySelectorAll("button");
    job.pause.addEventListener("click", () => this.#pressed(job));
    job.stop.addEventListener("click", () => this.#drop(job));
    this.jobs.add(job);
    this.box.append(job.element);
    this.box.hidden = false;
    return job;
  }

  #tell(job, at) {
    job.at = at;
    const state = { waiting: say("Waiting"), paused: say("Paused"), left: say("Paused"), stuck: say("No connection. Goes on by itself.") }[job.state] || "";
    job.words.textContent = [decoded(job.name), job.size ? `${sizeText(at)} / ${sizeText(job.size)}` : "", state].filter(Boolean).join(" · ");
    job.words.title = job.words.textContent;
    job.bar.value = job.size ? at / job.size : 0;
    job.element.dataset.state = job.state;
    job.pause.textContent = job.state === "left" ? say("Choose the file") : job.state === "paused" || job.state === "broken" ? say("Go on") : job.state === "stuck" ? say("Try again") : say("Pause");
    job.pause.setAttribute("aria-label", `${job.pause.textContent}: ${job.name}`);
    job.stop.textContent = job.state === "left" ? say("Discard") : say("Cancel");
    job.stop.setAttribute("aria-label", `${job.stop.textContent}: ${job.name}`);
    dispatchEvent(new CustomEvent("galilean:uploads", { detail: this.waiting.length + this.going.size }));
  }

  #next() {
    while (this.going.size < AT_ONCE && this.waiting.length) this.#start(this.waiting.shift());
    if (!this.busy && this.arrived) {
      const many = this.arrived;
      this.arrived = 0;
      this.always = "";
      this.whenDone(many, this.last);
    }
  }

  #start(job) {
    if (!tus?.isSupported) { toast(say("This browser cannot upload in pieces."), { tone: "bad" }); this.#gone(job); return; }
    job.state = "going";
    this.going.add(job);
    this.#tell(job, job.at || 0);
    const endpoint = `${this.api}/uploads${job.folder ? `?folder=${encodeURIComponent(job.folder)}` : ""}`;
    const identity = JSON.stringify([this.api, job.folder, job.name, job.file.size, job.file.lastModified]);
    // What tus-js-client stores with the address: by it a page that is opened later knows whose it is.
    const store = tus.defaultOptions.urlStorage;
    const urlStorage = {
      findAllUploads: () => store.findAllUploads(),
      findUploadsByFingerprint: (print) => store.findUploadsByFingerprint(print),
      removeUpload: (key) => store.removeUpload(key),
      addUpload: async (print, kept) => { job.key = await store.addUpload(print, { ...kept, metadata: { tree: this.api, folder: job.folder, name: job.name } }); return job.key; },
    };
    job.upload = new tus.Upload(job.file, {
      endpoint,
      urlStorage,
      chunkSize: PIECE_BYTES,
      retryDelays: RETRY_MS,
      storeFingerprintForResuming: true,
      removeFingerprintOnSuccess: true,
      fingerprint: async () => `galilean-${identity}`,
      headers: { "X-XSRFToken": xsrf, Accept: "application/json" },
      metadata: { relativePath: job.name, ifTaken: job.taken },
      onShouldRetry: (error) => {
        const status = error.originalResponse?.getStatus() || 0;
        // 409 of an offset: asked again where it is; 423: the connection before has not been given up yet.
        const again = status === 0 || status >= 502 || status === 423 || status === 429 || (status === 409 && /offset/.test(error.originalResponse.getBody() || ""));
        if (again) { job.state = "stuck"; this.#tell(job, job.at); }
        return again;
      },
      onProgress: (sent) => { if (job.state === "stuck") job.state = "going"; if (job.state === "going") this.#tell(job, sent); },
      onAfterResponse: (_, response) => { job.placed = response.getHeader("Galilean-Path") || job.placed; },
      onSuccess: () => { this.arrived += 1; this.last = job.placed || job.name; this.#gone(job); },
      onError: (error) => this.#failed(job, error),
    });
    (job.url ? Promise.resolve([{ uploadUrl: job.url, urlStorageKey: job.key }]) : job.upload.findPreviousUploads()).then((before) => {
      if (before.length && !job.fresh) { job.key = before[0].urlStorageKey; job.upload.resumeFromPreviousUpload(before[0]); }
      if (job.state === "going") job.upload.start();
    });
  }

  async #failed(job, error) {
    const response = error.originalResponse, status = response?.getStatus() || 0;
    let problem = {};
    try { problem = JSON.parse(response?.getBody() || "{}"); } catch { /* not ours */ }
    this.going.delete(job);
    if (status === 409 && !problem.reason && job.taken === "refuse") {
      job.state = "waiting";
      this.#tell(job, 0);
      const answer = await this.#whenTaken(job);
      if (answer === "skip") { this.#gone(job); return; }
      Object.assign(job, { taken: answer, fresh: true });
      this.waiting.unshift(job);
      this.#next();
      return;
    }
    if (status === 0 || status >= 502) { // tried long enough: one press goes on
      job.state = "broken";
      this.#tell(job, job.at);
      this.#next();
      return;
    }
    toast(say("The upload of {name} broke off: {problem}", { name: decoded(job.name), problem: problem.detail || error.message }), { tone: "bad" });
    this.#gone(job);
  }

  /** One question at a time; "all of these" answers the next ones, too. */
  #whenTaken(job) {
    const ask = async () => {
      if (this.always) return this.always;
      const { answer, all } = await this.whenTaken(decoded(job.name), this.waiting.length + this.going.size > 0);
      if (all) this.always = answer;
      return answer;
    };
    this.asking = (this.asking || Promise.resolve()).then(ask, ask);
    return this.asking;
  }

  #pressed(job) {
    if (job.state === "left") this.#choose(job);
    else if (job.state === "going") {
      job.state = "paused";
      job.upload.abort();
      this.going.delete(job);
      this.#tell(job, job.at);
      this.#next();
    } else if (job.state === "waiting") {
      this.waiting = this.waiting.filter((other) => other !== job);
      job.state = "paused";
      this.#tell(job, job.at);
    } else this.#goOn(job);
  }

  #goOn(job) {
    if (job.state === "stuck") { job.upload.abort(); this.going.delete(job); }
    job.state = "waiting";
    this.waiting.unshift(job);
    if (job.upload?.url) job.url = job.upload.url;
    this.#tell(job, job.at);
    this.#next();
  }

  #choose(job) {
    const field = document.createElement("input");
    field.type = "file";
    field.addEventListener("change", () => {
      const file = field.files[0];
      if (!file) return;
      if (file.size !== job.size || file.name !== job.name.split("/").at(-1)) {
        toast(say("This is not the file that was begun: it must have {size} and be called {name}.", { size: sizeText(job.size), name: job.name.split("/").at(-1) }), { tone: "bad" });
        return;
      }
      Object.assign(job, { file, taken: "refuse", state: "waiting" });
      this.waiting.push(job);
      this.#next();
    });
    field.click();
  }

  async #drop(job) {
    const url = job.upload?.url || job.url;
    this.waiting = this.waiting.filter((other) => other !== job);
    job.state = "dropped";
    if (job.upload) await job.upload.abort(false);
    if (job.key) await tus.defaultOptions.urlStorage.removeUpload(job.key);
    this.#gone(job);
    if (url) try { await fetch(url, { method: "DELETE", headers: { "Tus-Resumable": "1.0.0", "X-XSRFToken": xsrf }, credentials: "same-origin" }); } catch { /* it expires by itself */ }
  }

  #gone(job) {
    this.going.delete(job);
    this.jobs.delete(job);
    job.element.remove();
    this.box.hidden = !this.box.children.length;
    dispatchEvent(new CustomEvent("galilean:uploads", { detail: this.waiting.length + this.going.size }));
    this.#next();
  }
}

/** Files and empty folders of what was dropped; folders are gone through. */
export async function dropped(transfer) {
  const entries = [...transfer.items].filter((item) => item.kind === "file").map((item) => item.webkitGetAsEntry?.() ?? item.getAsFile());
  const files = [], folders = [];
  const walk = async (entry, before) => {
    if (!entry) return;
    if (entry instanceof File) { files.push({ file: entry, path: entry.name }); return; }
    const path = `${before}${entry.name}`;
    if (entry.isFile) { files.push({ file: await new Promise((done, failed) => entry.file(done, failed)), path }); return; }
    const reader = entry.createReader();
    let found = 0;
    for (;;) {
      const some = await new Promise((done, failed) => reader.readEntries(done, failed));
      if (!some.length) break;
      found += some.length;
      for (const one of some) await walk(one, `${path}/`);
    }
    if (!found) folders.push(path);
  };
  for (const entry of entries) await walk(entry, "");
  return { files, folders };
}

/** Work that goes on in the portal: asked after until it is over. */
export async function follow(box, api, job, words) {
  const line = document.createElement("div");
  line.className = "upload-line";
  line.innerHTML = '<span class="truncate"></span><span class="upload-tools"><button type="button" class="btn btn-quiet sm"></button></span><progress></progress>';
  const [text, tools, bar] = line.children, stop = tools.firstElementChild;
  stop.textContent = say("Cancel");
  stop.setAttribute("aria-label", `${say("Cancel")}: ${words}`);
  bar.setAttribute("aria-label", words);
  stop.addEventListener("click", () => { stop.disabled = true; call(`${api}/jobs/${job.id}`, { method: "DELETE" }).catch(() => {}); });
  box.append(line);
  box.hidden = false;
  let now = job, failures = 0;
  while (!now.ended_at) {
    text.textContent = [words, now.total_bytes ? say("{done} of {all}", { done: sizeText(now.size_bytes), all: sizeText(now.total_bytes) }) : now.size_bytes ? sizeText(now.size_bytes) : "", now.paths > 1 ? say("{done} of {all}", { done: now.done, all: now.paths }) : ""].filter(Boolean).join(" · ");
    if (now.total_bytes) { bar.max = now.total_bytes; bar.value = now.size_bytes; }
    if (now.paths > 1) { bar.max = now.paths; bar.value = now.done; }
    await new Promise((done) => setTimeout(done, 700));
    try { now = await call(`${api}/jobs/${job.id}`); failures = 0; } catch (error) {
      failures += 1;
      if (error.problem?.status === 404 || failures > 20) { line.remove(); box.hidden = !box.children.length; throw error; }
    }
  }
  line.remove();
  box.hidden = !box.children.length;
  refreshTimes(box);
  return now;
}
