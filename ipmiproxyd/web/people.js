// Who is on the console, and who has control of it.

/** How a person is named in a sentence. */
function nameOf(person) {
  return person?.user || "a viewer";
}

/** The one, other than this viewer, who has control; null where this one or nobody has it. */
export function otherInControl(status) {
  if (!status.held || status.steers) return null;
  return status.people.find(({ id, steers }) => steers && id !== status.you) ?? {};
}

/** What the status line says about control: one to three short phrases. */
export function whoSteers(status) {
  const words = [];
  const other = otherInControl(status);
  if (!status.control) words.push("view only");
  if (other) words.push(`${nameOf(other)} has control`);
  else if (status.people.length > 1) words.push(status.steers ? "you have control" : "nobody has control");
  return words;
}

/** "a viewer" at the beginning of a sentence; a name stays as it is. */
export function nameAtStart(person) {
  return person?.user || "A viewer";
}

/** The list of everybody, the one who looks at it first. */
export class People {
  #list;
  #shown = "";

  constructor(list) {
    this.#list = list;
  }

  show({ people, you }) {
    const rows = [...people].sort((one, other) => (other.id === you) - (one.id === you)).map((person) => ({
      name: person.id !== you ? nameOf(person) : person.user ? `${person.user} (you)` : "you",
      right: person.steers ? "has control" : person.control ? "may take control" : "view only",
      steers: person.steers,
    }));
    const now = JSON.stringify(rows);
    if (now === this.#shown) return;
    this.#shown = now;
    this.#list.replaceChildren(...rows.map(row));
  }
}

function row({ name, right, steers }) {
  const item = document.createElement("li");
  if (steers) item.className = "steers";
  for (const [className, text] of [["name", name], ["right", right]]) {
    const node = document.createElement("span");
    node.className = className;
    node.textContent = text;
    item.append(node, " ");
  }
  return item;
}
