// The card in the middle: what is going on while there is no picture, or why there will be none.

import { duration } from "./words.js";

const CLOCK_EVERY = 100;   // ms

export class Card {
  #parts;
  #ticker = null;
  #labels = "";
  #anchor = { mark: 0, at: 0 };     // `mark` milliseconds of opening had gone by at `at`

  constructor(root) {
    const part = (id) => root.ownerDocument.getElementById(id);
    this.#parts = {
      mark: part("card-mark"), title: part("card-title"), clock: part("card-clock"), stages: part("stages"),
      text: part("card-text"), next: part("card-next"), actions: part("card-actions"),
    };
  }

  /** tone: wait, calm, warn or bad. stages: session.js. actions: [{label, run, primary}]. All of it is shown as text. */
  show({ tone, title, text = "", next = "", stages = [], failed = false, actions = [] }) {
    const { mark, title: head } = this.#parts;
    this.hide();
    mark.className = `mark ${tone}`;
    mark.replaceChildren(...(tone === "wait" ? [] : [icon(`i-${tone}`)]));
    setText(head, title);
    setLine(this.#parts.text, text);
    setLine(this.#parts.next, next);
    this.#stages(stages, failed);
    this.#actions(actions);
  }

  /** Out of sight: its clock need not run. */
  hide() {
    clearInterval(this.#ticker);
    this.#ticker = null;
  }

  /** For a screen reader, and so that Tab goes on from here. */
  focus() {
    this.#parts.title.focus();
  }

  #stages(stages, failed) {
    const { stages: list, clock } = this.#parts;
    list.hidden = stages.length === 0;
    clock.textContent = "";
    let running = null;
    list.replaceChildren(...stages.map((stage) => {
      const kind = kindOf(stage, failed);
      const time = element("span", "time", stage.done !== null ? duration(stage.done - stage.begun) : "");
      const item = element("li", kind);
      item.append(element("span", "sign"), element("span", "label", stage.label), time);
      if (kind === "failed") item.append(element("span", "unseen", "failed")); // for who does not see the sign
      if (kind === "now") {
        running = { time, begun: stage.begun };
        item.setAttribute("aria-current", "step");
      }
      return item;
    }));
    const last = stages.at(-1);
    if (last) this.#startClock(last.done ?? last.begun, failed, running);
  }

  /** Counts on from what the server last told, so that somebody who waits sees that time is being kept. */
  #startClock(told, stopped, running) {
    if (stopped) return;
    const gone = () => this.#anchor.mark + performance.now() - this.#anchor.at;
    if (this.#anchor.at === 0 || gone() < told) this.#anchor = { mark: told, at: performance.now() };
    const tick = () => {
      this.#parts.clock.textContent = duration(gone());
      if (running) running.time.textContent = duration(gone() - running.begun);
    };
    tick();
    this.#ticker = setInterval(tick, CLOCK_EVERY);
  }

  /** The same buttons as before stay where they are, with the focus that one of them may have. */
  #actions(actions) {
    const { actions: row } = this.#parts;
    const labels = JSON.stringify(actions.map(({ label }) => label));
    if (labels === this.#labels) return;
    this.#labels = labels;
    row.replaceChildren(...actions.map(button));
    row.hidden = actions.length === 0;
  }
}

function kindOf(stage, failed) {
  if (stage.failed) return "failed";
  if (stage.done === null) return failed ? "failed" : "now";
  return stage.turns ? "turned" : "done";
}

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function setLine(node, text) {
  setText(node, text);
  node.hidden = text === "";
}

function element(name, className, text = "") {
  const node = document.createElement(name);
  node.className = className;
  node.textContent = text;
  return node;
}

function button({ label, run, primary = false }) {
  const node = element("button", primary ? "button primary" : "button", label);
  node.type = "button";
  node.addEventListener("click", run);
  return node;
}

function icon(name) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  const use = document.createElementNS(space, "use");
  use.setAttribute("href", `#${name}`);
  svg.append(use);
  return svg;
}
