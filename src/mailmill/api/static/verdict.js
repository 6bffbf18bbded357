// The verdict on a message, for a person who is no expert: what it means, why, and what was seen. Evidence and reasons
// come from outside: they are text, with the characters that turn text around made visible.

import { h } from "./dom.js";
import { familyWords, humanise, neutral, plural, verdictAdvice, verdictSentence, verdictWords } from "./words.js";

const MOST = 5; // findings shown at once; a message made of nothing but tricks has thirty

const NOTHING = "Nothing found. That is no promise: a plain lie leaves nothing to be seen.";

export const FOR_ASSISTANTS =
  "This message holds text addressed to an AI assistant. Do not have one read it or sum it up: it may do what the text says.";

/** The box at the head of a message. `threat` is null before the scan; results of its version 1 have no reasons. */
export function verdictBox({ threat }) {
  if (!threat) {
    return box("idle", mark("idle", "Not scanned yet"), h("p", { class: "note" }, "Nobody knows yet whether it is a threat: open it again in a moment."));
  }
  const [tone, words] = verdictWords(threat.verdict);
  const advice = verdictAdvice(threat);
  return box(
    tone,
    mark(tone, words),
    h("p", { class: "sentence" }, verdictSentence(threat)),
    advice ? h("p", { class: "advice" }, advice) : null,
    scoreBar(threat.score),
    threat.promptInjection ? h("p", { class: "for-assistants" }, FOR_ASSISTANTS) : null,
    seen(threat),
  );
}

const box = (tone, ...parts) => h("section", { class: "verdict-box", "data-tone": tone, "aria-label": "Verdict" }, ...parts);
const mark = (tone, words) => h("p", { class: "verdict mark", "data-tone": tone }, words);

function scoreBar(score) {
  const shown = Math.round(score);
  const filled = h("span", {});
  filled.style.width = `${Math.min(100, Math.max(0, score))}%`;
  const words = `Score ${shown} of 100`;
  return h(
    "div",
    { class: "score" },
    h("div", { class: "score-bar", role: "meter", "aria-label": "Score", "aria-valuemin": 0, "aria-valuemax": 100, "aria-valuenow": shown, "aria-valuetext": words }, filled),
    h("span", { "aria-hidden": "true" }, words),
  );
}

function seen({ verdict, findings = [], reasons = [] }) {
  if (!findings.length) return verdict === "clean" ? h("p", { class: "note" }, NOTHING) : null;
  const counted = findings.filter(({ score }) => score !== 0);
  const remarks = findings.filter(({ score }) => score === 0);
  // Reasons stand in the order of the findings that count, each once: where two share their words, they go on their own.
  const paired = reasons.length === counted.length;
  const rows = counted.map((one, place) => finding(one, paired ? reasons[place] : null));
  const open = verdict === "clean" ? 0 : MOST;
  return [
    paired || !reasons.length ? null : h("ul", { class: "reasons" }, ...reasons.map((reason) => h("li", { dir: "auto" }, neutral(reason)))),
    open && rows.length ? h("h3", {}, "What speaks against it") : null,
    open && rows.length ? list(rows.slice(0, open)) : null,
    folded(open ? `${plural(rows.length - open, "more finding")}` : `${plural(rows.length, "small thing")} found`, rows.slice(open)),
    folded(`${plural(remarks.length, "remark")} that ${remarks.length === 1 ? "counts" : "count"} nothing`, remarks.map((one) => finding(one, null))),
  ];
}

const list = (rows) => h("ul", { class: "plain findings" }, ...rows);
const folded = (title, rows) => (rows.length ? h("details", {}, h("summary", {}, title), list(rows)) : null);

function finding({ id, family, severity, score, evidence }, reason) {
  const name = humanise(id.startsWith(`${family}.`) ? id.slice(family.length + 1) : id);
  const points = Math.round(Math.abs(score));
  const counts = score === 0 ? null : `${score < 0 ? "−" : ""}${plural(points, "point").replace(" ", "\u00a0")}`;
  return h(
    "li",
    { title: id },
    h("b", { dir: "auto" }, reason ? neutral(reason) : name),
    evidence ? h("span", { class: "evidence", dir: "auto" }, neutral(evidence)) : null,
    h("span", { class: "weight" }, [familyWords(family), severity === "info" ? null : `${severity} severity`, counts].filter(Boolean).join(" · ")),
  );
}
