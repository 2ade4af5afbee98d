/**
 * The page's tie to its node: one websocket, which tells what is so and by being open says "I am here".
 *
 * It goes to the node's own route, never to the portal, so it needs no rights of its own and keeps working
 * while the portal is away. A lost connection is tried again for ever, a little later each time; a tab that
 * comes back to sight, or a network that does, is tried at once.
 */

import type { Services, ServerSettings } from "./jupyter.js";
import type { Losses, Message, Status } from "./status.js";

export type State =
  | { kind: "waiting" }
  | { kind: "here" }
  | { kind: "lost" }
  | { kind: "restarting"; since: number }
  | { kind: "released"; by?: string | null; explanation?: string | null };

const FIRST_MS = 1000;
const MOST_MS = 30_000;
/** A tie that is gone for less than this is not worth a line. */
const QUIET_MS = 3000;
/** Nothing for so long from a server that tells at least each 30 s: the network swallowed it. */
const SILENCE_MS = 75_000;

/** What a node is asked for. */
export type Ask = "extend" | "when-done" | "release" | "restart-node" | "reset-node";

/** How long to wait before the given attempt; `chance` in 0 … 1 keeps many pages apart. */
export function pause(attempt: number, chance: number): number {
  return Math.min(MOST_MS, FIRST_MS * 2 ** attempt) * (0.5 + chance / 2);
}

/** What a POST was answered when it was not done. */
export class Refused extends Error {}

export class Link {
  status: Status | null = null;
  state: State = { kind: "waiting" };
  /** The node's clock minus the browser's, in ms. */
  private skew = 0;
  private socket: WebSocket | null = null;
  private attempt = 0;
  private timer = 0;
  private quiet = 0;
  private silence = 0;
  /** How many words came over the socket: it tells what is so, in order, and an answer to a question may be late. */
  private heard = 0;
  private begun: ((ours: boolean) => void) | null = null;
  private readonly listeners: (() => void)[] = [];

  constructor(
    private readonly settings: ServerSettings,
    private readonly connection: Services["ServerConnection"]
  ) {}

  onChange(listener: () => void): void {
    this.listeners.push(listener);
  }

  /** The present moment by the node's clock. */
  now(): Date {
    return new Date(Date.now() + this.skew);
  }

  /** Open the tie; `true` with the first word of the node, `false` when this is no node of ours. */
  open(): Promise<boolean> {
    const again = (): void => {
      if (document.visibilityState === "visible" && this.state.kind !== "here") {
        this.connect();
      }
    };
    document.addEventListener("visibilitychange", again);
    window.addEventListener("online", again);
    window.addEventListener("pageshow", again);
    this.connect();
    return new Promise(resolve => {
      this.begun = resolve;
    });
  }

  /** Connect anew, whatever is there. */
  connect(): void {
    if (this.state.kind === "released") {
      return;
    }
    window.clearTimeout(this.timer);
    const old = this.socket;
    this.socket = null;
    old?.close();
    const socket = new WebSocket(`${this.settings.wsUrl}galilean/api/live`);
    this.socket = socket;
    socket.onmessage = event => {
      if (socket === this.socket) {
        this.hear(JSON.parse(String(event.data)) as Message);
      }
    };
    socket.onclose = () => {
      if (socket === this.socket) {
        this.socket = null;
        void this.gone();
      }
    };
  }

  /**
   * Ask the node to do something; the new status is taken over, unless a newer one came over the socket meanwhile:
   * two connections keep no order between them.
   */
  async ask(what: Ask, body: object = {}): Promise<void> {
    const before = this.heard;
    let answer: Response;
    try {
      answer = await this.request(what, { method: "POST", body: JSON.stringify(body) });
    } catch {
      throw new Refused("");
    }
    const said = (await answer.json().catch(() => ({}))) as Partial<Status> & { message?: string };
    if (!answer.ok) {
      throw new Refused(said.message ?? "");
    }
    if (said.now && said.node && !this.newer(said.now)) {
      this.take(said as Status);
      this.tell();
    }
    if (/^re(start|set)-node$/.test(what) && !("rank" in body) && this.heard === before) {
      this.restarting(); // the socket says it, too, where it is open
    }
  }

  /** What a release, or a reset of one node, would lose outside of work; takes as long as nodes are looked at. */
  async losses(rank?: number): Promise<Losses> {
    const answer = await this.request(rank === undefined ? "losses" : `losses?rank=${rank}`);
    if (!answer.ok) {
      throw new Refused("");
    }
    return (await answer.json()) as Losses;
  }

  private request(what: string, init: RequestInit = {}): Promise<Response> {
    const url = `${this.settings.baseUrl}galilean/api/${what}`;
    return this.connection.makeRequest(url, init, this.settings);
  }

  private hear(message: Message): void {
    this.heard += 1;
    window.clearTimeout(this.silence);
    this.silence = window.setTimeout(() => this.connect(), SILENCE_MS);
    if (message.type === "status") {
      this.attempt = 0;
      window.clearTimeout(this.quiet);
      this.quiet = 0;
      this.take(message.status);
      if (!this.ending()) {
        this.become({ kind: "here" });
      } else {
        this.tell();
      }
      this.begun?.(true);
    } else if (message.type === "restarting") {
      this.restarting();
    } else if (message.type === "released") {
      // Whoever released it here knows that.
      this.released(message.why === "user" ? null : message.by, message.explanation);
    }
  }

  private restarting(): void {
    this.become({ kind: "restarting", since: Date.now() });
  }

  private released(by?: string | null, explanation?: string | null): void {
    this.become({ kind: "released", by, explanation });
    window.clearTimeout(this.timer);
    window.clearTimeout(this.silence);
    this.socket?.close();
  }

  private take(status: Status): void {
    this.skew = new Date(status.now).getTime() - Date.now();
    this.status = status;
  }

  /** Whether what is known is of a later moment than this one of the node's clock. */
  private newer(than: string): boolean {
    return this.status !== null && new Date(this.status.now).getTime() > new Date(than).getTime();
  }

  private async gone(): Promise<void> {
    window.clearTimeout(this.silence);
    if (this.state.kind === "released") {
      return;
    }
    // One that is made anew is back within seconds.
    const attempt = this.state.kind === "restarting" ? Math.min(this.attempt, 1) : this.attempt;
    this.timer = window.setTimeout(() => this.connect(), pause(attempt, Math.random()));
    this.attempt += 1;
    this.quiet ||= window.setTimeout(() => {
      if (this.state.kind === "here" || this.state.kind === "waiting") {
        this.become({ kind: "lost" });
      }
    }, QUIET_MS);
    // The hub answers in the place of a cluster that is no more; a node that is away gives no such answer.
    const before = this.heard;
    const answer = await this.request("status").catch(() => null);
    if (this.heard !== before) {
      return; // it is back, and said how things stand
    }
    if (!this.status && (answer?.status === 404 || answer?.status === 403)) {
      window.clearTimeout(this.timer);
      window.clearTimeout(this.quiet);
      this.begun?.(false);
    } else if (answer?.status === 424 && this.state.kind !== "restarting") {
      this.released();
    }
  }

  /** Whether this node was asked to begin anew and has not yet: it still speaks, and ends in a moment. */
  private ending(): boolean {
    const own = this.status?.nodes.find(node => node.rank === this.status?.node.rank);
    return this.state.kind === "restarting" && own?.state === "restarting";
  }

  private become(state: State): void {
    this.state = state;
    this.tell();
  }

  private tell(): void {
    for (const listener of this.listeners) {
      listener();
    }
  }
}
