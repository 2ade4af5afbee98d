/** Times and amounts as words; pure, so that tests need no page. Seconds in, text out. */

import type { Release, Status } from "./status.js";
import { counted, type Say } from "./words.js";

/** Held time: `02:13:40`, hours going on beyond a day. */
export function clock(seconds: number): string {
  const whole = Math.max(0, Math.floor(seconds));
  const two = (n: number): string => String(n).padStart(2, "0");
  return `${two(Math.floor(whole / 3600))}:${two(Math.floor(whole / 60) % 60)}:${two(whole % 60)}`;
}

/** A span as one says it: `2 h 14 min`, `5 min`, `40 s`, `2 d 3 h`. Never says more than is left. */
export function span(say: Say, seconds: number): string {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 60) {
    return say("{n} s", { n: whole });
  }
  const minutes = Math.floor(whole / 60);
  const hours = Math.floor(minutes / 60);
  if (hours < 1) {
    return say("{n} min", { n: minutes });
  }
  if (hours < 24) {
    return minutes % 60 ? say("{h} h {m} min", { h: hours, m: minutes % 60 }) : say("{n} h", { n: hours });
  }
  const days = Math.floor(hours / 24);
  return hours % 24
    ? say("{d} d {h} h", { d: days, h: hours % 24 })
    : counted(say, days, "{n} day", "{n} days");
}

const HALF_DAY_MS = 12 * 3600 * 1000;

/** A moment: `18:00` within half a day, with its day otherwise. `zone` is for tests; the browser's own is meant. */
export function moment(at: Date, now: Date, locale: string, zone?: string): string {
  const near = Math.abs(at.getTime() - now.getTime()) < HALF_DAY_MS;
  return new Intl.DateTimeFormat(locale.replace("_", "-") || "en-GB", {
    ...(near ? {} : { month: "short", day: "numeric" }),
    hour: "2-digit",
    minute: "2-digit",
    hourCycle: "h23",
    timeZone: zone
  }).format(at);
}

/** Seconds after one has left, by a policy's name; `null` for those that do not look at it. */
export function afterLeaving(release: Release): number | null {
  const named = /^(\d+)([hd])$/.exec(release.policy);
  if (named) {
    return Number(named[1]) * (named[2] === "h" ? 3600 : 86400);
  }
  return release.policy.startsWith("auto") ? (release.grace_seconds ?? 300) : null;
}

export interface Fate {
  /** For the top bar: "until 18:00", "5 min after you leave", "manual". */
  short: string;
  /** For a phone: "18:00", "5 min". */
  tiny: string;
  /** Two lines for the menu. */
  title: string;
  more: string;
  /** Seconds until it goes back, where that is known. */
  left: number | null;
}

/** Ends that come although a page is open. */
const HARD = /max|most|budget|schedule|idle|asked|admin|expire/;
const SOON_SECONDS = 12 * 3600;

/** What becomes of a cluster, in words. */
export function fate(say: Say, release: Release, now: Date, locale: string, zone?: string): Fate {
  const at = release.at ? new Date(release.at) : null;
  const time = at ? moment(at, now, locale, zone) : "";
  const waits = afterLeaving(release);
  if (release.when_done || release.policy === "auto-when-done") {
    const short = say("when done");
    const more = at
      ? say("At most until {time}.", { time })
      : say("You may close this page; running cells go on.");
    return { short, tiny: short, title: say("Goes back when nothing runs any more"), more, left: null };
  }
  const hard = at !== null && HARD.test(release.why ?? "");
  // Kept until then whether somebody is here or not; an end that nothing moves may come before.
  const kept = release.kept_until ? new Date(release.kept_until) : null;
  const soon = hard && at.getTime() - now.getTime() < SOON_SECONDS * 1000;
  const end = kept && kept > now ? (hard && at < kept ? at : kept) : soon ? at : null;
  if (end) {
    const left = (end.getTime() - now.getTime()) / 1000;
    const until = moment(end, now, locale, zone);
    return {
      short: say("until {time}", { time: until }),
      tiny: until,
      title: say("Kept until {time}", { time: until }),
      more: say(end === at || waits === null ? "{left} left, then it goes back" : "{left} left, then automatic", {
        left: span(say, left)
      }),
      left: end === at ? left : null
    };
  }
  if (waits === null) {
    const more = at ? say("At most until {time}.", { time }) : "";
    return { short: say("manual"), tiny: say("manual"), title: say("Kept until you release it"), more, left: null };
  }
  const after = span(say, waits);
  return {
    short: say("{time} after you leave", { time: after }),
    tiny: after,
    title: say("Goes back {time} after you leave", { time: after }),
    more: hard ? say("An open page keeps it, until {time} at most.", { time }) : say("An open page keeps it."),
    left: null
  };
}

const GIB = 2 ** 30;
const MIB = 2 ** 20;

/** A number without zeros that say nothing: `4`, `0.5`, `11.2`. */
export function short(value: number, digits = 1): string {
  return String(Number(value.toFixed(digits)));
}

/** "2 nodes, each 2 cores · 8 GB"; the space before a unit never breaks. */
export function sizeWords(say: Say, size: NonNullable<Status["size"]>): string {
  const cores = size.cpu_millicores / 1000;
  const parts = [
    say(cores === 1 ? "{n} core" : "{n} cores", { n: short(cores, 2) }),
    size.memory_bytes < GIB
      ? `${short(size.memory_bytes / MIB, 0)}\u00a0MB`
      : `${short(size.memory_bytes / GIB, 2)}\u00a0GB`
  ];
  if (size.gpus) {
    parts.push(
      size.gpu_model ? `${size.gpus}\u00a0${size.gpu_model}` : counted(say, size.gpus, "{n} GPU", "{n} GPUs")
    );
  }
  const each = parts.join(" · ");
  return size.nodes === 1
    ? say("{nodes}, {each}", { nodes: say("1 node"), each })
    : say("{nodes}, each {each}", { nodes: say("{n} nodes", { n: size.nodes }), each });
}

/** "11.2 of 16.0 GB", in MB for a node that has less than one GB. */
export function memoryWords(say: Say, used: number, all: number): string {
  const [unit, digits, text] = all < GIB ? [MIB, 0, "{used} of {all} MB"] : [GIB, 1, "{used} of {all} GB"];
  const shown = (bytes: number): string => (bytes / unit).toFixed(digits);
  return say(text, { used: shown(used), all: shown(all) }).replace(/ (?=[GM]B$)/, "\u00a0");
}

/** What keeps the node busy, most telling first; empty when nothing does. */
export function busyWords(say: Say, busy: Status["busy"]): string {
  const parts: string[] = [];
  if (busy.kernels) {
    parts.push(counted(say, busy.kernels, "{n} kernel is busy", "{n} kernels are busy"));
  }
  if (busy.terminals) {
    parts.push(counted(say, busy.terminals, "{n} terminal is busy", "{n} terminals are busy"));
  }
  if (busy.batch) {
    parts.push(counted(say, busy.batch, "{n} program runs", "{n} programs run"));
  }
  return parts.join(say(", "));
}
