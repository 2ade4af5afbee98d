// The pure parts of JupyterLab's extension, by Node's own test runner; started by test_words.py.
import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { pathToFileURL } from "node:url";

const built = process.env.BUILT;
const sources = process.env.SOURCES;
const load = name => import(pathToFileURL(join(built, name)).href);
const { CHINESE, isChinese, sayer } = await load("words.js");
const times = await load("times.js");
const { pause } = await load("link.js");
const english = sayer("en-GB");
const chinese = sayer("zh_CN");
const now = new Date("2026-11-22T14:46:00Z");
const zone = "Europe/Berlin"; // 15:46
const fate = (release, say = english, locale = "en-GB") =>
  times.fate(
    say,
    { policy: "auto", grace_seconds: 300, at: null, why: null, kept_until: null, when_done: false, ...release },
    now,
    locale,
    zone
  );

test("held time goes on in hours beyond a day and never runs backwards", () => {
  assert.equal(times.clock(8020), "02:13:40");
  assert.equal(times.clock(359999.9), "99:59:59");
  assert.equal(times.clock(360000), "100:00:00");
  assert.equal(times.clock(-3), "00:00:00");
});

test("a span is said in the two units that matter, and never as more than is left", () => {
  const said = { 0: "0 s", 59.9: "59 s", 60: "1 min", 3599: "59 min", 3600: "1 h", 8055: "2 h 14 min" };
  for (const [seconds, text] of Object.entries({ ...said, 86400: "1 day", 97200: "1 d 3 h", 604800: "7 days" })) {
    assert.equal(times.span(english, Number(seconds)), text);
  }
  assert.equal(times.span(chinese, 8055), "2 小时 14 分钟");
});

test("a moment says its day when it is more than half a day away", () => {
  assert.equal(times.moment(new Date("2026-11-22T17:00:00Z"), now, "en-GB", zone), "18:00");
  assert.equal(times.moment(new Date("2026-11-23T00:30:00Z"), now, "en-GB", zone), "01:30");
  assert.match(times.moment(new Date("2026-11-23T17:30:00Z"), now, "en-GB", zone), /23 Nov.* 18:30/);
  assert.match(times.moment(new Date("2026-11-23T17:30:00Z"), now, "zh_CN", zone), /11月23日.*18:30/);
});

test("a moment is right on both sides of the change to winter time", () => {
  const before = new Date("2026-10-25T00:30:00Z");
  assert.equal(times.moment(new Date("2026-10-25T01:30:00Z"), before, "en-GB", zone), "02:30");
});

test("each policy has its words", () => {
  assert.equal(fate({}).short, "5 min after you leave");
  assert.equal(fate({ grace_seconds: 90 }).title, "Goes back 1 min after you leave");
  assert.equal(fate({ policy: "8h" }).short, "8 h after you leave");
  assert.equal(fate({ policy: "7d" }).short, "7 days after you leave");
  assert.equal(fate({ policy: "manual" }).title, "Kept until you release it");
  assert.equal(fate({ policy: "auto-when-done" }).short, "when done");
  assert.equal(fate({ policy: "8h", when_done: true }).short, "when done");
});

test("what is kept until a moment says it, with what is left and what comes then", () => {
  const at = "2026-11-22T17:00:00Z";
  const kept = fate({ at, kept_until: at, why: "kept" });
  assert.deepEqual([kept.short, kept.tiny, kept.title], ["until 18:00", "18:00", "Kept until 18:00"]);
  assert.equal(kept.more, "2 h 14 min left, then automatic");
  assert.deepEqual(fate({ kept_until: at }), { ...kept, left: null }, "also while an open page keeps it anyway");
  assert.equal(fate({ at: "2026-11-22T16:00:00Z", why: "most", kept_until: at }).short, "until 17:00");
  assert.equal(fate({ at, kept_until: at, why: "kept" }, chinese, "zh_CN").title, "保留至 18:00");
});

test("an end that comes although a page is open is said once it is near, and named before", () => {
  const near = fate({ at: "2026-11-22T17:00:00Z", why: "maximum" });
  assert.equal(near.short, "until 18:00");
  assert.equal(near.more, "2 h 14 min left, then it goes back");
  const far = fate({ at: "2026-11-29T14:46:00Z", why: "maximum" });
  assert.equal(far.short, "5 min after you leave");
  assert.match(far.more, /^An open page keeps it, until .*29 Nov.* at most\.$/);
});

test("an end for having left is nothing to whoever is here", () => {
  assert.equal(fate({ at: "2026-11-22T14:50:00Z", why: "left" }).left, null);
  assert.equal(fate({ at: "2026-11-22T14:50:00Z", why: "left" }).short, "5 min after you leave");
});

test("a time that has passed keeps nothing", () => {
  const past = fate({ at: "2026-11-22T14:00:00Z", kept_until: "2026-11-22T14:00:00Z" });
  assert.equal(past.short, "5 min after you leave");
});

test("sizes and memory are said as everywhere", () => {
  const size = { nodes: 2, cpu_millicores: 2000, memory_bytes: 8 * 2 ** 30, gpus: 0, gpu_model: null };
  assert.equal(times.sizeWords(english, size), "2 nodes, each 2 cores · 8\u00a0GB");
  assert.equal(
    times.sizeWords(english, { ...size, nodes: 1, cpu_millicores: 1000, gpus: 1, gpu_model: "A100" }),
    "1 node, 1 core · 8\u00a0GB · 1\u00a0A100"
  );
  assert.equal(times.sizeWords(chinese, { ...size, cpu_millicores: 500, gpus: 2 }), "2 个节点，每个 0.5 核 · 8\u00a0GB · 2 块 GPU");
  assert.equal(times.memoryWords(english, 11.2 * 2 ** 30, 2 ** 34), "11.2 of 16.0\u00a0GB");
  assert.equal(times.memoryWords(chinese, 2 ** 25, 2 ** 26), "32 / 64\u00a0MB");
});

test("what is busy is named, one and many", () => {
  assert.equal(times.busyWords(english, { kernels: 0, terminals: 0, batch: 0 }), "");
  assert.equal(times.busyWords(english, { kernels: 1, terminals: 2, batch: 0 }), "1 kernel is busy, 2 terminals are busy");
  assert.equal(times.busyWords(chinese, { kernels: 1, terminals: 0, batch: 3 }), "1 个内核正忙，3 个程序正在运行");
});

test("attempts to connect come later each time, within bounds, and apart from one another", () => {
  assert.ok(pause(0, 0) >= 500 && pause(0, 1) <= 1000);
  assert.ok(pause(4, 0) > pause(0, 1));
  assert.equal(pause(50, 1), 30_000);
  assert.notEqual(pause(3, 0.1), pause(3, 0.9));
});

test("simplified Chinese is given to who reads it, and to nobody else", () => {
  for (const locale of ["zh_CN", "zh-CN", "zh", "zh_Hans_CN"]) assert.ok(isChinese(locale), locale);
  for (const locale of ["en", "zh_TW", "zh-Hant", "default", "", "de_DE"]) assert.ok(!isChinese(locale), locale);
});

test("every text has its Chinese with the same places in it, and no Chinese is without a text", () => {
  const code = readdirSync(sources)
    .filter(name => name !== "words.ts")
    .map(name => readFileSync(join(sources, name), "utf8"))
    .join("\n");
  const places = text => (text.match(/\{\w+\}/g) ?? []).sort().join();
  for (const [text, translated] of Object.entries(CHINESE)) {
    assert.ok(code.includes(JSON.stringify(text)), `nobody says ${text}`);
    assert.equal(places(translated), places(text), text);
  }
  const said = [...code.matchAll(/\bsay\(\s*(?:[\w.!?\s()=>&]+\?\s*)?"((?:[^"\\]|\\.)*)"/g)].map(found => found[1]);
  assert.ok(said.length > 40);
  for (const text of said) assert.ok(Object.hasOwn(CHINESE, text), `no Chinese for ${text}`);
});
