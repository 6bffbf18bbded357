// The side panel with one message. Mail is shown as text only: not even sanitised HTML becomes part of this page.

import { get, messagePath, post } from "./client.js";
import { byId, h } from "./dom.js";
import { verdictBox } from "./verdict.js";
import { addressWords, duration, exactly, humanise, neutral, plural, size, statusWords } from "./words.js";

const panel = byId("panel");
let opened = null; // which message is wanted; an answer that comes later than the next click is dropped

byId("panel-close").addEventListener("click", () => panel.close());
panel.addEventListener("click", (event) => event.target === panel && panel.close());
panel.addEventListener("close", () => {
  if (panel.open) return; // the event comes late: meanwhile another message was opened
  opened = null;
  history.replaceState(null, "", location.pathname);
});

/** Opens the message that the address names, if it names one. */
export function openFromAddress() {
  const [account, id] = location.hash.slice(1).split("/").map(decodeURIComponent);
  if (account && id) openMessage(account, id);
}

export async function openMessage(account, id) {
  const path = messagePath(account, id);
  opened = path;
  byId("panel-subject").textContent = "Loading…";
  byId("panel-body").replaceChildren();
  if (!panel.open) panel.showModal();
  history.replaceState(null, "", `#${encodeURIComponent(account)}/${encodeURIComponent(id)}`);
  try {
    const [message, ledger] = await Promise.all([get(path), get(`${path}/processing`)]);
    if (opened === path) showMessage(message, ledger, path);
  } catch (error) {
    if (opened !== path) return;
    byId("panel-subject").textContent = "This message cannot be shown";
    byId("panel-body").replaceChildren(h("p", {}, error.message));
  }
}

function showMessage(message, ledger, path) {
  byId("panel-subject").textContent = neutral(message.subject) || "(no subject)";
  byId("panel-body").replaceChildren(
    ...[verdictBox(message), facts(message), work(message, ledger), text(message), attachments(message), results(ledger), headers(message), actions(path)].filter(Boolean),
  );
  panel.scrollTop = 0;
}

const section = (title, ...parts) => h("section", {}, h("h3", {}, title), ...parts);
const people = (addresses) => (addresses ?? []).map(addressWords).join(", ");

function facts(message) {
  const places = (message.places ?? []).map((place) => place.path).join(", ") || "no mailbox any more";
  const rows = [
    ["From", addressWords(message.from)],
    ["To", people(message.to)],
    ["Cc", people(message.cc)],
    ["Reply to", people(message.replyTo)],
    ["Date", exactly(message.date)],
    ["In", `${message.account} / ${places}`],
    ["Category", message.category ? humanise(message.category) : ""],
    ["Summary", neutral(message.summary)],
  ];
  return h("dl", { class: "facts" }, ...rows.filter(([, value]) => value).flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
}

function text({ text: body }) {
  const plain = body?.plain?.trim() ? body.plain : "";
  const shown = plain || asText(body?.html ?? "");
  return section(
    "Text",
    plain || !shown ? null : h("p", { class: "note" }, "This message came as HTML; only its words are shown."),
    shown ? h("pre", { class: "body-text", tabindex: "0" }, shown) : h("p", { class: "note" }, "There is no text in this message."),
    body?.hasMore ? h("p", { class: "note" }, "The text is longer; the source has all of it.") : null,
  );
}

/** The words of an HTML body. A document made by DOMParser runs nothing and loads nothing, and only its text leaves it. */
function asText(html) {
  const parsed = new DOMParser().parseFromString(html, "text/html");
  for (const unseen of parsed.querySelectorAll("script, style, template, title")) unseen.remove();
  for (const block of parsed.querySelectorAll("p, div, br, li, tr, h1, h2, h3, h4, h5, h6")) block.append("\n");
  for (const line of parsed.querySelectorAll("br")) line.replaceWith("\n");
  return (parsed.body?.textContent ?? "").replace(/[ \t]+/g, " ").replace(/\s*\n\s*\n\s*/g, "\n\n").trim();
}

function attachments({ attachments: files }) {
  if (!files?.length) return null;
  const file = ({ filename, contentType, sizeBytes, size: bytes, encodedSize, inline }) =>
    h(
      "li",
      {},
      h("span", {}, neutral(filename) || "(no name)"),
      h("span", { class: "muted" }, [contentType, size(sizeBytes ?? bytes ?? encodedSize), inline ? "inline" : ""].filter(Boolean).join(" · ")),
    );
  return section(plural(files.length, "attachment"), h("ul", { class: "plain files" }, ...files.map(file)));
}

function work({ status, id }, { work: rows }) {
  if (!rows.length) return null;
  const failed = rows.some((row) => row.state === "failed");
  const outcome = h("p", { class: "note", role: "status" });
  const again = async (event) => {
    event.target.disabled = true;
    try {
      const { retried } = await post("/v1/queue/retry", { messageIds: [id] });
      outcome.textContent = retried ? "It is in the queue again." : "Nothing of it is failed any more.";
    } catch (error) {
      outcome.textContent = error.message;
      event.target.disabled = false;
    }
  };
  const [tone, words] = statusWords(status);
  return section(
    "Processing",
    h("p", {}, h("span", { class: "pill", "data-tone": tone }, words)),
    ...rows.map((row) =>
      h(
        "div",
        {},
        h("p", { class: "note" }, [`${humanise(row.processor)}, version ${row.version}: ${row.state}`, `${plural(row.attempt, "failed run")}`, row.crashes ? plural(row.crashes, "crash", "crashes") : ""].filter(Boolean).join(", ")),
        errors(row),
      ),
    ),
    failed ? h("div", { class: "panel-actions" }, h("button", { type: "button", class: "small", onclick: again }, "Try again"), outcome) : null,
  );
}

/** What went wrong in the runs before, oldest first. */
function errors({ errors: rows }) {
  if (!rows.length) return null;
  const line = ({ at, kind, error }) => h("li", {}, h("span", { class: "muted small" }, `${exactly(at)} · ${kind}`), h("span", { class: "evidence" }, error));
  return h("ul", { class: "plain errors" }, ...rows.map(line));
}

function results({ results: rows }) {
  if (!rows.length) return null;
  const result = (row) =>
    h(
      "details",
      {},
      h(
        "summary",
        {},
        h("b", {}, humanise(row.processor)),
        h(
          "span",
          { class: "muted small" },
          [`version ${row.version}`, row.served ? "" : "replaced", duration(row.seconds), row.attempts > 1 ? plural(row.attempts, "run") : ""].filter(Boolean).join(" · "),
        ),
      ),
      h("p", { class: "muted small" }, exactly(row.finishedAt)),
      errors(row),
      h("pre", {}, typeof row.value === "string" ? row.value : JSON.stringify(row.value, null, 2)),
    );
  return section("Results", ...rows.map(result));
}

function headers({ headers: rows }) {
  const pairs = Array.isArray(rows)
    ? rows.map((row) => (Array.isArray(row) ? row : [row.name, row.value]))
    : Object.entries(rows ?? {});
  if (!pairs.length) return null;
  return h(
    "details",
    {},
    h("summary", {}, h("b", {}, "Headers"), h("span", { class: "muted small" }, String(pairs.length))),
    h("dl", { class: "facts headers" }, ...pairs.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, neutral(value))])),
  );
}

const actions = (path) =>
  h("p", { class: "panel-actions" }, h("a", { href: `${path}/source`, download: "" }, "Download the source"));
