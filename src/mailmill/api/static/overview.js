// The header and the figures: what /v1/status says.

import { byId, h, setText, show } from "./dom.js";
import { number, plural, span, verdictWords } from "./words.js";

const SAMPLES = 90;
const samples = [];
let completedBefore = null;

export function showStatus(status) {
  showService(status);
  showVerdicts(status);
  showQueue(status.queue);
  showDeliveries(status.deliveries);
}

export function showUnreachable() {
  const pill = byId("service");
  pill.dataset.tone = "bad";
  setText(pill, "Cannot be reached");
}

function showService({ accounts, queue, node, nodes = [] }) {
  const count = (...states) => states.reduce((sum, state) => sum + (accounts[state] ?? 0), 0);
  const total = Object.values(accounts).reduce((sum, value) => sum + value, 0);
  const troubled = count("authenticationError", "connectError", "disconnected");
  const busy = count("init", "connecting", "syncing");
  const silent = nodes.filter(({ state }) => state === "silent").length;
  const troubles = [
    troubled ? `${plural(troubled, "account")} need${troubled === 1 ? "s" : ""} attention` : "",
    silent ? `${plural(silent, "node")} silent` : "",
  ].filter(Boolean);
  const failed = queue.failed ? plural(queue.failed, "failed job") : "";
  const [tone, words, note = ""] =
    troubles.length ? ["warn", troubles.join(" · ")]
    : total === 0 ? ["idle", "Running, no accounts yet"]
    : busy ? ["busy", `Syncing ${plural(busy, "account")}`, failed]
    : queue.pending && queue.paused?.length ? ["warn", "Processing is paused", failed]
    : queue.pending + queue.processing > 0 ? ["busy", "Processing", failed]
    : failed ? ["warn", failed]
    : ["good", "All is well"];
  const pill = byId("service");
  pill.dataset.tone = tone;
  setText(pill, note ? `${words} · ${note}` : words);
  const up = (Date.now() - Date.parse(node.startedAt)) / 1000;
  const living = nodes.filter(({ state }) => state === "alive").length;
  const fleet = nodes.length > 1 ? ` · ${living} of ${nodes.length} nodes alive` : "";
  const who = fleet ? `${node.id} · ` : "";
  setText(byId("node"), `${who}version ${node.version} · up ${span(up)}${fleet}`);
}

function showVerdicts({ messages, threats }) {
  setText(byId("total"), number(messages));
  const rows = ["clean", "suspicious", "malicious"].map((verdict) => ({ verdict, count: threats[verdict] ?? 0 }));
  const judged = rows.reduce((sum, row) => sum + row.count, 0);
  const bar = byId("verdict-bar");
  bar.setAttribute(
    "aria-label",
    judged ? rows.map((row) => `${number(row.count)} ${row.verdict}`).join(", ") : "No verdicts yet",
  );
  show(bar, rows.filter((row) => row.count), {
    key: (row) => row.verdict,
    signature: () => "",
    render: (row) => h("span", { "data-tone": verdictWords(row.verdict)[0] }),
    update: (part, row) => (part.style.flexGrow = String(row.count)),
  });
  show(byId("verdict-legend"), rows, {
    key: (row) => row.verdict,
    render: (row) => h("li", { "data-tone": verdictWords(row.verdict)[0] }, `${number(row.count)} ${row.verdict}`),
  });
}

function figuresOf(list, rows) {
  show(list, rows, {
    key: ([name]) => name,
    render: ([name, value, tone]) => h("div", { "data-tone": tone }, h("dt", {}, name), h("dd", {}, number(value))),
  });
}

function showQueue(queue) {
  figuresOf(byId("queue"), [
    ["Waiting", queue.pending],
    ["Running", queue.processing, queue.processing ? "busy" : null],
    ["Completed", queue.completed],
    ["Failed", queue.failed, queue.failed ? "bad" : null],
  ]);
  const oldest = queue.oldestSeconds;
  const nothing = queue.pending ? "Waits for the next attempt" : "Nothing waits";
  setText(byId("queue-age"), oldest === null || oldest === undefined ? nothing : `Oldest waits ${span(oldest)}`);
  const paused = queue.paused ?? [];
  byId("paused").hidden = !paused.length;
  setText(byId("paused"), `Paused: ${paused.join(", ")}`);
  byId("retry").hidden = !queue.failed;

  if (completedBefore !== null) samples.push(Math.max(0, queue.completed - completedBefore));
  completedBefore = queue.completed;
  if (samples.length > SAMPLES) samples.shift();
  drawSamples();
}

function drawSamples() {
  const picture = byId("spark");
  picture.setAttribute("viewBox", `0 0 ${SAMPLES} 10`);
  const top = Math.max(1, ...samples);
  picture.replaceChildren(
    ...samples.map((value, place) => {
      const bar = document.createElementNS("http://www.w3.org/2000/svg", "rect");
      const height = value ? Math.max(1, (value / top) * 9.5) : 0.25;
      const box = { x: SAMPLES - samples.length + place + 0.15, y: 10 - height, width: 0.7, height };
      for (const [name, number] of Object.entries(box)) bar.setAttribute(name, String(number));
      return bar;
    }),
  );
  const done = samples.reduce((sum, value) => sum + value, 0);
  const words = samples.length < 2 ? "Jobs done while this page is open" : `${plural(done, "job")} done while this page is open`;
  setText(byId("spark-words"), words);
  picture.setAttribute("aria-label", words);
}

function showDeliveries(deliveries) {
  figuresOf(byId("deliveries"), [
    ["Delivered", deliveries.delivered],
    ["Waiting", deliveries.pending + deliveries.sending],
    ["Failed", deliveries.failed, deliveries.failed ? "bad" : null],
  ]);
  const any = Object.values(deliveries).some((value) => value > 0);
  setText(
    byId("deliveries-words"),
    any ? "To webhooks and other destinations" : "Nothing delivered yet. Add [destinations.…] to the configuration to be told.",
  );
}
