// What the server's side types for us: the device's sign-in, which never comes here, or a text from a box.

import { nameAtStart } from "./people.js";
import { refusal } from "./words.js";

const WHAT = { username: "the user name", password: "the password", text: "the text" };

export class Typing {
  #parts;
  #session;
  #say;
  #back;

  /**
   * parts: {buttons: those with data-types, box, type, note, row, text, count, progress, stop}.
   * say(words): shown for a while. back(): the panel closes, the keyboard is the screen's again.
   */
  constructor(parts, session, { say, back }) {
    this.#parts = parts;
    this.#session = session;
    this.#say = say;
    this.#back = back;
    for (const button of parts.buttons) button.addEventListener("click", () => this.#signIn(button.dataset.types));
    parts.type.addEventListener("click", () => this.#text());
    parts.box.addEventListener("input", () => this.#note(""));
    parts.stop.addEventListener("click", () => this.#stop());
  }

  /** The panel is on view. */
  opened() {
    this.#note("");
    const first = this.#parts.buttons.find((button) => !button.classList.contains("tool") && button.offsetParent);
    (first ?? this.#parts.box).focus();
  }

  /** What the server told last, or null where there is no screen. */
  update(status) {
    const { row, text, count, progress, stop, type } = this.#parts;
    const typing = status?.typing ?? null;
    row.hidden = typing === null;
    type.disabled = typing !== null;
    if (!typing) return;
    const what = Object.hasOwn(WHAT, typing.what) ? WHAT[typing.what] : "a text";
    const other = typing.by !== status.you && status.people.find(({ id }) => id === typing.by);
    const sentence = other ? `${nameAtStart(other)} has ${what} typed …` : `Typing ${what} …`;
    if (text.textContent !== sentence) text.textContent = sentence;
    count.textContent = typing.of ? `${typing.done} of ${typing.of}` : "";
    progress.max = Math.max(1, typing.of);
    progress.value = typing.done;
    stop.hidden = !status.control;
  }

  /** The server's focus stays where it is: nothing of this press reaches it but what it is asked to type. */
  async #signIn(what) {
    this.#back();
    this.#say("");
    this.#say(await this.#ask(what));
  }

  async #text() {
    const { box, type } = this.#parts;
    if (!box.value) {
      this.#note("There is no text to type.");
      return;
    }
    type.disabled = true;
    const words = await this.#ask("text", box.value);
    type.disabled = false;
    this.#note(words);
    if (words) {
      box.focus();
      return;
    }
    box.value = "";
    this.#back();
  }

  /** Returns why it was refused, in plain words, or "". */
  async #ask(what, text) {
    try {
      await this.#session.type(what, text);
      return "";
    } catch (error) {
      return refusal(error, "No answer came. Look at the screen before you try again.");
    }
  }

  async #stop() {
    const { stop } = this.#parts;
    stop.disabled = true;
    try {
      await this.#session.stopTyping();
    } catch (error) {
      this.#say(refusal(error, "It could not be stopped: no answer came."));
    } finally {
      stop.disabled = false;
    }
  }

  #note(text) {
    this.#parts.note.textContent = text;
  }
}
