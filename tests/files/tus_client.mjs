// Every way in which the protocol's own client uses a server; the last line says how each ended.
import fs from "node:fs";
import { FileUrlStorage, Upload, canStoreURLs } from "tus-js-client";

const [endpoint, path, known] = process.argv.slice(2);
const data = fs.readFileSync(path);

function run(name, options = {}, source = data) {
  return new Promise((done, failed) => {
    let where = "";
    const upload = new Upload(source, {
      endpoint,
      retryDelays: [100, 300],
      metadata: { filename: name },
      onAfterResponse: (_, response) => { where = response.getHeader("Galilean-Path") || where; },
      onError: failed,
      onSuccess: () => done(where),
      ...options,
    });
    upload.start();
  });
}

async function paused() {
  const storage = new FileUrlStorage(known), options = {
    endpoint, chunkSize: 1 << 20, urlStorage: storage, retryDelays: [100, 300],
    fingerprint: async () => "the same file", metadata: { filename: "paused.bin" },
  };
  await new Promise((done, failed) => {
    const upload = new Upload(data, {
      ...options,
      onError: failed,
      onChunkComplete: async (_, sent) => { if (sent >= 2 << 20) { await upload.abort(); done(); } },
    });
    upload.start();
  });
  // Another one, as after the browser was closed: it finds the first by what it is.
  return new Promise((done, failed) => {
    let where = "", first = -1;
    const upload = new Upload(data, {
      ...options,
      onProgress: (sent) => { if (first < 0) first = sent; },
      onAfterResponse: (_, response) => { where = response.getHeader("Galilean-Path") || where; },
      onError: failed,
      onSuccess: () => (first >= 2 << 20 ? done(where) : failed(new Error(`began again at ${first}`))),
    });
    upload.findPreviousUploads().then(([before]) => { upload.resumeFromPreviousUpload(before); upload.start(); }, failed);
  });
}

async function ended() {
  const upload = await new Promise((done, failed) => {
    const one = new Upload(data, {
      endpoint, chunkSize: 1 << 20, metadata: { filename: "ended.bin" }, onError: failed,
      onChunkComplete: async () => { await one.abort(true); done(one); },
    });
    one.start();
  });
  return (await fetch(upload.url, { method: "HEAD", headers: { "Tus-Resumable": "1.0.0" } })).status;
}

const refused = () => run("whole.bin", { retryDelays: null }).then(() => 0, (error) => error.originalResponse.getStatus());

if (!canStoreURLs) throw new Error("this client cannot keep addresses");
const said = {
  whole: await run("whole.bin"),
  "in pieces": await run("pieces.bin", { chunkSize: 700_001 }),
  "with the first request": await run("first.bin", { uploadDataDuringCreation: true }),
  nothing: await run("empty.bin", {}, Buffer.alloc(0)),
  paused: await paused(),
  parallel: await Promise.all([0, 1, 2].map((number) => run(`p${number}.bin`, { chunkSize: 1 << 20 }))),
  ended: await ended(),
  refused: await refused(),
};
console.log(JSON.stringify(said));
