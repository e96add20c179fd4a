// What is said above the screen: the last minute of a console that closes by itself, and remarks that go away.

const REMARK_STAYS = 9000;      // ms

const WHY = {
  idle: "Nothing was typed or clicked here for a while, so this console closes soon.",
  "max-time": "The time for this console is over, so it closes soon.",
};

/** The console's last minute: when it closes, why, and a way to stay. */
export class Notice {
  #parts;
  #closesAt = null;
  #timer = null;

  /** `parts`: box, text, clock and the button stay. `stay` resolves once the server knows that somebody is here. */
  constructor(parts, stay) {
    this.#parts = parts;
    parts.stay.addEventListener("click", async () => {
      parts.stay.disabled = true;
      try {
        await stay();
      } catch (error) {
        console.info("staying was not possible:", error.message);
      } finally {
        parts.stay.disabled = false;
      }
    });
  }

  /** What the server told last, or null where there is no console to speak of. */
  update(status) {
    const closesIn = status?.closesIn ?? null;
    if (closesIn === null) {
      this.#hide();
      return;
    }
    this.#closesAt = performance.now() + 1000 * closesIn;
    const text = WHY[status.closesWhy] ?? "This console closes soon.";
    if (this.#parts.text.textContent !== text) this.#parts.text.textContent = text;
    this.#parts.stay.hidden = status.closesWhy !== "idle" || status.control === false;
    this.#parts.box.hidden = false;
    this.#timer ??= setInterval(() => this.#tick(), 250);
    this.#tick();
  }

  #tick() {
    const left = Math.max(0, Math.ceil((this.#closesAt - performance.now()) / 1000));
    this.#parts.clock.textContent = `${left} s`;
  }

  #hide() {
    clearInterval(this.#timer);
    this.#timer = null;
    this.#parts.box.hidden = true;
  }
}

/** A few words that go away by themselves. */
export class Remark {
  #node;
  #timer = null;

  constructor(node) {
    this.#node = node;
  }

  say(text) {
    this.#node.textContent = text;
    this.#node.hidden = text === "";
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.clear(), REMARK_STAYS);
  }

  clear() {
    clearTimeout(this.#timer);
    this.#node.hidden = true;
    this.#node.textContent = "";
  }
}
