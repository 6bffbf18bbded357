// Talks to the API. A session that has ended leads back to the login page.

const TIMEOUT_MS = 15_000;
const LOST_CURSOR = new Set(["cursorTooOld", "cursorAhead"]);

export class ApiError extends Error {
  constructor({ code, message, hint }) {
    super(hint ? `${message}. ${hint.charAt(0).toUpperCase()}${hint.slice(1)}.` : message);
    this.code = code;
  }
}

async function ask(path, { method = "GET", body, timeout = TIMEOUT_MS, signal } = {}) {
  const ends = [AbortSignal.timeout(timeout), signal].filter(Boolean);
  const response = await fetch(path, {
    method,
    signal: AbortSignal.any(ends),
    headers: body === undefined ? {} : { "Content-Type": "application/json" },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  if (response.status === 401) {
    location.assign("/login");
    return new Promise(() => {}); // the page is being left
  }
  if (response.status === 204) return null;
  const answer = await response.json();
  if (!response.ok) throw new ApiError(answer.error);
  return answer;
}

export const get = (path, options) => ask(path, options);
export const post = (path, body, options) => ask(path, { ...options, method: "POST", body });
export const messagePath = (account, id) => `/v1/account/${encodeURIComponent(account)}/message/${encodeURIComponent(id)}`;

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

function becomesVisible() {
  if (!document.hidden) return Promise.resolve();
  return new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true }));
}

/**
 * Follows the event log from `cursor()` for as long as the page lives: `onEvents(events)` for what happened, `onLost(error,
 * seconds)` when the service cannot be reached and how long until the next try, `onBack()` when it answers again.
 * A page that nobody sees asks nothing: browsers allow few connections to one host, and every tab would hold one.
 * It may have slept for longer than events are kept, or the database was restored meanwhile: then `restart()` gives the
 * cursor to go on from, and `onBack()` says that all must be looked at anew.
 */
export async function follow(start, { restart, onEvents, onLost, onBack }) {
  let cursor = start;
  let failures = 0;
  for (;;) {
    await becomesVisible();
    const hidden = new AbortController();
    const hide = () => document.hidden && hidden.abort();
    document.addEventListener("visibilitychange", hide);
    try {
      cursor ??= await restart();
      const wait = failures ? 0 : 25;
      const answer = await get(`/v1/events?after=${encodeURIComponent(cursor)}&limit=200&wait=${wait}`, {
        timeout: 40_000,
        signal: hidden.signal,
      });
      cursor = answer.cursor;
      if (failures) onBack();
      failures = 0;
      if (answer.events.length) onEvents(answer.events);
    } catch (error) {
      if (LOST_CURSOR.has(error.code)) {
        cursor = null;
        failures ||= 1; // so that being back is told
      } else if (!hidden.signal.aborted) {
        failures += 1;
        const seconds = Math.min(15, 2 ** (failures - 1));
        onLost(error, seconds);
        await pause(seconds * 1000);
      }
    } finally {
      document.removeEventListener("visibilitychange", hide);
    }
  }
}

/** Runs `work` at most once at a time; asked again meanwhile, once more afterwards. */
export function coalesced(work) {
  let running = null;
  let again = false;
  return function run() {
    if (running) {
      again = true;
      return running;
    }
    running = work().finally(() => {
      running = null;
      if (again) {
        again = false;
        run().catch(() => {}); // whoever asked last has the answer of the run before; the next poll tells of a failure
      }
    });
    return running;
  };
}
