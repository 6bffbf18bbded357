// The cards of the accounts.

import { post } from "./client.js";
import { byId, h, setText, show } from "./dom.js";
import { accountState, duration, number, plural, since } from "./words.js";

const SHOWN_AT_FIRST = 8;
const FIRST = ["authenticationError", "connectError", "disconnected", "syncing", "connecting", "init"];

let all = false;
let latest = [];
let here = null; // the node that answers, where there are others

byId("all-accounts").addEventListener("click", () => {
  all = true;
  draw();
});

/** Those that need somebody first, then by name; a fleet is cut short until it is asked for. */
export function showAccounts(accounts, { node, nodes = [] }) {
  latest = accounts;
  here = nodes.length > 1 ? node.id : null;
  draw();
}

/** How it goes with an account that another node keeps, only that node can say. */
const isElsewhere = (account) => here !== null && account.node !== here;

function draw() {
  const accounts = latest;
  const rank = ({ state }) => (FIRST.includes(state) ? FIRST.indexOf(state) : FIRST.length);
  const sorted = [...accounts].sort((a, b) => rank(a) - rank(b) || a.account.localeCompare(b.account));
  const shown = all ? sorted : sorted.slice(0, SHOWN_AT_FIRST);
  show(byId("accounts"), shown, { key: (account) => account.account, signature, render: card, update });
  byId("no-accounts").hidden = accounts.length > 0;
  setText(byId("accounts-count"), accounts.length ? plural(accounts.length, "account") : "");
  const more = byId("all-accounts");
  more.hidden = shown.length === accounts.length;
  setText(more, `Show all ${number(accounts.length)} accounts`);
}

const signature = ({ account, email, state, stateReason, push, pushedMailbox, sweepSeconds, progress, backlog, node }) =>
  JSON.stringify([account, email, state, stateReason, push, pushedMailbox, sweepSeconds, Boolean(progress), backlog, node, here]);

const fact = (name, part, kind = "") => h("div", { class: kind }, h("dt", {}, name), h("dd", { "data-part": part }));

function card(account) {
  const [tone, words] = accountState(account.state);
  const elsewhere = isElsewhere(account);
  const outcome = h("p", { class: "muted", role: "status" });
  return h(
    "li",
    { class: "card account" },
    h(
      "header",
      {},
      h("h3", {}, account.account),
      h("span", { class: "pill", "data-tone": tone }, words),
      h("p", { class: "muted small email", title: account.email }, account.email),
    ),
    account.stateReason ? h("p", { class: "reason", "data-tone": tone }, account.stateReason) : null,
    account.progress
      ? h(
          "div",
          { class: "progress" },
          h("progress", { "aria-label": `First sync of ${account.account}`, max: 1, value: 0 }),
          h("p", {}, h("span", {}, "First sync"), h("span", { "data-part": "progress" })),
        )
      : null,
    h(
      "dl",
      {},
      fact("Messages", "messages"),
      fact("Mailboxes", "mailboxes"),
      elsewhere ? null : [fact("Last full pass", "sync", "whole"), fact("Last answer", "answer", "whole")],
    ),
    elsewhere ? h("p", { class: "muted small" }, nodeWords(account)) : null,
    h(
      "footer",
      {},
      elsewhere ? null : h("span", { class: "chip", title: pushTitle(account) }, account.push === "poll" ? "Polling" : "Push"),
      account.backlog === "store" ? h("span", { class: "chip", title: "Old mail is kept but not processed" }, "Old mail stored") : null,
      h("button", { type: "button", class: "quiet small", title: "Log in now, and say what the server answers", onclick: (event) => check(account, event.target, outcome) }, "Check login"),
      outcome,
    ),
  );
}

const nodeWords = ({ node }) => (node ? `Kept in sync by ${node}` : "No node keeps it in sync");

function pushTitle({ push, pushedMailbox, sweepSeconds }) {
  const every = sweepSeconds ? `every ${number(Math.round(sweepSeconds))} s` : "now and then";
  if (push === "notify") return `The server tells of news in all mailboxes at once (NOTIFY); all are looked at ${every}`;
  if (push === "idle") return `The server tells of news in ${pushedMailbox ?? "one mailbox"} at once (IDLE); the others are looked at ${every}`;
  return `The server has no push, or it fails: all mailboxes are looked at ${every}`;
}

function update(element, account) {
  const part = (name) => element.querySelector(`[data-part="${name}"]`);
  setText(part("messages"), number(account.messages));
  setText(part("mailboxes"), number(account.mailboxes));
  if (!isElsewhere(account)) {
    if (account.lastSyncAt) since(part("sync"), Date.parse(account.lastSyncAt));
    else setText(part("sync"), "not yet");
    const silent = account.secondsSinceLastRoundTrip;
    if (typeof silent === "number") since(part("answer"), Date.now() - silent * 1000);
    else setText(part("answer"), "none yet");
  }
  if (account.progress) {
    const { stored, total } = account.progress;
    const bar = element.querySelector("progress");
    bar.max = Math.max(1, total);
    bar.value = stored;
    setText(part("progress"), `${number(stored)} of ${number(total)}`);
  }
}

async function check(account, button, outcome) {
  button.disabled = true;
  outcome.textContent = "Connecting…";
  const began = performance.now();
  try {
    const answer = await post(`/v1/account/${encodeURIComponent(account.account)}/check`, {}, { timeout: 60_000 });
    outcome.textContent = answer.ok
      ? `Login works (${duration((performance.now() - began) / 1000)}, ${plural(answer.mailboxes, "mailbox", "mailboxes")})`
      : `${answer.error.message}. ${answer.error.hint}`;
  } catch (error) {
    outcome.textContent = error.message;
  }
  button.disabled = false;
}
