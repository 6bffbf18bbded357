// Starts the page and keeps it true: the event log says when to look again, a slow poll stands behind it.

import { showAccounts } from "./accounts.js";
import { ApiError, coalesced, follow, get, post } from "./client.js";
import { byId } from "./dom.js";
import { refreshMessages } from "./messages.js";
import { showStatus, showUnreachable } from "./overview.js";
import { showNodes } from "./nodes.js";
import { openFromAddress } from "./panel.js";
import { plural, tellAges } from "./words.js";

const POLL_MS = 3_000;
const SETTLE_MS = 150; // a burst of events becomes one look

const NOTICE_MS = 6_000;

const offline = byId("offline");
let reachable = true;

const refreshFigures = coalesced(async () => {
  const [status, { accounts }] = await Promise.all([get("/v1/status"), get("/v1/accounts")]);
  if (!reachable) return null; // the banner goes when the event log answers again
  showStatus(status);
  showNodes(status);
  showAccounts(accounts, status);
  return status;
});

function lost(error, seconds) {
  reachable = false;
  showUnreachable();
  offline.hidden = false;
  const what =
    error instanceof ApiError
      ? `mailmill answers with an error: ${error.message}`
      : "mailmill cannot be reached. Is `mailmill run` still running?";
  offline.textContent = `${what} What you see is how things stood before; next try in ${seconds} s.`;
}

function back() {
  reachable = true;
  offline.hidden = true;
  look();
}

const look = () => Promise.allSettled([refreshFigures(), refreshMessages()]);

let settling = null;
function onEvents(events) {
  settling ??= setTimeout(() => {
    settling = null;
    look();
  }, SETTLE_MS);
  const threats = events.filter((event) => event.event === "threatFound").length;
  const news = events.filter((event) => event.event === "messageNew").length;
  const told = [news ? plural(news, "new message") : "", threats ? plural(threats, "threat") + " found" : ""].filter(Boolean);
  if (told.length) byId("live").textContent = told.join(", ");
}

let noticed = null;
function notice(words) {
  byId("notice").textContent = words;
  clearTimeout(noticed);
  noticed = setTimeout(() => (byId("notice").textContent = ""), NOTICE_MS);
}

function button(id, work) {
  byId(id).addEventListener("click", async ({ currentTarget: pressed }) => {
    pressed.disabled = true;
    try {
      notice((await work()) ?? "");
    } catch (error) {
      notice(error.message);
    }
    pressed.disabled = false;
    look();
  });
}

button("sync", async () => {
  const answer = await post("/v1/sync", {}, { timeout: 300_000 });
  const fresh = answer.accounts.reduce((sum, account) => sum + account.new, 0);
  return `Synced in ${answer.seconds.toFixed(1)} s, ${plural(fresh, "new message")}`;
});
button("retry", async () => `${plural((await post("/v1/queue/retry", {})).retried, "job")} in the queue again`);
byId("logout").addEventListener("click", async () => {
  try {
    await post("/logout");
    location.assign("/login");
  } catch (error) {
    notice(error.message);
  }
});

setInterval(tellAges, 1_000);
setInterval(() => !document.hidden && reachable && refreshFigures().catch(() => {}), POLL_MS);

// Its cursor is older than all that is shown after it, so nothing falls between the look that follows and the first event.
const newestCursor = async () => (await get("/v1/status")).cursor ?? "0";

async function start() {
  for (let tries = 1; ; tries += 1) {
    try {
      return await newestCursor();
    } catch (error) {
      const seconds = Math.min(15, 2 ** (tries - 1));
      lost(error, seconds);
      await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
    }
  }
}

const cursor = await start();
back();
openFromAddress();
follow(cursor, { restart: newestCursor, onEvents, onLost: lost, onBack: back });
