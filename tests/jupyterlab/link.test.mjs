// What the page knows of its node, whatever order answers and messages come in; started by test_words.py.
import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { pathToFileURL } from "node:url";

class Socket {
  static all = [];
  constructor(url) {
    this.url = url;
    Socket.all.push(this);
  }
  close() {
    this.closed = true;
  }
  says(message) {
    this.onmessage({ data: JSON.stringify(message) });
  }
}
const nowhere = { addEventListener: () => undefined, visibilityState: "visible" };
globalThis.window = { ...nowhere, setTimeout: () => 0, clearTimeout: () => undefined };
globalThis.document = nowhere;
globalThis.WebSocket = Socket;
const { Link } = await import(pathToFileURL(join(process.env.BUILT, "link.js")).href);

const status = (second, more = {}) => ({
  now: `2026-11-22T14:46:${String(second).padStart(2, "0")}Z`,
  node: { rank: 0, name: "node-0" },
  nodes: [{ rank: 0, name: "node-0", state: "ready" }],
  warning: null,
  ...more
});
const told = (second, more) => ({ type: "status", status: status(second, more) });

/** A page that heard of its node once, its socket, and `answer(http, body)` for the question that waits. */
async function page() {
  let give;
  const link = new Link(
    { wsUrl: "ws://node/", baseUrl: "http://node/" },
    { makeRequest: () => new Promise(resolve => (give = resolve)) }
  );
  const opened = link.open();
  const socket = Socket.all.at(-1);
  socket.says(told(0, { warning: { id: "w1" } }));
  assert.equal(await opened, true);
  const answer = (http, body) => give({ ok: http < 400, status: http, json: () => Promise.resolve(body) });
  return { link, socket, answer };
}

test("an answer that is later than a newer status changes nothing", async () => {
  const { link, socket, answer } = await page();
  const asked = link.ask("extend");
  socket.says(told(2));
  answer(200, status(1, { warning: { id: "w1" } }));
  await asked;
  assert.equal(link.status.warning, null);
});

test("an answer that is newer than what was told is taken, also where the socket said something meanwhile", async () => {
  const { link, socket, answer } = await page();
  const asked = link.ask("extend");
  socket.says(told(1, { warning: { id: "w1" } }));
  answer(200, status(2));
  await asked;
  assert.equal(link.status.warning, null);
});

test("a restart is shown as soon as it is asked, and over as soon as the node speaks again", async () => {
  const { link, socket, answer } = await page();
  const asked = link.ask("restart-node");
  answer(202, {});
  await asked;
  assert.equal(link.state.kind, "restarting");
  socket.says(told(3));
  assert.equal(link.state.kind, "here");
});

test("a node that speaks again before the answer to the restart has come is not shown as restarting for ever", async () => {
  const { link, socket, answer } = await page();
  const asked = link.ask("restart-node");
  socket.says({ type: "restarting" });
  socket.says(told(3));
  answer(202, {});
  await asked;
  assert.equal(link.state.kind, "here");
});

test("a tie that is back is not ended by the late answer of whoever stood in for the node", async () => {
  const { link, socket, answer } = await page();
  socket.onclose();
  link.connect();
  Socket.all.at(-1).says(told(4));
  answer(424, {});
  await new Promise(resolve => setImmediate(resolve));
  assert.equal(link.state.kind, "here");
});

test("a cluster that is no more is said by whoever stands in for the node", async () => {
  const { link, socket, answer } = await page();
  socket.onclose();
  answer(424, {});
  await new Promise(resolve => setImmediate(resolve));
  assert.equal(link.state.kind, "released");
});
