// Wires the page together: what the line says is shown on the status line, the card and the bar.

import { Card } from "./card.js";
import { Clipboard } from "./clipboard.js";
import { Keys, onWayOut } from "./keys.js";
import { Line } from "./line.js";
import { Notice } from "./notice.js";
import { Retry } from "./retry.js";
import { Screen } from "./screen.js";
import { Session } from "./session.js";
import { SoftKeys } from "./softkeys.js";
import { Toolbar } from "./toolbar.js";
import { explain, span, stateWord } from "./words.js";

const part = (id) => document.getElementById(id);

const session = new Session();
const screen = new Screen(part("screen"));
const retry = new Retry();
const card = new Card(part("card"));
const keys = new Keys(screen);
const clipboard = new Clipboard({
  panel: part("clipboard-panel"), hint: part("clipboard-hint"), out: part("clipboard-out"),
  send: part("clipboard-send"), read: part("clipboard-read"), in: part("clipboard-in"),
  copy: part("clipboard-copy"), note: part("clipboard-note"), badge: part("clipboard-badge"),
}, screen);

let status = null;           // the last that the server told
let phase = "starting";      // starting, opening, connecting, connected, reconnecting or over
let closedByUs = false;

const toolbar = new Toolbar(part, {
  screen, keys, clipboard,
  close: async () => {
    closedByUs = true;
    try {
      await session.close();
    } catch (error) {
      closedByUs = false;
      throw error;
    }
  },
});
const notice = new Notice({
  box: part("notice"), text: part("notice-text"), clock: part("notice-clock"), stay: part("notice-stay"),
}, async () => {
  screen.focus();
  await session.stay();
});
new SoftKeys(part("soft"), part("type-button"), screen);

/** Enter a phase; `state` is what is said about it, `count` is only seen, not spoken. */
function enter(next, { state = stateWord(next), count = "", tone = "" } = {}) {
  phase = next;
  document.body.dataset.phase = next;
  document.body.dataset.tone = tone;
  const device = status?.device || "Console";
  say(part("device"), device);
  say(part("state"), state);
  say(part("count"), count);
  say(document.head.querySelector("title"), `${device} – ${state}`);
  const steers = status?.control !== false;
  toolbar.set({ live: next === "connected", steers, closable: status !== null && next !== "over" });
  screen.steers = steers;
  notice.update(next === "connected" ? status : null);
}

function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function connectedState() {
  if (status.state !== "ready") return stateWord(status.state);
  const words = [stateWord("connected")];
  if (status.control === false) words.push("view only");
  if (status.viewers > 1) words.push(`${status.viewers} viewers`);
  return words.join(" · ");
}

const view = {
  begin() {
    enter("starting");
    card.show({ tone: "wait", title: "Loading the console" });
  },

  status(news) {
    status = news;
    if (phase === "connected") {
      enter("connected", { state: connectedState() });
    } else if (news.state === "opening") {
      const now = news.stages.find((stage) => stage.done === null);
      enter("opening", { state: now ? now.label : stateWord("opening") });
      card.show({
        tone: "wait",
        title: "Starting the console",
        stages: news.stages,
        next: news.idle ? `It closes by itself after ${span(news.idle)} without keys or mouse.` : "",
      });
    } else if (news.state === "closing") {
      enter("opening", { state: stateWord("closing") });
      card.show({ tone: "wait", title: "Closing the console", text: news.message });
    }
  },

  connecting() {
    const again = phase === "reconnecting";
    enter("connecting");
    if (!again) card.show({ tone: "wait", title: "Connecting to the screen", stages: status.stages });
  },

  connected() {
    enter("connected", { state: connectedState() });
    card.hide();
    screen.focus();
    clipboard.connected();
  },

  waiting({ cause, attempt, left }) {
    enter("reconnecting", { count: `in ${Math.ceil(left / 1000)} s` });
    card.show({
      tone: "wait",
      title: status ? "Connecting again" : "Looking for the console server",
      text: cause === "no-screen"
        ? "The server answers, but the screen is not there yet."
        : "The connection was lost. The console keeps running meanwhile.",
      next: `Attempt ${attempt}. It goes on by itself for about two minutes.`,
      actions: [{ label: "Try now", run: () => line.hurry(), primary: true }],
    });
  },

  gaveUp(cause) {
    const words = explain(cause);
    enter("over", { state: "Not connected", tone: "bad" });
    return new Promise((resolve) => {
      const again = () => {
        view.begin();
        resolve();
      };
      card.show({ ...words, actions: [{ label: "Try again", run: again, primary: true }] });
      card.focus();
    });
  },

  over({ code, message, hint }) {
    const mine = closedByUs && (code === "viewer" || code === "closed");
    const words = explain(mine ? "mine" : code, { message, hint, idle: status?.idle });
    screen.clear();
    if (document.fullscreenElement) document.exitFullscreen();
    const refused = ["used-link", "used-link-no-memory", "no-link", "expired", "forbidden"].includes(code);
    const broken = ["no-viewer", "page-fault"].includes(code);
    enter("over", { state: refused ? "No entry" : broken ? "Out of order" : "Closed", tone: words.tone });
    card.show({
      ...words,
      stages: words.tone === "bad" && status?.stages.some((stage) => stage.done === null) ? status.stages : [],
      failed: true,
      actions: broken ? [{ label: "Load again", run: () => location.reload(), primary: true }] : [],
    });
    card.focus();
  },
};

const line = new Line({ session, screen, retry, view });

window.addEventListener("online", () => line.hurry());
window.addEventListener("offline", () => line.hurry());
document.addEventListener("visibilitychange", () => { if (!document.hidden) line.hurry(); });
// A new link for this very console, put into the same window, changes only the fragment.
window.addEventListener("hashchange", () => { if (location.hash.startsWith("#t=")) location.reload(); });
onWayOut(window, () => toolbar.focus());
part("screen").addEventListener("focus", () => screen.focus());

try {
  await line.run();
} catch (error) {
  console.error(error);
  view.over({ code: "page-fault" });
}
