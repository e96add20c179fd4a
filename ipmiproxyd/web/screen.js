// The server's screen: noVNC's RFB core on a WebSocket that we open, so that we learn why it was closed.

const PICTURE_WITHIN = 15000;  // ms from the WebSocket's start to the first picture
const GROUND = "transparent";
const REFUSALS = { 4004: "no-room", 4005: "screen-refused" };

/** The way to the screen broke. `code` and `reason` are the WebSocket's; `opened`: it had been open at all. */
export class Dropped extends Error {
  constructor({ code = 1006, reason = "", opened = false } = {}) {
    super(`dropped: ${code} ${reason}`);
    this.code = code;
    this.reason = reason;
    this.opened = opened;
  }

  /** The console itself was closed: no use in trying again. */
  get final() { return this.code === 4000; }

  /** The server answered, but gave no screen. */
  get noScreen() { return !this.opened || this.code === 4001; }

  /** This browser has lost its right. */
  get forbidden() { return this.code === 4003; }

  /** The server's own words, where the reason is more than one of its codes. */
  get words() { return this.reason.includes(" ") ? this.reason : ""; }

  /** A code of words.js where the server will not have us now: whether to try again is the person's choice. */
  get refusal() { return REFUSALS[this.code] ?? ""; }
}

/** Loads noVNC once; the promise is shared. */
let core = null;
export function loadCore() {
  core ??= import("../novnc/core/rfb.js").then((module) => module.default);
  return core;
}

export class Screen extends EventTarget {
  #target;
  #rfb = null;
  #frozen = null;
  #view = { fit: true, pan: false, clip: false };
  #steers = true;

  constructor(target) {
    super();
    this.#target = target;
    // noVNC lets go of the keys that are down when the window loses the focus, but not when only its canvas does.
    target.addEventListener("focusout", () => window.dispatchEvent(new Event("blur")));
  }

  get connected() { return this.#rfb !== null; }

  /**
   * Show the screen that is at the end of `socket` (a WebSocket that is just being opened). Resolves, once there is a
   * picture, to {ended}: a promise of the Dropped that ends it. Throws Dropped when no picture came.
   */
  async connect(socket) {
    const RFB = await loadCore();
    return new Promise((resolve, reject) => {
      let rfb = null;
      let timer = null;
      let opened = false;
      let over = false;
      let end;
      const ended = new Promise((settle) => { end = settle; });
      const drop = (why) => {
        if (over) return;
        over = true;
        clearTimeout(timer);
        this.#freeze();
        if (this.#rfb === rfb) this.#rfb = null;
        const dropped = new Dropped({ opened, ...why });
        this.dispatchEvent(new Event("gone"));
        end(dropped);
        reject(dropped);
      };
      const giveUp = (reason) => { drop({ reason }); rfb?.disconnect(); };

      // Before noVNC's own listeners: it takes its canvas away when the socket closes.
      socket.addEventListener("open", () => { opened = true; });
      socket.addEventListener("close", ({ code, reason }) => drop({ code, reason }));
      timer = setTimeout(() => giveUp("no picture"), PICTURE_WITHIN);
      try {
        rfb = new RFB(this.#target, socket, { shared: true });
      } catch (error) {
        drop({ reason: error.message });
        return;
      }
      rfb.background = GROUND;
      rfb.showDotCursor = true;
      rfb.addEventListener("connect", () => {
        if (over) return;
        clearTimeout(timer);
        this.#rfb = rfb;
        this.clear();
        this.#apply();
        resolve({ ended });
      });
      rfb.addEventListener("disconnect", () => drop({}));
      rfb.addEventListener("credentialsrequired", () => giveUp("credentials"));
      rfb.addEventListener("clipboard", ({ detail }) => {
        this.dispatchEvent(new CustomEvent("clipboard", { detail: detail.text }));
      });
    });
  }

  /** Let go of the connection, if there is one. */
  disconnect() {
    this.#rfb?.disconnect();
  }

  focus() { this.#rfb?.focus({ preventScroll: true }); }

  sendKey(keysym, code, down) { this.#rfb?.sendKey(keysym, code, down); }

  paste(text) { this.#rfb?.clipboardPasteFrom(text); }

  get view() { return this.#view; }

  /** fit: scale to the window; pan: a drag moves the picture; clip: no scroll bars, for fingers. */
  set view(view) {
    this.#view = { ...this.#view, ...view };
    this.#apply();
  }

  /** Whether keys and pointer may go to the server at all. */
  set steers(steers) {
    this.#steers = steers;
    this.#apply();
  }

  #apply() {
    if (!this.#rfb) return;
    if (this.#rfb.viewOnly === this.#steers) this.#rfb.viewOnly = !this.#steers;
    this.#rfb.clipViewport = this.#view.clip && !this.#view.fit;
    this.#rfb.dragViewport = this.#view.pan && !this.#view.fit;
    this.#rfb.scaleViewport = this.#view.fit;
  }

  /** Forget the last picture. */
  clear() {
    this.#frozen?.remove();
    this.#frozen = null;
  }

  /** Keep the last picture, faintly, while there is no connection. */
  #freeze() {
    const live = this.#target.querySelector("canvas:not(.frozen)");
    if (!this.#rfb || !live?.width) return;
    this.clear();
    this.#frozen = document.createElement("canvas");
    this.#frozen.className = "frozen";
    this.#frozen.width = live.width;
    this.#frozen.height = live.height;
    this.#frozen.getContext("2d").drawImage(live, 0, 0);
    this.#target.prepend(this.#frozen);
  }
}
