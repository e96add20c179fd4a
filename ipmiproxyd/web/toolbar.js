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
  #typers;

  /**
   * keys: Keys; clipboard: Clipboard; close: async function that closes the console, throwing with a message;
   * take: async function that takes control; textOpened: called when the panel for texts is on view.
   */
  constructor(part, { screen, keys, clipboard, close, take, textOpened }) {
    this.#part = part;
    this.#screen = screen;
    this.#typers = [...document.querySelectorAll("[data-types]")];
    this.#panels = new Panels(part("bar"), () => screen.focus());
    part("ctrl-alt-del").addEventListener("click", () => keys.press(CTRL_ALT_DEL));
    fillKeysPanel(part("keys-panel"), part("keys-badge"), keys);
    this.#panels.add(part("keys-button"), part("keys-panel"));
    this.#panels.add(part("clipboard-button"), part("clipboard-panel"), () => clipboard.opened());
    this.#panels.add(part("text-button"), part("text-panel"), textOpened);
    this.#panels.add(part("viewers-button"), part("viewers-panel"), () => part("viewers-panel").focus());
    this.#view();
    this.#fullScreen();
    this.#closing(close);
    this.#taking(take);
    // A press on these leaves the keyboard where it is, on the screen; held keys stay held.
    for (const place of [part("bar"), part("keys-panel"), part("text-panel"), part("notices")]) {
      place.addEventListener("mousedown", (event) => { if (event.target.closest("button")) event.preventDefault(); });
    }
  }

  /** live: there is a screen; closable: there is a console; status: what the server told last, or null. */
  set({ live, closable, status }) {
    const { acts = false, control = false, credentials = false, clipboard = "off", people = [] } = status ?? {};
    const typing = Boolean(status?.typing);
    for (const tool of document.querySelectorAll(".tool.live")) tool.disabled = !live;
    for (const typer of this.#typers) typer.disabled = !live || typing;
    for (const tool of document.querySelectorAll(".tool.steer")) tool.hidden = !acts;
    for (const part of document.querySelectorAll(".credential")) part.hidden = !(acts && credentials);
    if (clipboard === "off") this.#part("clipboard-button").hidden = true;
    this.#part("viewers-button").hidden = people.length < 2;
    this.#part("viewers-count").textContent = people.length;
    this.#part("take-button").hidden = !(live && control && !acts);
    this.#part("close-button").hidden = !(control && closable);
    if (!live || !acts) this.closePanels(["keys-panel", "clipboard-panel", "text-panel"]);
    if (clipboard === "off") this.closePanels(["clipboard-panel"]);
    if (!live || people.length < 2) this.closePanels(["viewers-panel"]);
    if (!closable) this.closePanels(["close-panel"]);
  }

  /** What has the keyboard, and is gone now, gives it to the screen. */
  closePanels(ids = null) {
    const open = (ids ?? ["keys-panel", "clipboard-panel", "text-panel", "viewers-panel", "close-panel"])
      .map((id) => this.#part(id)).find((panel) => !panel.hidden);
    if (open) this.#panels.close(open.contains(document.activeElement));
  }

  /** Give the keyboard to the controls. */
  focus() {
    const first = [...document.querySelectorAll("#take-button, .bar .tool")].find((tool) => !tool.disabled && tool.offsetParent);
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

  #taking(take) {
    const button = this.#part("take-button");
    button.addEventListener("click", async () => {
      button.disabled = true;
      this.#screen.focus();
      await take();
      button.disabled = false;
    });
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
