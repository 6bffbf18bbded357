// The list of the newest messages.

import { coalesced, get } from "./client.js";
import { byId, h, show } from "./dom.js";
import { openMessage } from "./panel.js";
import { FOR_ASSISTANTS } from "./verdict.js";
import { addressWords, exactly, humanise, neutral, since, statusWords, verdictSentence, verdictWords } from "./words.js";

const PAGE = 30;
const MOST = 300;

const list = byId("message-list");
let filter = "";
let wanted = PAGE;
let shownFor = null; // the filter of what the list shows now; null before the first answer

/** Asks again for as many messages as are shown. */
export const refreshMessages = coalesced(async () => {
  const asked = filter;
  const answer = await get(`/v1/messages?pageSize=${wanted}${asked ? `&${asked}` : ""}`);
  if (asked !== filter) return; // another filter was chosen meanwhile; its own answer follows
  const fresh = show(list, answer.messages, { key, render: row, update: (item, message) => tellTime(item, message) });
  if (shownFor === filter) for (const item of list.children) item.classList.toggle("fresh", fresh.includes(item.dataset.key));
  shownFor = filter;
  list.setAttribute("aria-busy", "false");
  byId("older").hidden = answer.nextCursor === null || wanted >= MOST;
  showEmpty(answer.messages.length === 0);
});

const key = (message) => `${message.account}/${message.id}/${message.path}/${message.uid}`;

const ask = () => refreshMessages().catch(() => {}); // the banner tells of a service that does not answer

byId("older").addEventListener("click", () => {
  wanted = Math.min(MOST, wanted + PAGE);
  ask();
});

byId("filter").addEventListener("click", ({ target }) => {
  if (target.dataset.filter === undefined) return;
  for (const button of byId("filter").children) button.setAttribute("aria-pressed", String(button === target));
  filter = target.dataset.filter;
  wanted = PAGE;
  ask();
});

function showEmpty(isEmpty) {
  const empty = byId("no-messages");
  empty.hidden = !isEmpty;
  if (!isEmpty) return;
  const words = {
    "": ["No messages yet.", "They appear here as soon as an account has synced. An account that cannot log in says why on its card."],
    "status=failed": ["Nothing has failed.", "Work that fails for good is kept here, and can be retried."],
  }[filter] ?? ["None found.", "No message carries this verdict."];
  empty.replaceChildren(h("p", {}, h("strong", {}, words[0])), h("p", {}, words[1]));
}

function row(message) {
  const [tone, words] = message.threat ? verdictWords(message.threat.verdict) : ["idle", "Not scanned yet"];
  const [statusTone, status] = statusWords(message.status);
  const from = message.from;
  return h(
    "li",
    {},
    h(
      "button",
      { type: "button", class: "message", "data-tone": tone, onclick: () => openMessage(message.account, message.id) },
      h(
        "span",
        { class: "sender" },
        h("b", {}, neutral(from?.name || from?.address) || "Unknown sender"),
        from?.name ? h("span", {}, neutral(from.address)) : null,
      ),
      h("time", { datetime: message.date, title: exactly(message.date) }),
      h("span", { class: "subject", title: addressWords(from) }, neutral(message.subject) || "(no subject)"),
      h(
        "span",
        { class: "verdict pill", "data-tone": tone, title: message.threat ? `${verdictSentence(message.threat)} Score of 100.` : null },
        message.threat ? `${words} ${Math.round(message.threat.score)}` : words,
      ),
      message.summary ? h("span", { class: "summary" }, neutral(message.summary)) : null,
      h(
        "span",
        { class: "chips" },
        message.threat?.promptInjection ? h("span", { class: "pill", "data-tone": "warn", title: FOR_ASSISTANTS }, "Speaks to assistants") : null,
        message.category ? h("span", { class: "chip" }, humanise(message.category)) : null,
        message.status === "completed" ? null : h("span", { class: "pill status", "data-tone": statusTone }, status),
        message.historical ? h("span", { class: "chip", title: "It was on the server before the account was added" }, "Earlier mail") : null,
        h("span", { class: "place" }, `${message.account} / ${message.path ?? "no mailbox"}`),
      ),
    ),
  );
}

function tellTime(item, message) {
  if (message.date) since(item.querySelector("time"), Date.parse(message.date));
}
