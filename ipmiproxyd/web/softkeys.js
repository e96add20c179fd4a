// A phone shows its keyboard only for a text field: this one is unseen, and what changes in it is typed on the server.

const BACKSPACE = [0xff08, "Backspace"];
const RETURN = [0xff0d, "Enter"];
const FILLER = "  ".repeat(20);    // something to delete, or the phone sends no backspace
const LONGEST = 200;

const SPECIAL = new Map([
  ["Tab", [0xff09, "Tab"]], ["Escape", [0xff1b, "Escape"]],
  ["ArrowLeft", [0xff51, "ArrowLeft"]], ["ArrowUp", [0xff52, "ArrowUp"]],
  ["ArrowRight", [0xff53, "ArrowRight"]], ["ArrowDown", [0xff54, "ArrowDown"]],
]);

export class SoftKeys {
  #field;
  #screen;
  #before = FILLER;

  constructor(field, button, screen) {
    this.#field = field;
    this.#screen = screen;
    field.addEventListener("input", () => this.#typed());
    field.addEventListener("keydown", (event) => this.#pressed(event));
    field.addEventListener("focus", () => { this.#refill(); button.setAttribute("aria-pressed", "true"); });
    field.addEventListener("blur", () => button.setAttribute("aria-pressed", "false"));
    button.addEventListener("click", () => {
      if (field.ownerDocument.activeElement === field) field.blur(); else field.focus({ preventScroll: true });
    });
  }

  /** Words may be composed and corrected: what is gone at the end is deleted, what is new is typed. */
  #typed() {
    const now = this.#field.value;
    let same = 0;
    while (same < now.length && now[same] === this.#before[same]) same += 1;
    for (let gone = [...this.#before.slice(same)].length; gone > 0; gone -= 1) this.#screen.sendKey(...BACKSPACE);
    for (const character of now.slice(same)) this.#screen.sendKey(...keyOf(character));
    this.#before = now;
    if (now.length < FILLER.length / 2 || now.length > LONGEST) this.#refill();
  }

  #pressed(event) {
    const special = SPECIAL.get(event.key);
    if (!special) return;
    event.preventDefault();
    this.#screen.sendKey(...special);
  }

  #refill() {
    this.#field.value = this.#before = FILLER;
    this.#field.setSelectionRange(FILLER.length, FILLER.length);
  }
}

/** X's keysym of a character: Latin-1 as it is, the rest by its Unicode number. */
function keyOf(character) {
  if (character === "\n") return RETURN;
  const point = character.codePointAt(0);
  return [point >= 0x20 && point <= 0xff ? point : 0x01000000 | point, ""];
}
