// Text to and from the server: by the browser's own clipboard where it gives it, by two boxes otherwise.

import { sleep } from "./retry.js";

const LONGEST = 100000;   // characters that are handed on
const SERVER_TELLS = 500; // ms after connecting in which the server tells that it takes more than Latin-1

const BY_HAND = "Your browser keeps its clipboard from this page:";
const HINTS = {
  both: {
    follows: "Your clipboard and the server's follow each other.",
    asks: "What is copied on the server goes to your clipboard. For the other way use the first box or “Send my "
      + "clipboard”.",
    "by hand": `${BY_HAND} the boxes below do the same by hand.`,
  },
  in: {
    follows: "What you copy goes to the server's clipboard, but nothing comes back.",
    asks: "Texts go to the server only: by the box or by “Send my clipboard”.",
    "by hand": `${BY_HAND} what you put into the box goes to the server's.`,
  },
  out: {
    follows: "What is copied on the server goes to your clipboard; nothing goes the other way.",
    asks: "What is copied on the server goes to your clipboard; nothing goes the other way.",
    "by hand": `${BY_HAND} what is copied on the server stands in the box.`,
  },
};

export class Clipboard {
  #parts;
  #screen;
  #native;
  #passed = null;     // what both sides have had last: not sent back and forth
  #ready = Promise.resolve();
  #reads = false;     // the browser lets us read without asking
  #mode = "off";      // off, in (to the server), out (from the server) or both
  #steers = false;    // this viewer has control, so its clipboard is the one that the server follows

  /** parts: {panel, hint, to, out, send, read, from, in, copy, note, badge} */
  constructor(parts, screen, native = navigator.clipboard) {
    this.#parts = parts;
    this.#screen = screen;
    this.#native = native;
    screen.addEventListener("clipboard", ({ detail }) => this.#arrived(detail));
    parts.send.addEventListener("click", () => this.#send(parts.out.value));
    parts.read.addEventListener("click", () => this.#readAndSend());
    parts.copy.addEventListener("click", () => this.#copyByHand());
    window.addEventListener("focus", () => this.#follow());
    this.#learn();
  }

  /** The panel is on view. */
  opened() {
    this.#parts.badge.hidden = true;
    this.#note("");
    (this.#gives ? this.#parts.out : this.#parts.in).focus();
  }

  /** What the server told last. */
  async update({ clipboard, steers }) {
    const gained = steers && !this.#steers;
    this.#steers = steers;
    if (clipboard !== this.#mode) {
      this.#mode = clipboard;
      this.#parts.to.hidden = !this.#gives;
      this.#parts.from.hidden = !this.#takes;
      if (!this.#takes) this.#empty();
      await this.#learn();
    }
    if (gained && this.#screen.connected) await this.connected();
  }

  get #gives() { return this.#mode === "in" || this.#mode === "both"; }

  get #takes() { return this.#mode === "out" || this.#mode === "both"; }

  /** A new connection: the server knows nothing of our clipboard. */
  async connected() {
    this.#passed = null;
    this.#ready = sleep(SERVER_TELLS);
    await this.#follow();
  }

  async #learn() {
    const { read, hint } = this.#parts;
    const permission = await this.#permission();
    this.#reads = permission?.state === "granted";
    permission?.addEventListener?.("change", () => this.#learn(), { once: true });
    read.hidden = this.#reads || !this.#native?.readText || permission?.state === "denied";
    const helps = this.#mode === "out" ? this.#native?.writeText : this.#native && !read.hidden;
    const way = this.#reads ? "follows" : helps ? "asks" : "by hand";
    hint.textContent = HINTS[this.#mode]?.[way] ?? "";
  }

  async #permission() {
    if (!this.#native?.readText) return null;
    try {
      return await navigator.permissions.query({ name: "clipboard-read" });
    } catch {
      return null;      // a browser that asks every time
    }
  }

  /** Somebody came back to this window, perhaps with something new in the clipboard. */
  async #follow() {
    if (!this.#reads || !this.#gives || !this.#steers || !this.#screen.connected || !document.hasFocus()) return;
    try {
      const text = await this.#native.readText();
      if (text && text !== this.#passed) this.#pass(text);
    } catch (error) {
      console.info("the clipboard was not readable:", error.name);
    }
  }

  async #readAndSend() {
    try {
      this.#send(await this.#native.readText());
    } catch {
      this.#note("The browser did not allow it.");
    }
    await this.#learn();
  }

  #send(text) {
    if (!text) {
      this.#note("There is no text to send.");
    } else if (!this.#screen.connected) {
      this.#note("Not connected.");
    } else {
      this.#pass(text);
      this.#note("Sent: paste it there, for example with Ctrl-V.");
    }
  }

  async #pass(text) {
    const passed = this.#passed = text.slice(0, LONGEST);
    await this.#ready;
    if (passed === this.#passed && this.#gives) this.#screen.paste(passed);
  }

  async #arrived(text) {
    if (!this.#takes || typeof text !== "string" || text === this.#passed) return;
    const { in: box, copy, badge, panel } = this.#parts;
    this.#passed = text.slice(0, LONGEST);
    box.value = this.#passed;
    copy.disabled = false;
    try {
      if (!this.#native?.writeText) throw new DOMException("no clipboard", "NotAllowedError");
      await this.#native.writeText(this.#passed);
    } catch {
      badge.hidden = !panel.hidden;     // it waits in the panel
    }
  }

  async #copyByHand() {
    const { in: box } = this.#parts;
    try {
      await this.#native.writeText(box.value);
    } catch {
      box.focus();
      box.select();
      document.execCommand("copy");     // all that a page without a secure context has
    }
    this.#note("Copied.");
  }

  /** Nothing of what the server's clipboard held stays here. */
  #empty() {
    const { in: box, copy, badge } = this.#parts;
    box.value = "";
    copy.disabled = true;
    badge.hidden = true;
  }

  #note(text) {
    this.#parts.note.textContent = text;
  }
}
