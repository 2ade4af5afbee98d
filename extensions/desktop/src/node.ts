/** What the page is told at its start, and how it speaks to its node. */

export interface Data {
  /** Path of the node, with slashes at both ends. */
  base: string;
  xsrf: string;
  language: string;
  node: string;
  /** The application that has this desktop to itself; empty = the whole desktop. */
  app: string;
  title: string;
  applications: { name: string; title: string }[];
  sizes: string[];
  /** Where uploads go, as seen from HOME. */
  folder: string;
  /** Whether the desktop is ours to restart; one that the image brings is not. */
  restarts: boolean;
}

export interface Status {
  state: "new" | "starting" | "running" | "down";
  reason: string | null;
  log: string[];
}

export class Node {
  constructor(readonly data: Data) {}

  address(what: string, query: Record<string, string> = {}): string {
    const all = new URLSearchParams(this.data.app ? { app: this.data.app, ...query } : query);
    const text = all.toString();
    return `${this.data.base}desktop/${what}${text ? `?${text}` : ""}`;
  }

  socket(): string {
    return new URL(this.address("vnc"), location.href).href.replace(/^http/, "ws");
  }

  /** Asks the node. JupyterHub wants its value with every question of a script, also with those that change nothing. */
  async fetch(url: string, init: RequestInit = {}): Promise<Response> {
    const answer = await this.once(url, init);
    const now = kept();
    if (answer.status !== 403 || !now || now === this.data.xsrf) {
      return answer;
    }
    this.data.xsrf = now; // somebody signed in anew, in another tab
    return this.once(url, init);
  }

  private once(url: string, init: RequestInit): Promise<Response> {
    const headers = new Headers(init.headers);
    headers.set("X-XSRFToken", this.data.xsrf);
    if (init.method && init.method !== "GET") {
      headers.set("Content-Type", "application/json");
    }
    return fetch(url, { ...init, headers, credentials: "same-origin", redirect: "manual" });
  }

  api(what: string, init: RequestInit = {}, query: Record<string, string> = {}): Promise<Response> {
    return this.fetch(this.address(`api/${what}`, query), init);
  }
}

/** The value as the browser has it by now. */
function kept(): string {
  return /(?:^|; )_xsrf=([^;]+)/.exec(document.cookie)?.[1] ?? "";
}
