// Keys that the browser or the desktop keeps for itself: single ones, combinations, and modifiers that stay down.

const CTRL = { name: "Ctrl", keysym: 0xffe3, code: "ControlLeft" };
const ALT = { name: "Alt", keysym: 0xffe9, code: "AltLeft" };
const SUPER = { name: "Super", keysym: 0xffeb, code: "MetaLeft" };
const MODIFIERS = [CTRL, ALT, SUPER];

const TAB = [0xff09, "Tab"];
const PRINT = [0xff61, "PrintScreen"];
const F = Array.from({ length: 12 }, (_, index) => [0xffbe + index, `F${index + 1}`]);

export const CTRL_ALT_DEL = { label: "Ctrl-Alt-Del", with: [CTRL, ALT], key: [0xffff, "Delete"] };
const COMBINATIONS = [
  CTRL_ALT_DEL,
  { label: "Alt-Tab", with: [ALT], key: TAB },
  { label: "Alt-F4", with: [ALT], key: F[3] },
  { label: "Esc", with: [], key: [0xff1b, "Escape"] },
  { label: "Tab", with: [], key: TAB },
  { label: "Print", with: [], key: PRINT, title: "Print Screen" },
  { label: "SysRq", with: [ALT], key: [0xff15, "PrintScreen"], title: "Alt and Print Screen: the kernel's request key" },
];
const FUNCTION_KEYS = F.map((key) => ({ label: key[1], with: [], key }));

export class Keys {
  #screen;
  #held = new Set();
  #changed = () => {};

  constructor(screen) {
    this.#screen = screen;
    screen.addEventListener("gone", () => this.forget());
  }

  /** Press and let go. Modifiers that are held stay held. */
  press({ with: modifiers, key: [keysym, code] }) {
    const needed = modifiers.filter((modifier) => !this.#held.has(modifier));
    for (const modifier of needed) this.#screen.sendKey(modifier.keysym, modifier.code, true);
    this.#screen.sendKey(keysym, code);
    for (const modifier of needed.reverse()) this.#screen.sendKey(modifier.keysym, modifier.code, false);
  }

  /** Hold a modifier down until it is let go the same way. */
  hold(modifier, down) {
    if (down === this.#held.has(modifier)) return;
    if (down) this.#held.add(modifier); else this.#held.delete(modifier);
    this.#screen.sendKey(modifier.keysym, modifier.code, down);
    this.#changed();
  }

  isHeld(modifier) { return this.#held.has(modifier); }

  get anyHeld() { return this.#held.size > 0; }

  /** One listener: the held modifiers are others now. */
  onChange(listener) { this.#changed = listener; }

  /** The connection or the control is gone, and with it (the server sees to that) whatever was held. */
  forget() {
    this.#held.clear();
    this.#changed();
  }
}

/** Fill the panel with buttons for all of them. The badge is on view while a modifier is held. */
export function fillKeysPanel(panel, badge, keys) {
  const toggles = MODIFIERS.map((modifier) => {
    const toggle = key(modifier.name, `Hold ${modifier.name} down`);
    toggle.setAttribute("aria-pressed", "false");
    toggle.addEventListener("click", () => keys.hold(modifier, !keys.isHeld(modifier)));
    return toggle;
  });
  const sender = (combination) => {
    const node = key(combination.label, combination.title ?? `Send ${combination.label}`);
    if (combination === CTRL_ALT_DEL) node.classList.add("both");
    node.addEventListener("click", () => keys.press(combination));
    return node;
  };
  const wayOut = document.createElement("p");
  wayOut.className = "hint";
  wayOut.textContent = "From the keyboard: Ctrl, Alt and Shift together lead from the screen to these controls.";
  panel.replaceChildren(
    heading("Hold down"), grid("keys three", toggles),
    heading("Send"), grid("keys", COMBINATIONS.map(sender)),
    heading("Function keys"), grid("keys", FUNCTION_KEYS.map(sender)),
    wayOut,
  );
  keys.onChange(() => {
    badge.hidden = !keys.anyHeld;
    MODIFIERS.forEach((modifier, index) => toggles[index].setAttribute("aria-pressed", String(keys.isHeld(modifier))));
  });
}

/** Calls `reach` when Control, Alt and Shift were pressed together and let go without another key in between. */
export function onWayOut(window, reach) {
  const wanted = ["Control", "Alt", "Shift"];
  const down = new Set();
  let armed = false;
  window.addEventListener("keydown", ({ key: name }) => {
    if (wanted.includes(name)) down.add(name); else down.clear();
    armed = down.size === wanted.length;
  }, { capture: true });
  window.addEventListener("keyup", ({ key: name }) => {
    const out = armed && wanted.includes(name);
    down.delete(name);
    armed = false;
    if (out) reach();
  }, { capture: true });
  window.addEventListener("blur", () => { down.clear(); armed = false; });
}

/** A key that went down on a control goes on repeating, perhaps, when the focus is the screen's: that is no typing. */
export function keepRepeatsFrom(target) {
  let elsewhere = null;
  window.addEventListener("keydown", (event) => {
    const inside = target.contains(event.target);
    if (!event.repeat) {
      elsewhere = inside ? null : event.code;
    } else if (inside && event.code === elsewhere) {
      event.stopPropagation();
      event.preventDefault();
    }
  }, { capture: true });
}

function heading(text) {
  const node = document.createElement("h3");
  node.textContent = text;
  return node;
}

function grid(className, children) {
  const node = document.createElement("div");
  node.className = className;
  node.append(...children);
  return node;
}

function key(label, title) {
  const node = document.createElement("button");
  node.type = "button";
  node.className = "button";
  node.textContent = label;
  node.title = title;
  return node;
}
