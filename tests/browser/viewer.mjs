// A person's browser for tests: one headless Chromium, driven by JSON lines on stdin, answered on stdout.
//
// Request: {"id": 1, "do": "open", …}. Answer: {"id": 1, "value": …} or {"id": 1, "error": "…"}. Requests run side by
// side; each names its page by the number that "open" gave. The process ends, and Chromium with it, when stdin does.
// First line out: {"ready": true, "version": "…"}.

import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const CHROMIUM = process.env.VIEWER_CHROMIUM || "/usr/bin/chromium";
const FLAGS = [
  "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync",
  // Names that are this machine, but, unlike 127.0.0.1, no "secure context" for a browser.
  "--host-resolver-rules=MAP *.test 127.0.0.1",
];
// The last list counts: Playwright's own, but with third-party storage as people have it, and without the address
// bar's pop-ups, two more renderers for each context.
const WITHOUT = [
  "AvoidUnnecessaryBeforeUnloadCheckSync", "DestroyProfileOnBrowserClose", "DialMediaRouteProvider", "HttpsUpgrades",
  "GlobalMediaControls", "LensOverlay", "MediaRouter", "OptimizationHints", "PaintHolding", "RenderDocument",
  "Translate", "WebUIOmniboxAimPopup", "WebUIOmniboxPopup",
];
const MOST_KEPT = 20000;     // entries of each list

const browser = await chromium.launch({
  executablePath: CHROMIUM,
  headless: true,
  chromiumSandbox: process.getuid() !== 0,
  args: [...FLAGS, `--disable-features=${WITHOUT}`],
});

const visits = new Map();
let count = 0;

/** A page of somebody else that holds the console in a frame. */
const host = createServer((request, response) => {
  const query = new URL(request.url, "http://host").searchParams;
  const text = (name) => (query.get(name) ?? "").replace(/[&<>"]/g, (sign) => `&#${sign.charCodeAt(0)};`);
  response.setHeader("Content-Type", "text/html; charset=utf-8");
  response.end(`<!doctype html><title>Panel</title><body><h1>Panel</h1><iframe name="console" title="Console"
    src="${text("src")}" width="${text("width")}" height="${text("height")}"
    allow="fullscreen; clipboard-read; clipboard-write"></iframe></body>`);
});
await new Promise((resolve) => { host.listen(0, "127.0.0.1", resolve); });

class Visit {
  constructor(context, page, framed, tapped) {
    Object.assign(this, { context, page, framed, console: [], requests: [], sockets: [], traffic: [] });
    if (tapped) this.tap();
    page.on("console", (message) => keep(this.console, { type: message.type(), text: message.text() }));
    page.on("pageerror", (error) => keep(this.console, { type: "pageerror", text: String(error) }));
    page.on("request", (request) => keep(this.requests, { method: request.method(), url: request.url() }));
    page.on("websocket", (socket) => {
      const record = { url: socket.url(), sent: [], received: 0, closed: false };
      keep(this.sockets, record);
      socket.on("framesent", ({ payload }) => keep(record.sent, Buffer.from(payload).toString("base64")));
      socket.on("framereceived", ({ payload }) => { record.received += payload.length; });
      socket.on("close", () => { record.closed = true; });
    });
  }

  /** Keep all that passes between this page and its servers, in the order in which the browser knows of it. */
  tap() {
    const note = (way, kind, url, data) => {
      this.traffic.push(Promise.resolve(data).then(
        (bytes) => ({ way, kind, url, data: Buffer.from(bytes ?? "").toString("base64") }),
        (error) => ({ way, kind, url, data: null, error: error.message }),
      ));
    };
    const headers = async (message) => JSON.stringify(await message.allHeaders());
    this.page.on("requestfinished", (request) => {
      const url = request.url();
      const response = request.response();
      note("sent", "headers", url, headers(request));
      note("sent", "body", url, request.postDataBuffer());
      note("received", "headers", url, response.then(headers));
      note("received", "body", url, response.then((answer) => answer.body()));
    });
    this.page.on("requestfailed", (request) => note("sent", "body", request.url(), request.postDataBuffer()));
    this.page.on("websocket", (socket) => {
      socket.on("framesent", ({ payload }) => note("sent", "frame", socket.url(), payload));
      socket.on("framereceived", ({ payload }) => note("received", "frame", socket.url(), payload));
    });
  }

  /** Where the console's page is: the page itself or the frame in it. */
  get place() {
    const place = this.framed ? this.page.frame({ name: "console" }) : this.page.mainFrame();
    if (!place) throw new Error("the frame is not there");
    return place;
  }

  /** A spot of the remote screen, as a spot of the browser's window. */
  async spot([x, y]) {
    const canvas = this.place.locator("#screen canvas:not(.frozen)");
    const box = await canvas.boundingBox();
    const [width, height] = await canvas.evaluate((node) => [node.width, node.height]);
    return [box.x + (x + 0.5) * box.width / width, box.y + (y + 0.5) * box.height / height];
  }
}

const READ_PIXELS = (canvas, points) => {
  const pen = canvas.getContext("2d");
  return points.map(([x, y]) => [...pen.getImageData(x, y, 1, 1).data].slice(0, 3));
};

async function blank({ touch = false } = {}) {
  const context = await browser.newContext({ hasTouch: touch, isMobile: touch, ignoreHTTPSErrors: true });
  return { context, page: await context.newPage() };
}

/** The next one is made while a test is at work with the last. */
let spare = blank();

const verbs = {
  async open({ url, width = 1280, height = 800, frame = null, init = "", touch = false, permissions = [], tap = false, timeout }) {
    const made = touch ? blank({ touch }) : spare;
    if (!touch) spare = blank();
    const { context, page } = await made;
    await page.setViewportSize({ width, height });
    if (permissions.length) await context.grantPermissions(permissions);
    if (init) await context.addInitScript(init);
    const visit = new Visit(context, page, frame !== null, tap);
    const number = ++count;
    visits.set(number, visit);
    await page.goto(frame ? framedAt(url, frame) : url, { waitUntil: "domcontentloaded", timeout });
    return number;
  },
  async leave({ page }) {
    const visit = visits.get(page);
    visits.delete(page);
    await visit?.context.close();
  },
  async reload_frame({ timeout }, { page, place }) {
    const reloaded = page.waitForEvent("framenavigated", { timeout });
    await place.evaluate("location.reload()");
    await reloaded;
  },
  goto: ({ url, timeout }, { page }) => page.goto(url, { waitUntil: "domcontentloaded", timeout }).then(() => null),
  reload: ({ timeout }, { page }) => page.reload({ waitUntil: "domcontentloaded", timeout }).then(() => null),
  address: (_, visit) => visit.place.url(),

  evaluate: ({ expression }, visit) => visit.place.evaluate(expression),
  async wait({ expression, timeout }, visit) {
    const due = Date.now() + timeout;
    for (;;) {
      let last;
      try {
        const value = await visit.place.evaluate(expression);
        if (value) return value;
        last = JSON.stringify(value);
      } catch (error) {
        last = error.message;      // the page is being loaded, perhaps
      }
      if (Date.now() > due) throw new Error(`never true: ${expression}; last: ${last}`);
      await new Promise((resolve) => { setTimeout(resolve, 20); });
    }
  },
  see: ({ selector, timeout }, visit) => visit.place.locator(selector).first().waitFor({ timeout }).then(() => null),
  text: ({ selector, timeout }, visit) => visit.place.locator(selector).first().innerText({ timeout }),
  value: ({ selector, timeout }, visit) => visit.place.locator(selector).first().inputValue({ timeout }),
  visible: ({ selector }, visit) => visit.place.locator(selector).first().isVisible(),
  click: ({ selector, timeout }, visit) => visit.place.locator(selector).first().click({ timeout }),
  fill: ({ selector, text, timeout }, visit) => visit.place.locator(selector).first().fill(text, { timeout }),

  type: ({ text, delay = 10 }, { page }) => page.keyboard.type(text, { delay }),
  press: ({ key }, { page }) => page.keyboard.press(key),
  key_down: ({ key }, { page }) => page.keyboard.down(key),
  key_up: ({ key }, { page }) => page.keyboard.up(key),

  async move({ to }, visit) {
    await visit.page.mouse.move(...await visit.spot(to));
  },
  async click_at({ at, button = "left" }, visit) {
    await visit.page.mouse.click(...await visit.spot(at), { button, delay: 20 });
  },
  async drag({ start, to, steps = 8, button = "left" }, visit) {
    const [x0, y0] = await visit.spot(start);
    const [x1, y1] = await visit.spot(to);
    const mouse = visit.page.mouse;
    await mouse.move(x0, y0);
    await mouse.down({ button });
    for (let step = 1; step <= steps; step += 1) {
      await mouse.move(x0 + (x1 - x0) * step / steps, y0 + (y1 - y0) * step / steps);
      await new Promise((resolve) => { setTimeout(resolve, 20); });     // noVNC sends a move every 17 ms
    }
    await mouse.up({ button });
  },

  pixels: ({ points }, visit) => visit.place.locator("#screen canvas:not(.frozen)").evaluate(READ_PIXELS, points),
  screenshot: ({ path }, { page }) => page.screenshot({ path }).then(() => null),
  async canvas_shot({ path }, visit) {
    const data = await visit.place.locator("#screen canvas:not(.frozen)").evaluate((node) => node.toDataURL());
    const { writeFile } = await import("node:fs/promises");
    await writeFile(path, Buffer.from(data.split(",")[1], "base64"));
  },
  resize: ({ width, height }, { page }) => page.setViewportSize({ width, height }),
  offline: ({ on }, { context }) => context.setOffline(on),

  console: (_, visit) => visit.console,
  requests: (_, visit) => visit.requests,
  sockets: (_, visit) => visit.sockets,
  traffic: (_, visit) => Promise.all(visit.traffic),
  accessible: ({ selector = "body" }, visit) => visit.place.locator(selector).first().ariaSnapshot(),
};

function keep(list, entry) {
  if (list.length < MOST_KEPT) list.push(entry);
}

function framedAt(url, { width = 800, height = 500, name = "127.0.0.1" }) {
  const { port } = host.address();
  return `http://${name}:${port}/?${new URLSearchParams({ src: url, width, height })}`;
}

async function answer(line) {
  const request = JSON.parse(line);
  request.timeout ??= 10000;
  try {
    const verb = Object.hasOwn(verbs, request.do) ? verbs[request.do] : null;
    if (!verb) throw new Error(`no such verb: ${request.do}`);
    const visit = visits.get(request.page);
    if (!visit && !["open", "leave"].includes(request.do)) throw new Error(`no such page: ${request.page}`);
    say({ id: request.id, value: (await verb(request, visit)) ?? null });
  } catch (error) {
    say({ id: request.id, error: error.message });
  }
}

function say(message) {
  process.stdout.write(`${JSON.stringify(message)}\n`);
}

function died() {
  console.error("the browser has ended");
  process.exit(1);
}

async function end() {
  browser.off("disconnected", died);
  host.close();
  await browser.close();
  process.exit(0);
}

createInterface({ input: process.stdin }).on("line", answer).on("close", end);
browser.on("disconnected", died);
say({ ready: true, version: browser.version() });
