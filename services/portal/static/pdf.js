// Hands a PDF to the frame that shows it, and parts of PDF.js that the frame asks for; it can fetch nothing by itself.
// A frame is known by its window, not by what it says; it gets the one file that it was made for and parts by fixed names.
import { xsrf } from "galilean/page";

const PART = { cmaps: /^[A-Za-z0-9_-]{1,60}\.bcmap$/, fonts: /^[A-Za-z0-9_-]{1,60}\.(pfb|ttf)$/, wasm: /^[a-z0-9_]{1,40}\.wasm$/ };

/** Serve a frame for as long as it is in the page: `file` is the file's address, `parts` that of PDF.js' parts. */
export function serve(frame, { file, parts, problem }) {
  const answer = async (event) => {
    if (!frame.isConnected) { if (frame.dataset.was) removeEventListener("message", answer); return; }
    frame.dataset.was = "1";
    const { galilean, id, want, name } = event.data || {};
    if (event.source !== frame.contentWindow || galilean !== "pdf") return;
    const reply = (rest, moved = []) => event.source.postMessage({ galilean: "pdf", id, ...rest }, "*", moved);
    const address = want === "file" ? file : Object.hasOwn(PART, want) && PART[want].test(name) ? `${parts}/${want}/${name}` : null;
    if (!address) { reply({ problem: "" }); return; }
    try {
      const found = await fetch(address, want === "file" ? { cache: "no-store", credentials: "same-origin", headers: { "X-XSRFToken": xsrf } } : { credentials: "omit" });
      if (!found.ok) throw new Error();
      const bytes = await found.arrayBuffer();
      reply({ bytes }, [bytes]);
    } catch {
      reply({ problem });
    }
  };
  addEventListener("message", answer);
}
