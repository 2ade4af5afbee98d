/** What the node's server extension tells; the same words as in `spawner/node`. Times are ISO 8601. */

export interface Status {
  /** The node's clock: the browser's own may be wrong. */
  now: string;
  language: string;
  run: string;
  project: { name: string; url: string; owner: string } | null;
  portal_url: string | null;
  node: { rank: number; name: string };
  nodes: NodeDoors[];
  size: {
    nodes: number;
    cpu_millicores: number;
    memory_bytes: number;
    gpus: number;
    gpu_model: string | null;
  } | null;
  since: string | null;
  held_seconds: number | null;
  release: Release | null;
  /** What one press of Extend gives; `null` = cannot be extended. */
  extend: { until: string | null; until_most?: string | null } | null;
  can: { when_done: boolean; release: boolean; restart?: boolean; reset?: boolean };
  /** What is lost by it, and what stays, as the portal says it. */
  loses?: Partial<Record<"restart" | "reset", { goes: string[]; stays: string }>>;
  warning: { id: string; at: string; why: string; busy: boolean } | null;
  use: Use | null;
  busy: { kernels: number; terminals: number; batch: number };
  headless?: { path: string; cells: number; written_at: string | null }[];
  portal_away: boolean;
}

/** What a release, or a reset of one node, would lose outside of work; said by the portal. */
export interface Losses {
  /** `name` is empty where there is one node only; `save_url` where it cannot be saved first. */
  parts: { name: string; lines: string[]; save_url: string }[];
  /** Of the nodes that lose nothing. */
  nothing: string;
}

export interface NodeDoors {
  rank: number;
  name: string;
  lab_url: string;
  terminal_url: string;
  /** Where its environment has a desktop and the portal has been heard. */
  desktop_url?: string | null;
  /** Programs of its environment, and the ports that the person has opened. */
  more?: { title: string; url: string }[];
  /** Where it can be saved as an image. */
  save_url?: string | null;
  /** `null` = not known, because the portal has not been heard yet. */
  state: "ready" | "starting" | "restarting" | "lost" | null;
  /** Why it did not come back, or was left as it is. */
  why?: string;
}

export interface Release {
  policy: string;
  grace_seconds: number | null;
  /** When it goes back as last decided; `null` = not by itself while somebody is here. */
  at: string | null;
  why: string | null;
  kept_until: string | null;
  when_done: boolean;
}

export interface Use {
  cpu_percent: number | null;
  memory_bytes: number | null;
  memory_limit_bytes: number | null;
  gpu_percent: number | null;
}

/** What comes over the websocket. */
export type Message =
  | { type: "status"; status: Status }
  | { type: "released"; at?: string; why?: string; by?: string | null; explanation?: string | null }
  | { type: "restarting" };
