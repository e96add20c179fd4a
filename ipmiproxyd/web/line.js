// The conversation with one console, from the link to the end, as one straight course.

import { Refused, Unreachable, isOver } from "./session.js";
import { Dropped, loadCore } from "./screen.js";
import { sleep } from "./retry.js";

const STEADY_AFTER = 5000;      // ms of connection after which trouble counts from the beginning again
const MISSES = 3;               // unanswered questions after which a connected screen is given up as dead
const BUSY_WAIT = 5000;         // ms before a server that has no time for us is asked again
const LAST_WORDS = 1000;        // ms to wait for the reason in plain words when the screen says it was closed

/**
 * `view` is told what to show: begin(), status(status), connecting(), connected(), waiting({cause, attempt, left}),
 * gaveUp(cause, message) → promise that somebody wants another try, over({code, message, hint}).
 */
export class Line {
  #session;
  #screen;
  #retry;
  #view;
  #latest = null;
  #cut = null;

  constructor({ session, screen, retry, view }) {
    this.#session = session;
    this.#screen = screen;
    this.#retry = retry;
    this.#view = view;
  }

  /** Run to the end; resolves when the console is over. */
  async run() {
    this.#view.begin();
    let begun = false;
    for (;;) {
      let cause;
      try {
        if (!begun) await this.#session.begin();
        begun = true;
        const end = await this.#once();
        this.#session.forget();
        this.#view.over(end);
        return;
      } catch (error) {
        if (!(error instanceof Refused || error instanceof Dropped || error instanceof Unreachable)) throw error;
        if (this.#latest?.state === "closing") {      // and by now it is closed
          this.#session.forget();
          this.#view.over(ending(this.#latest));
          return;
        }
        if (error instanceof Refused) {
          this.#view.over({ code: error.code, message: error.serverMessage, hint: error.hint });
          return;
        }
        if (error instanceof Dropped && error.forbidden) {
          this.#session.forget();
          this.#view.over({ code: "revoked" });
          return;
        }
        if (error instanceof Dropped && error.refusal) {
          await this.#view.gaveUp(error.refusal, error.words);
          this.#retry.reset();
          continue;
        }
        cause = error instanceof Dropped ? this.#causeOf(error) : "unreachable";
      }
      const unbound = cause === "agent-away";
      if (!(await this.#retry.pause((wait) => this.#view.waiting({ cause, ...wait }), { unbound }))) {
        await this.#view.gaveUp(cause);
        this.#retry.reset();
      }
    }
  }

  /** The network is said to have changed, or the person asks: look at once whether the server answers. */
  hurry() {
    this.#retry.now();
    this.#cut?.();
  }

  /** Ask, follow the opening, show the screen, follow it. Returns {code, message} when the console is over. */
  async #once() {
    const viewer = loadCore();      // takes a while: begun before it is needed
    viewer.catch(() => null);
    let status = this.#tell(await this.#session.status());
    while (status.state !== "ready") {
      if (isOver(status)) return ending(status);
      status = this.#tell(await this.#session.news(status.serial));
    }
    await viewer.catch(() => { throw new Refused("no-viewer"); });
    this.#view.connecting();
    const { ended } = await this.#screen.connect(this.#session.socket());
    this.#view.connected();
    const steady = setTimeout(() => this.#retry.reset(), STEADY_AFTER);
    const leave = new AbortController();
    try {
      const followed = this.#follow(status.serial, leave.signal).catch((error) => knowBetter(error, ended));
      const end = await Promise.race([followed, ended]);
      if (!(end instanceof Dropped)) return end;
      if (!end.final) throw end;
      const words = await Promise.race([followed.catch(() => null), sleep(LAST_WORDS)]);
      if (words && !(words instanceof Dropped)) return words;
      const last = this.#latest.state === "closing" ? ending(this.#latest) : { code: "closed", message: "" };
      return { ...last, code: end.reason || last.code };
    } finally {
      clearTimeout(steady);
      leave.abort();
      this.#screen.disconnect();
    }
  }

  /** While the screen is connected: follow the status until the console is over. */
  async #follow(serial, left) {
    let missed = 0;
    while (!left.aborted) {
      try {
        const status = this.#tell(await (missed ? this.#session.status(left) : this.#news(serial, left)));
        if (isOver(status)) return ending(status);
        serial = status.serial;
        missed = 0;
      } catch (error) {
        if (left.aborted) break;
        if (!(error instanceof Unreachable)) throw error;
        if (error.answered) {       // somebody is there: the screen is not dead
          await sleep(BUSY_WAIT);
          continue;
        }
        missed += 1;
        if (missed >= MISSES) throw error;
        await sleep(400 * missed);
      }
    }
    return null;
  }

  /** The next news, asked so that hurry() cuts the question short. */
  async #news(serial, left) {
    const question = new AbortController();
    const stop = () => question.abort();
    this.#cut = stop;
    left.addEventListener("abort", stop);
    try {
      return await this.#session.news(serial, question.signal);
    } finally {
      left.removeEventListener("abort", stop);
      this.#cut = null;
    }
  }

  /** Why there is no screen: a code of words.js. */
  #causeOf(dropped) {
    if (this.#latest?.agentAway) return "agent-away";
    if (!dropped.noScreen) return "unreachable";
    return dropped.opened ? "no-display" : "no-screen";
  }

  #tell(status) {
    this.#latest = status;
    this.#view.status(status);
    return status;
  }
}

/** A key that is refused while its screen is connected: the screen's end, which follows, knows why. */
async function knowBetter(error, ended) {
  if (!(error instanceof Refused)) throw error;
  const end = await Promise.race([ended, sleep(LAST_WORDS)]);
  if (end) return end;
  throw error;
}

function ending(status) {
  return { code: status.reason || "closed", message: status.message || "" };
}
