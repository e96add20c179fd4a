// The right to be here: trades the link's one-time token for a key, keeps the key, and asks the server with it.

import { sleep } from "./retry.js";

const ANSWER_WITHIN = 8000;    // ms, a plain question
const NO_NEWS_TAKES = 1000;    // ms, at least, when an answer holds nothing new
const NEWS_WITHIN = 30000;     // ms, a question that the server holds until there is news (it answers after 20 s)
const CLIPBOARDS = ["off", "in", "out", "both"];

/** The server said no. `code` is one of the words of words.js; `message` and `hint` are the server's own text. */
export class Refused extends Error {
  constructor(code, message = "", hint = "") {
    super(code);
    this.code = code;
    this.serverMessage = message;
    this.hint = hint;
  }
}

/** No answer, or none that helps: worth another attempt. `answered`: something is there, it just cannot serve us. */
export class Unreachable extends Error {
  constructor(message, { answered = false } = {}) {
    super(message);
    this.answered = answered;
  }
}

export class Session {
  #key = null;
  #place;
  #store;
  #fromUsedLink = false;

  constructor(page = window) {
    this.#place = page.location;
    this.#store = new KeyStore(page);
  }

  /** Get a key: from the link, or else from the last time. Throws Refused or Unreachable. */
  async begin() {
    const token = new URLSearchParams(this.#place.hash.slice(1)).get("t");
    if (token) {
      const key = await this.#trade(token);
      // The token is spent or worthless now; it has no business in the address bar or the history.
      this.#store.stripFragment();
      if (key) {
        this.#key = key;
        this.#store.keep(key);
        return;
      }
    }
    this.#key = this.#store.stored();
    if (!this.#key) throw new Refused(token ? this.#usedLink : "no-link");
    this.#fromUsedLink = Boolean(token);
  }

  get #usedLink() {
    return this.#store.remembers ? "used-link" : "used-link-no-memory";
  }

  async #trade(token) {
    try {
      const answer = await this.#ask("api/session", { method: "POST", body: JSON.stringify({ token }) });
      if (typeof answer?.key !== "string") throw new Unreachable("no key in the answer");
      return answer.key;
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      console.info("the link was refused:", error.serverMessage, error.hint);
      return null;
    }
  }

  /** The console's status now. */
  async status(signal) {
    return statusFrom(await this.#guarded("api/status", { signal }));
  }

  /** The console's status once it is newer than `serial`, or after a while in any case. */
  async news(serial, signal) {
    const asked = performance.now();
    const path = `api/status?since=${encodeURIComponent(serial)}`;
    const status = statusFrom(await this.#guarded(path, { signal, within: NEWS_WITHIN }));
    const early = NO_NEWS_TAKES - (performance.now() - asked);
    const isNews = status.serial > serial || isOver(status);
    if (!isNews && early > 0) await sleep(early);      // something in between does not let questions wait
    return status;
  }

  /** Somebody is here and wants the console to stay open. */
  stay() {
    return this.#guarded("api/stay", { method: "POST" });
  }

  /** Take control over from whoever has it. */
  takeControl() {
    return this.#guarded("api/control", { method: "POST" });
  }

  /** Have the device's user name or password ("username", "password") typed, or ("text") this text. */
  type(what, text) {
    const body = JSON.stringify(what === "text" ? { what, text } : { what });
    return this.#guarded("api/type", { method: "POST", body });
  }

  /** Whatever is being typed: no further key of it. */
  stopTyping() {
    return this.#guarded("api/type/stop", { method: "POST" });
  }

  /** Close the console for everybody. */
  close() {
    return this.#guarded("api/close", { method: "POST" });
  }

  /** The key is of no use any more. */
  forget() {
    this.#key = null;
    this.#store.forget();
  }

  /** A new, not yet opened WebSocket to the console's screen. */
  socket() {
    const url = new URL("vnc", this.#place.href);
    url.protocol = this.#place.protocol === "https:" ? "wss:" : "ws:";
    url.hash = "";
    return new WebSocket(url.href, ["binary", `key.${this.#key}`]);
  }

  async #guarded(path, options) {
    try {
      return await this.#ask(path, { ...options, key: this.#key });
    } catch (error) {
      if (error instanceof Refused && path.startsWith("api/status")) {
        this.forget();
        if (error.code === "forbidden") {
          throw new Refused(this.#fromUsedLink ? this.#usedLink : "expired", error.serverMessage, error.hint);
        }
      }
      throw error;
    }
  }

  async #ask(path, { method = "GET", body, key, signal, within = ANSWER_WITHIN }) {
    const limit = new AbortController();
    const stop = () => limit.abort();
    const timer = setTimeout(stop, within);
    signal?.addEventListener("abort", stop);
    const headers = {};
    if (key) headers.Authorization = `Bearer ${key}`;
    if (body) headers["Content-Type"] = "application/json";
    try {
      const answer = await fetch(path, { method, body, headers, cache: "no-store", signal: limit.signal });
      if (answer.ok) return await answer.json();
      if (answer.status >= 500 || answer.status === 429) {
        throw new Unreachable(`HTTP ${answer.status}`, { answered: true });
      }
      if (answer.status === 413) throw new Refused("bad-value", "This is too much at once.");
      const { code = "forbidden", message = "", hint = "" } = await answer.json().catch(() => ({}));
      throw new Refused(String(code), String(message ?? ""), String(hint ?? ""));
    } catch (error) {
      if (error instanceof Refused || error instanceof Unreachable) throw error;
      throw new Unreachable(String(error));
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", stop);
    }
  }
}

/** "lost" is a closed console, too: one that its daemon has not cleared away yet. */
export function isOver(status) {
  return status.state === "closed" || status.state === "lost";
}

/** A status whose fields can be relied on. */
function statusFrom(answer) {
  const { serial, state, stages, device, viewers, idle, reason, message, control } = answer ?? {};
  const { closes_in: closesIn, closes_why: closesWhy, agent_away: agentAway } = answer ?? {};
  const { you, people, steers, held, credentials, typing, clipboard } = answer ?? {};
  if (typeof serial !== "number" || typeof state !== "string") {
    throw new Unreachable("this is no status", { answered: true });
  }
  return {
    serial,
    state,
    agentAway: agentAway === true,                              // where the console runs cannot be reached just now
    stages: Array.isArray(stages) ? stages.map(stageFrom) : [],
    device: String(device ?? ""),
    viewers: Number(viewers) || 0,
    idle: Number(idle) || null,
    closesIn: Number.isFinite(closesIn) ? closesIn : null,      // seconds, in the last minute
    closesWhy: String(closesWhy ?? ""),
    reason: String(reason ?? ""),
    message: String(message ?? ""),
    you: String(you ?? ""),
    people: Array.isArray(people) ? people.map(personFrom) : [],
    control: control !== false,                                 // the right to it
    steers: control !== false && steers === true,               // and this viewer has it now
    acts: control !== false && (steers === true || held !== true),     // its keys and pointer go to the server
    held: held === true,
    credentials: credentials === true,
    typing: typing ? typingFrom(typing) : null,
    clipboard: CLIPBOARDS.includes(clipboard) ? clipboard : "off",
  };
}

function personFrom({ id, user, control, steers }) {
  return { id: String(id ?? ""), user: String(user ?? ""), control: control === true, steers: steers === true };
}

function typingFrom({ what, by, done, of }) {
  return { what: String(what ?? ""), by: String(by ?? ""), done: Number(done) || 0, of: Number(of) || 0 };
}

/** done: null while it goes on. All times in milliseconds since opening began. `turns`: to another type of console. */
function stageFrom({ name, label, begun_ms: begun, done_ms: done, failed }) {
  return {
    label: String(label || name),
    begun: Number(begun) || 0,
    done: Number.isFinite(done) ? done : null,
    failed: failed === true,
    turns: name === "fall-back",
  };
}

/**
 * Where the key survives a reload: sessionStorage, and where a browser withholds that (some do inside a frame of
 * another site), the history entry's state, which is this page's alone, too. The latter survives a reload of the
 * frame, but not one of the page around it. Many consoles may live on one host, each under its own path.
 */
class KeyStore {
  #name;
  #page;

  constructor(page) {
    this.#page = page;
    this.#name = `ipmiproxyd.key:${page.location.host}${page.location.pathname}`;
  }

  stored() {
    const kept = this.#storage()?.getItem(this.#name);
    return kept || this.#page.history.state?.[this.#name] || null;
  }

  keep(key) {
    const storage = this.#storage();
    if (storage) {
      try {
        storage.setItem(this.#name, key);
        return;
      } catch (error) {
        console.info("sessionStorage takes nothing:", error.name);
      }
    }
    this.#setState({ [this.#name]: key });
  }

  forget() {
    this.#storage()?.removeItem(this.#name);
    if (this.#page.history.state) this.#setState(null);
  }

  /** Whether this browser lets the page remember beyond this entry of the history. */
  get remembers() {
    return this.#storage() !== null;
  }

  stripFragment() {
    const { location, history } = this.#page;
    history.replaceState(history.state, "", location.pathname + location.search);
  }

  #setState(state) {
    const { location, history } = this.#page;
    history.replaceState(state, "", location.pathname + location.search);
  }

  #storage() {
    try {
      return this.#page.sessionStorage;
    } catch {
      return null;
    }
  }
}
