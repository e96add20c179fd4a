// Wires the page together: what the line says is shown on the status line, the card and the bar.

import { Card } from "./card.js";
import { Clipboard } from "./clipboard.js";
import { Keys, keepRepeatsFrom, onWayOut } from "./keys.js";
import { Line } from "./line.js";
import { Notice, Remark } from "./notice.js";
import { People, nameAtStart, otherInControl, whoSteers } from "./people.js";
import { Retry } from "./retry.js";
import { Screen } from "./screen.js";
import { Session } from "./session.js";
import { SoftKeys } from "./softkeys.js";
import { Toolbar } from "./toolbar.js";
import { Typing } from "./typing.js";
import { explain, refusal, span, stateWord } from "./words.js";

const part = (id) => document.getElementById(id);

const session = new Session();
const screen = new Screen(part("screen"));
const retry = new Retry();
const card = new Card(part("card"));
const keys = new Keys(screen);
const clipboard = new Clipboard({
  panel: part("clipboard-panel"), hint: part("clipboard-hint"), note: part("clipboard-note"),
  to: part("clipboard-to"), out: part("clipboard-out"), send: part("clipboard-send"), read: part("clipboard-read"),
  from: part("clipboard-from"), in: part("clipboard-in"), copy: part("clipboard-copy"), badge: part("clipboard-badge"),
}, screen);
const remark = new Remark(part("remark"));
const people = new People(part("people"));

let status = null;           // the last that the server told
let phase = "starting";      // starting, opening, connecting, connected, reconnecting or over
let steered = false;         // this viewer had control when it was last looked at
let closedByUs = false;

const AWAY = "agent-away";
let again = null;            // somebody who was told that there is no screen wants another try

const WAITING = {
  "unreachable": "The connection was lost. The console keeps running meanwhile.",
  "no-screen": "The server answers, but the screen is not there yet.",
  "no-display": "The server answers, but the screen is not there yet.",
};

const toolbar = new Toolbar(part, {
  screen, keys, clipboard,
  close: async () => {
    closedByUs = true;
    try {
      await session.close();
      retry.now();
      again?.();
    } catch (error) {
      closedByUs = false;
      throw error;
    }
  },
  take: async () => {
    try {
      await session.takeControl();
    } catch (error) {
      remark.say(refusal(error, "Control could not be taken: no answer came."));
    }
  },
  textOpened: () => typing.opened(),
});
const typing = new Typing({
  buttons: [...document.querySelectorAll("[data-types]")], box: part("text-box"), type: part("text-type"),
  note: part("text-note"), row: part("typing"), text: part("typing-text"), count: part("typing-count"),
  progress: part("typing-progress"), stop: part("typing-stop"),
}, session, {
  say: (words) => remark.say(words),
  back: () => {
    toolbar.closePanels();
    screen.focus();
  },
});
const notice = new Notice({
  box: part("notice"), text: part("notice-text"), clock: part("notice-clock"), stay: part("notice-stay"),
}, async () => {
  screen.focus();
  await session.stay();
});
new SoftKeys(part("soft"), part("type-button"), screen);

/** Enter a phase; `state` is what is said about it, and `more`; `count` is only seen, not spoken. */
function enter(next, { state = stateWord(next), more = "", count = "", tone = "" } = {}) {
  phase = next;
  document.body.dataset.phase = next;
  document.body.dataset.tone = tone;
  const device = status?.device || "Console";
  say(part("device"), device);
  say(part("state-word"), more ? `${state} · ` : state);
  say(part("state-more"), more);
  say(part("count"), count);
  say(document.head.querySelector("title"), `${device} – ${part("state").textContent}`);
  const live = next === "connected";
  screen.steers = status?.acts ?? false;
  if (!screen.steers) keys.forget();
  const closable = status !== null && (next !== "over" || again !== null);
  document.body.toggleAttribute("data-closable", closable);
  toolbar.set({ live, closable, status });
  notice.update(live ? status : null);
  typing.update(live ? status : null);
  if (next === "over") remark.clear();
  if (live) lookWhoSteers();
}

/** Say so when somebody else has taken control from this viewer. */
function lookWhoSteers() {
  people.show(status);
  const other = otherInControl(status);
  if (steered && other) remark.say(`${nameAtStart(other)} took control. You are watching now.`);
  if (!steered && status.steers) remark.clear();
  steered = status.steers;
}

function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function connectedState() {
  if (status.state !== "ready") return { state: stateWord(status.state) };
  const more = whoSteers(status);
  if (status.viewers > 1 && status.people.length < 2) more.push(`${status.viewers} viewers`);  // or the bar shows it
  return { more: more.join(" · ") };
}

const view = {
  begin() {
    enter("starting");
    card.show({ tone: "wait", title: "Loading the console" });
  },

  status(news) {
    status = news;
    clipboard.update(news);
    if (phase === "connected") {
      enter("connected", connectedState());
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
    enter("connected", connectedState());
    card.hide();
    screen.focus();
    clipboard.connected();
  },

  waiting({ cause, attempt, left }) {
    const words = cause === AWAY ? explain(AWAY) : {
      title: status ? "Connecting again" : "Looking for the console server",
      text: WAITING[cause],
      next: `Attempt ${attempt}. It goes on by itself for about two minutes.`,
    };
    enter("reconnecting", { count: `in ${Math.ceil(left / 1000)} s` });
    card.show({ ...words, tone: "wait", actions: [{ label: "Try now", run: () => line.hurry(), primary: true }] });
  },

  gaveUp(cause, message) {
    const words = explain(cause, { message });
    return new Promise((resolve) => {
      again = () => {
        again = null;
        view.begin();
        resolve();
      };
      enter("over", { state: "Not connected", tone: words.tone });
      card.show({ ...words, actions: [{ label: "Try again", run: again, primary: true }] });
      card.focus();
    });
  },

  over({ code, message, hint }) {
    const mine = closedByUs && (code === "viewer" || code === "closed");
    const words = explain(mine ? "mine" : code, { message, hint, idle: status?.idle });
    screen.clear();
    if (document.fullscreenElement) document.exitFullscreen();
    const refused = ["used-link", "used-link-no-memory", "no-link", "expired", "revoked", "forbidden"].includes(code);
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
keepRepeatsFrom(part("screen"));
part("screen").addEventListener("focus", () => screen.focus());

try {
  await line.run();
} catch (error) {
  console.error(error);
  view.over({ code: "page-fault" });
}
