// Waiting between attempts: a little longer each time, with some chance in it, and not for ever.

/** Longest wait where there is no bound, in milliseconds. */
const MOST_UNBOUND = 10000;

/** Time that one attempt and its wait may take out of the bound: a laptop that slept has not been trying meanwhile. */
const MOST_COUNTED = 15000;

export class Retry {
  #first;
  #most;
  #bound;
  #wake = null;
  #spent = 0;
  #last = null;

  /** All times in milliseconds. `bound` is for all attempts together. */
  constructor({ first = 500, most = 8000, bound = 120000 } = {}) {
    this.#first = first;
    this.#most = most;
    this.#bound = bound;
    this.attempt = 0;
  }

  /** All is well again: the next trouble begins with the shortest wait. */
  reset() {
    this.attempt = 0;
    this.#spent = 0;
    this.#last = null;
  }

  /**
   * Wait until the next attempt is due. `tick({attempt, left})` is called at once and every second, with the
   * milliseconds left. Resolves to false, without waiting, when the bound is used up. `unbound`: what is waited for may
   * take as long as it likes, and is not counted.
   */
  async pause(tick, { unbound = false } = {}) {
    const began = performance.now();
    if (this.#last !== null) this.#spent += Math.min(began - this.#last, MOST_COUNTED);
    this.#last = began;
    if (unbound) this.#spent = 0;
    if (this.#spent >= this.#bound) return false;

    const wait = Math.min(this.#first * 2 ** this.attempt, unbound ? MOST_UNBOUND : this.#most) * (0.8 + 0.4 * Math.random());
    this.attempt += 1;
    const due = began + wait;
    let awake = false;
    const woken = new Promise((resolve) => { this.#wake = () => { awake = true; resolve(); }; });
    for (let left = wait; left > 0 && !awake; left = due - performance.now()) {
      tick({ attempt: this.attempt, left });
      await Promise.race([woken, sleep(Math.min(left, 1000))]);
    }
    this.#wake = null;
    return true;
  }

  /** Do not wait any longer: try now. */
  now() {
    this.#wake?.();
  }
}

export function sleep(ms) {
  return new Promise((resolve) => { setTimeout(resolve, ms); });
}
