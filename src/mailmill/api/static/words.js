// Values in words: states, verdicts, figures and times. Tones are good, busy, warn, bad and idle.

const ACCOUNT_STATES = {
  init: ["busy", "Starting"],
  connecting: ["busy", "Connecting"],
  syncing: ["busy", "Syncing"],
  connected: ["good", "Connected"],
  authenticationError: ["bad", "Login refused"],
  connectError: ["bad", "Unreachable"],
  paused: ["idle", "Paused"],
  disconnected: ["warn", "Disconnected"],
};

const VERDICTS = {
  clean: ["good", "Clean"],
  suspicious: ["warn", "Suspicious"],
  malicious: ["bad", "Malicious"],
};

const SENTENCES = {
  suspicious: "Be careful: this message shows signs of deceit.",
  malicious: "This message is very likely an attack.",
};
const ADVICE = {
  suspicious: "Do not do what it asks before you know from elsewhere that it is genuine.",
  malicious: "Do not answer, follow its links, open its files or call its numbers.",
};
const ODD_FROM = 10; // points, as in `mailmill threat explain`

const FAMILIES = {
  authentication: "Where it comes from",
  sender: "Sender",
  impersonation: "Posing as a company",
  padding: "Filling that hides the rest",
  domains: "Domain names",
  links: "Links",
  html: "How it is built",
  attachments: "Attached files",
  pictures: "Pictures and codes",
  language: "What it says",
  prompt_injection: "Text for assistants",
  own_rules: "Your own rules",
  engine: "The check itself",
};

const STATUSES = {
  pending: ["idle", "Waiting to be processed"],
  processing: ["busy", "Processing"],
  completed: ["good", "Processed"],
  failed: ["bad", "Processing failed"],
};

export const accountState = (state) => ACCOUNT_STATES[state] ?? ["idle", humanise(state)];
export const verdictWords = (verdict) => VERDICTS[verdict] ?? ["idle", humanise(verdict)];
export const familyWords = (family) => FAMILIES[family] ?? humanise(family);

/** What a verdict means, as `mailmill threat explain` says it. */
export function verdictSentence({ verdict, score }) {
  if (verdict !== "clean") return SENTENCES[verdict] ?? "";
  if (score >= ODD_FROM) return "Some things about this message are odd, but too few to call it suspicious.";
  return "Nothing about this message speaks of a threat.";
}

/** What to do about it, in the same words as there; "" where there is nothing to do. */
export const verdictAdvice = ({ verdict }) => ADVICE[verdict] ?? "";

export const statusWords = (status) => STATUSES[status] ?? ["idle", humanise(status)];

const ACRONYMS = /\b(spf|dkim|dmarc|arc|url|urls|html|ip|tls|dns|qr|id|idn|pdf)\b/gi;

/** `text_differs_from_target` or `textDiffers` → `Text differs from target`; `dmarc_failed` → `DMARC failed`. */
export function humanise(name) {
  const words = String(name ?? "").replace(/([a-z])([A-Z])/g, "$1 $2").replace(/[_.-]+/g, " ").trim().toLowerCase();
  return (words.charAt(0).toUpperCase() + words.slice(1)).replace(ACRONYMS, (acronym) => acronym.toUpperCase());
}

const figures = new Intl.NumberFormat();
export const number = (value) => (typeof value === "number" ? figures.format(value) : "–");
export const plural = (count, one, many = `${one}s`) => `${number(count)} ${count === 1 ? one : many}`;

export function size(bytes) {
  if (typeof bytes !== "number") return "";
  const units = ["bytes", "KB", "MB", "GB"];
  let step = 0;
  while (bytes >= 1000 && step < units.length - 1) {
    bytes /= 1000;
    step += 1;
  }
  return `${step && bytes < 10 ? bytes.toFixed(1) : Math.round(bytes)} ${units[step]}`;
}

/** A length of time, short: `3 s`, `12 min`, `5 h`, `4 d`. */
export function span(seconds) {
  if (typeof seconds !== "number" || !Number.isFinite(seconds)) return "–";
  if (seconds < 60) return `${Math.max(0, Math.round(seconds))} s`;
  if (seconds < 3600) return `${Math.round(seconds / 60)} min`;
  if (seconds < 48 * 3600) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} d`;
}

/** How long something took, told as exactly as it is of use: `2 ms`, `1.4 s`. */
export const duration = (seconds) =>
  typeof seconds !== "number" ? "" : seconds < 1 ? `${Math.max(1, Math.round(seconds * 1000))} ms` : `${seconds.toFixed(1)} s`;

const sameYear = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
const otherYear = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", year: "numeric" });
const exact = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "medium" });

/** `21 s ago`, `2 min ago`, then the date. */
export function ago(moment, now = Date.now()) {
  const seconds = (now - moment) / 1000;
  if (seconds < 5) return "just now";
  if (seconds < 36 * 3600) return `${span(seconds)} ago`;
  const date = new Date(moment);
  return (date.getFullYear() === new Date(now).getFullYear() ? sameYear : otherYear).format(date);
}

export const exactly = (iso) => (iso ? exact.format(new Date(iso)) : "");

/** Marks an element as telling an age; `tellAges` keeps it true. */
export function since(element, moment) {
  element.dataset.since = String(moment);
  element.textContent = ago(moment);
}

export function tellAges() {
  const now = Date.now();
  for (const element of document.querySelectorAll("[data-since]")) {
    const told = ago(Number(element.dataset.since), now);
    if (element.textContent !== told) element.textContent = told;
  }
}

// Control characters but tab and newline; what turns the reading direction around or closes off text; invisible tags.
// Marks of direction (U+200E, U+200F) stay: honest Arabic and Hebrew need them, and they cannot move other letters.
const TRICKS = /[\0-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufff9-\ufffb\u{e0000}-\u{e007f}]/gu;

/** A stranger's words as one line of a page may hold them: what would disguise them is shown as `\ufffd`. */
export const neutral = (text) => String(text ?? "").replace(TRICKS, "\ufffd");

export const addressWords = (address) =>
  !address ? "" : neutral(address.name ? `${address.name} <${address.address}>` : address.address);
