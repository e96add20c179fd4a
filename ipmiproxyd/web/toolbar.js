// The bar: its buttons, and the panels that hang under it.

import { CTRL_ALT_DEL, fillKeysPanel } from "./keys.js";

const VIEW = "ipmiproxyd.view";

/** At most one panel is open; Escape or a press elsewhere closes it. */
class Panels {
  #open = null;
  #bar;
  #after;

  constructor(bar, after) {
    this.#bar = bar;
    this.#after = after;
    document.addEventListener("pointerdown", ({ target }) => {
      if (this.#open && !this.#open.panel.contains(target) && !this.#open.button.contains(target)) this.close(false);
    }, { capture: true });
    document.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || !this.#open) return;
      if (!this.#open.panel.contains(event.target) && !this.#bar.contains(event.target)) return;
      event.stopPropagation();
      this.close();
    }, { capture: true });
  }

  add(button, panel, opened = () => {}) {
    button.addEventListener("click", () => {
      const wasOpen = this.#open?.panel === panel;
      this.close(wasOpen);
      if (wasOpen) return;
      this.#open = { button, panel };
      panel.hidden = false;
      button.setAttribute("aria-expanded", "true");
      this.#bar.classList.add("open");
      opened();
    });
  }

  /** refocus: give the keyboard back to the screen. */
  close(refocus = true) {
    if (!this.#open) return;
    this.#open.panel.hidden = true;
    this.#open.button.setAttribute("aria-expanded", "false");
    this.#bar.classList.remove("open");
    this.#open = null;
    if (refocus) this.#after();
  }
}

export class Toolbar {
  #part;
  #screen;
  #panels;

  /** keys: Keys; clipboard: Clipboard; close: async function that closes the console, throwing with a message. */
  constructor(part, { screen, keys, clipboard, close }) {
    this.#part = part;
    this.#screen = screen;
    this.#panels = new Panels(part("bar"), () => screen.focus());
    part("ctrl-alt-del").addEventListener("click", () => keys.press(CTRL_ALT_DEL));
    fillKeysPanel(part("keys-panel"), part("keys-badge"), keys);
    this.#panels.add(part("keys-button"), part("keys-panel"));
    this.#panels.add(part("clipboard-button"), part("clipboard-panel"), () => clipboard.opened());
    this.#view();
    this.#fullScreen();
    this.#closing(close);
    // A press on these leaves the keyboard where it is, on the screen; held keys stay held.
    for (const place of [part("bar"), part("keys-panel")]) {
      place.addEventListener("mousedown", (event) => { if (event.target.closest("button")) event.preventDefault(); });
    }
  }

  /** phase: see app.js. steers: this viewer may use keyboard and pointer, and close. */
  set({ live, steers, closable }) {
    for (const tool of document.querySelectorAll(".tool.live")) tool.disabled = !live;
    for (const tool of document.querySelectorAll(".tool.steer")) tool.hidden = !steers;
    this.#part("close-button").hidden = !(steers && closable);
    if (!live) this.closePanels(["keys-panel", "clipboard-panel"]);
    if (!closable) this.closePanels(["close-panel"]);
  }

  closePanels(ids) {
    if (ids.some((id) => !this.#part(id).hidden)) this.#panels.close(false);
  }

  /** Give the keyboard to the controls. */
  focus() {
    const first = [...document.querySelectorAll(".bar .tool")].find((tool) => !tool.disabled && tool.offsetParent);
    first?.focus({ focusVisible: true });
  }

  #view() {
    const [fit, pan] = [this.#part("fit-button"), this.#part("pan-button")];
    const coarse = matchMedia("(any-pointer: coarse)");
    const show = () => {
      const view = this.#screen.view;
      fit.setAttribute("aria-pressed", String(view.fit));
      fit.title = view.fit
        ? "The picture fits the window. Press for its own size."
        : "The picture has its own size. Press to fit the window.";
      this.#part("fit-label").textContent = view.fit ? "Fit" : "1:1";
      pan.hidden = view.fit || !coarse.matches;
      pan.setAttribute("aria-pressed", String(view.pan));
    };
    const change = (view) => { this.#screen.view = view; show(); };
    fit.classList.add("pressed");
    pan.classList.add("pressed");
    fit.addEventListener("click", () => {
      const next = !this.#screen.view.fit;
      change({ fit: next, pan: false, clip: coarse.matches });
      remember(next ? "fit" : "1:1");
    });
    pan.addEventListener("click", () => change({ pan: !this.#screen.view.pan }));
    change({ fit: remembered() !== "1:1", pan: false, clip: coarse.matches });
  }

  #fullScreen() {
    const button = this.#part("full-button");
    button.hidden = !document.fullscreenEnabled;
    button.addEventListener("click", async () => {
      try {
        if (document.fullscreenElement) await document.exitFullscreen();
        else await document.documentElement.requestFullscreen({ navigationUI: "hide" });
      } catch (error) {
        console.info("full screen was refused:", error.message);
      }
    });
    document.addEventListener("fullscreenchange", () => {
      const full = document.fullscreenElement !== null;
      button.setAttribute("aria-pressed", String(full));
      button.title = full ? "Leave full screen" : "Full screen";
      this.#screen.focus();
      // Where the browser can, Escape, Alt-Tab and the like go to the server now (holding Escape leaves).
      if (full) navigator.keyboard?.lock?.().catch(() => null); else navigator.keyboard?.unlock?.();
    });
    this.#part("handle").addEventListener("click", () => this.#part("bar").classList.toggle("open"));
  }

  #closing(close) {
    const [yes, no, note] = [this.#part("close-yes"), this.#part("close-no"), this.#part("close-note")];
    this.#panels.add(this.#part("close-button"), this.#part("close-panel"), () => {
      note.textContent = "";
      yes.disabled = false;
      no.focus();
    });
    no.addEventListener("click", () => this.#panels.close());
    yes.addEventListener("click", async () => {
      yes.disabled = true;
      note.textContent = "Closing …";
      try {
        await close();
      } catch (error) {
        note.textContent = error.serverMessage || "It could not be closed: the server did not answer.";
        yes.disabled = false;
      }
    });
  }
}

function remember(view) {
  try {
    sessionStorage.setItem(VIEW, view);
  } catch (error) {
    console.info("the view is not remembered:", error.name);
  }
}

function remembered() {
  try {
    return sessionStorage.getItem(VIEW);
  } catch {
    return null;
  }
}
