/**
 * The picture: noVNC's screen, kept connected, and a card in its place when there is no desktop.
 *
 * A lost tie is tried again for ever, a little later each time, at once when the tab or the network comes back.
 * A desktop that is down is not started again by itself: it might fall for ever.
 */

import RFB from "@novnc/novnc";

import { pause } from "../../lab/src/link.js";
import { el } from "./dom.js";
import type { Node, Status } from "./node.js";
import type { View } from "./view.js";
import type { Say } from "./words.js";

const LOOK_MS = 100;
const EMPTY_MOST_MS = 15_000;

/** Whether nothing was drawn yet, by a small copy of the canvas. */
function isBlack(canvas: HTMLCanvasElement): boolean {
  const small = new OffscreenCanvas(32, 32);
  const context = small.getContext("2d", { willReadFrequently: true });
  if (!context || !canvas.width) {
    return false;
  }
  context.drawImage(canvas, 0, 0, 32, 32);
  return context.getImageData(0, 0, 32, 32).data.every((value, at) => at % 4 === 3 || value < 8);
}

export class Picture {
  onLine: (text: string) => void = () => undefined;
  onText: (text: string) => void = () => undefined;
  private rfb: RFB | null = null;
  private connected = false;
  private attempt = 0;
  private timer = 0;
  private quiet = 0;
  private ended = false;
  private card: HTMLElement | null = null;

  constructor(
    private readonly screen: HTMLElement,
    private readonly node: Node,
    private readonly view: View,
    private readonly say: Say
  ) {
    const again = (): void => {
      if (document.visibilityState === "visible" && this.timer) {
        this.connect();
      }
    };
    document.addEventListener("visibilitychange", again);
    window.addEventListener("online", again);
    window.addEventListener("pageshow", again);
    view.onChange = () => this.apply();
    screen.dataset["state"] = "waiting";
    this.wait(say("Starting the desktop …"));
  }

  /** Connect anew, whatever is there. */
  connect(): void {
    if (this.ended) {
      return;
    }
    window.clearTimeout(this.timer);
    this.timer = 0;
    const old = this.rfb;
    this.rfb = null;
    old?.disconnect();
    const rfb = new RFB(this.screen, this.node.socket(), { shared: true });
    this.rfb = rfb;
    rfb.background = "transparent";
    rfb.scaleViewport = true;
    this.apply();
    rfb.addEventListener("connect", () => {
      if (rfb === this.rfb) {
        this.up();
      }
    });
    rfb.addEventListener("disconnect", () => {
      if (rfb === this.rfb) {
        this.rfb = null;
        this.connected = false;
        void this.gone();
      }
    });
    rfb.addEventListener("clipboard", event => this.onText((event as CustomEvent<{ text: string }>).detail.text));
  }

  /** The last connection: the cluster was released. */
  end(): void {
    this.ended = true;
    window.clearTimeout(this.timer);
    this.rfb?.disconnect();
    this.rfb = null;
  }

  focus(): void {
    this.rfb?.focus({ preventScroll: true });
  }

  tell(text: string): void {
    this.onLine(text);
    if (text) {
      window.setTimeout(() => this.onLine(""), 6000);
    }
  }

  /** Put a text onto the desktop's clipboard; whether it went. */
  paste(text: string): boolean {
    if (this.rfb && this.connected) {
      this.rfb.clipboardPasteFrom(text);
      return true;
    }
    return false;
  }

  async start(what: "start" | "restart"): Promise<void> {
    const old = this.rfb;
    this.rfb = null;
    this.connected = false;
    old?.disconnect();
    this.wait(this.say(what === "restart" ? "The desktop restarts …" : "Starting the desktop …"));
    try {
      const answer = await this.node.api(what, { method: "POST", body: "{}" });
      const status = (await answer.json()) as Status;
      if (status.state === "down") {
        this.down(status);
        return;
      }
    } catch {
      // the picture's own attempts tell more
    }
    this.connect();
  }

  private up(): void {
    this.attempt = 0;
    window.clearTimeout(this.quiet);
    if (this.quiet) {
      this.tell(this.say("Connected again."));
    }
    this.quiet = 0;
    this.connected = true;
    this.screen.dataset["state"] = "connected";
    this.drawn(Date.now() + EMPTY_MOST_MS);
    this.apply();
    if (!document.activeElement || document.activeElement === document.body) {
      this.focus();
    }
    void this.view.resize();
  }

  /** Takes the card away once there is something to see: an X server is up seconds before its first window. */
  private drawn(until: number): void {
    if (!this.connected || !this.card) {
      return;
    }
    const canvas = this.screen.querySelector("canvas");
    if (Date.now() > until || (canvas && !isBlack(canvas))) {
      this.clear();
    } else {
      window.setTimeout(() => this.drawn(until), LOOK_MS);
    }
  }

  private async gone(): Promise<void> {
    if (this.ended) {
      return;
    }
    this.quiet ||= window.setTimeout(() => this.onLine(this.say("Connection lost. Trying again …")), 2000);
    const answer = await this.node.api("status").catch(() => null);
    if (this.rfb || this.ended) {
      return; // somebody connected meanwhile
    }
    if (answer && (answer.type === "opaqueredirect" || answer.status === 403)) {
      this.stop();
      this.show(this.say("You are not signed in any more."), [], [], this.say("Sign in again"), () => location.reload());
      return;
    }
    if (answer?.ok) {
      const status = (await answer.json()) as Status;
      if (status.state === "down") {
        this.stop();
        this.down(status);
        return;
      }
    }
    this.screen.dataset["state"] = "lost";
    this.timer = window.setTimeout(() => this.connect(), pause(this.attempt, Math.random()));
    this.attempt += 1;
  }

  private stop(): void {
    window.clearTimeout(this.quiet);
    this.quiet = 0;
    this.onLine("");
  }

  private apply(): void {
    if (this.rfb) {
      this.rfb.qualityLevel = this.view.quality;
      this.rfb.compressionLevel = this.view.compression;
      this.rfb.resizeSession = this.view.follows;
    }
  }

  // ---- cards in the place of the picture

  private down(status: Status): void {
    const { say } = this;
    const name = this.node.data.title;
    const reason = status.reason ?? "";
    const one = (whole: string, alone: string): string => (name ? say(alone, { name }) : say(whole));
    const title =
      reason === "ended"
        ? one("The desktop has ended", "{name} has ended")
        : reason === "crashed"
          ? one("The desktop stopped unexpectedly", "{name} stopped unexpectedly")
          : one("The desktop did not start", "{name} did not start");
    const why: Record<string, string> = {
      missing: say("These programs are not installed here: {names}. Tell who looks after this environment.", {
        names: status.log.join(", ")
      }),
      server: say(
        "The screen could not be made. Starting again often helps; if not, tell who looks after this environment and show the lines below."
      ),
      session: say("What should run on it ended at once. The lines below say more."),
      crashed: say("Its programs ended by an error. The lines below say more."),
      disk: say(
        "Nothing could be written: the disk of the home directory may be full. Delete files and start again."
      ),
      ended: say("Somebody logged out or ended it.")
    };
    const log = reason === "missing" ? [] : status.log;
    const lines = [why[reason] ?? "", say("Your files in work are kept.")].filter(Boolean);
    this.show(title, lines, log, say("Start again"), () => void this.start("start"));
  }

  private show(title: string, lines: string[], log: string[], label: string, act: () => void): void {
    const button = el("button", { type: "button", class: "primary" }, label);
    button.onclick = act;
    const card = el(
      "section",
      { class: "card", role: "alert" },
      el("h1", {}, title),
      ...lines.map(text => el("p", {}, text)),
      log.length ? el("h2", {}, this.say("The last lines of its log")) : null,
      log.length ? el("pre", { tabindex: "0" }, log.join("\n")) : null,
      button
    );
    this.put(card);
    const shown = card.querySelector("pre");
    shown?.scrollTo(0, shown.scrollHeight);
    this.screen.dataset["state"] = "down";
    button.focus();
  }

  private wait(text: string): void {
    this.put(el("section", { class: "wait", role: "status" }, el("span", { class: "spinner" }), el("span", {}, text)));
    this.screen.dataset["state"] = "waiting";
  }

  private put(card: HTMLElement): void {
    this.clear();
    this.card = card;
    this.screen.append(card);
  }

  private clear(): void {
    this.card?.remove();
    this.card = null;
  }
}
