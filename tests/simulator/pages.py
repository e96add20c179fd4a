"""The simulated panel's pages: plain HTML, each with its style and script in itself."""

from __future__ import annotations

from html import escape
from typing import Final

TITLE: Final = "Simulated BMC"

# Where things are on /try, in CSS pixels from the page's top left corner, in any window at least 900 x 720 large:
# (x, y, width, height).
TEXT_BOX: Final = (40, 150, 600, 40)
CANVAS: Final = (40, 260, 800, 400)

_STYLE: Final = f"""
* {{ box-sizing: border-box; }}
html, body {{ margin: 0; height: 100%; }}
body {{ font: 15px/1.5 "DejaVu Sans", system-ui, sans-serif; color: #1c2733; background: #eef2f6; }}
header {{ display: flex; align-items: center; gap: 32px; height: 64px; padding: 0 40px; color: #fff;
  background: #17324d; box-shadow: 0 1px 6px #0004; }}
header b {{ font-size: 19px; letter-spacing: .01em; white-space: nowrap; }}
header .tag {{ padding: 2px 10px; border-radius: 10px; background: #f2b441; color: #17324d; font-size: 12px;
  font-weight: bold; white-space: nowrap; }}
nav {{ display: flex; gap: 4px; flex: 1; }}
nav a {{ color: #cfe0f0; text-decoration: none; padding: 8px 14px; border-radius: 6px; }}
nav a:hover, nav a.here {{ background: #ffffff1f; color: #fff; }}
main {{ max-width: 960px; margin: 40px; }}
h1 {{ font-size: 24px; font-weight: 600; margin: 0 0 20px; }}
.card {{ background: #fff; border: 1px solid #d4dde6; border-radius: 10px; padding: 28px 32px;
  box-shadow: 0 2px 12px #17324d14; }}
main:has(.sign-in) {{ max-width: none; margin: 0; }}
.sign-in {{ width: 400px; margin: 110px auto 0; }}
label {{ display: block; margin: 14px 0 4px; font-weight: 600; font-size: 13px; }}
input:not([type=file]) {{ width: 100%; height: 40px; padding: 0 12px; font: inherit; border: 1px solid #9fb1c2;
  border-radius: 6px; background: #fff; }}
input:focus, canvas:focus {{ outline: 3px solid #4b9be355; border-color: #2f7fc8; }}
button, .button {{ display: inline-block; height: 40px; padding: 0 20px; font: inherit; font-weight: 600; border: 0;
  border-radius: 6px; color: #fff; background: #2f7fc8; cursor: pointer; text-decoration: none; line-height: 40px; }}
button:hover, .button:hover {{ background: #256aa9; }}
button.quiet {{ background: #60778d; }}
button.danger {{ background: #b8433a; }}
header button {{ height: 32px; line-height: 32px; background: #ffffff22; }}
.sign-in button {{ width: 100%; margin-top: 24px; }}
.error {{ margin: 0 0 6px; padding: 8px 12px; border-radius: 6px; color: #8c1d14; background: #fbe3e1; }}
.note {{ color: #5a6b7b; font-size: 13px; }}
.state {{ display: inline-flex; align-items: center; gap: 10px; font-size: 20px; font-weight: 600; }}
.state::before {{ content: ""; width: 16px; height: 16px; border-radius: 50%; background: #9aa7b3; }}
.state.on::before {{ background: #32a852; box-shadow: 0 0 8px #32a852; }}
.row {{ display: flex; gap: 12px; flex-wrap: wrap; margin-top: 22px; }}
.row form {{ margin: 0; }}
#text {{ position: absolute; left: {TEXT_BOX[0]}px; top: {TEXT_BOX[1]}px; width: {TEXT_BOX[2]}px;
  height: {TEXT_BOX[3]}px; }}
#canvas {{ position: absolute; left: {CANVAS[0]}px; top: {CANVAS[1]}px; width: {CANVAS[2]}px; height: {CANVAS[3]}px;
  background: #fff; box-shadow: 0 0 0 1px #9fb1c2; border-radius: 6px; cursor: crosshair; touch-action: none; }}
.at {{ position: absolute; left: 40px; margin: 0; }}
"""

# Events go to the server one batch after another, so that they arrive in the order in which they happened.
_SCRIPT: Final = """
const queue = [];
let sending = false;
function record(event) { queue.push(event); send(); }
async function send() {
  if (sending || !queue.length) return;
  sending = true;
  const body = JSON.stringify(queue.splice(0, 50));
  try { await fetch('/record', { method: 'POST', keepalive: true, body }); } catch { /* the panel has gone */ }
  sending = false;
  send();
}
addEventListener('pagehide', () => { if (queue.length) navigator.sendBeacon('/record', JSON.stringify(queue)); });
for (const field of document.querySelectorAll('input:not([type=file])')) {
  const hidden = field.type === 'password';
  field.addEventListener('keydown', event => record(hidden
    ? { kind: 'key', field: field.name, length: field.value.length }
    : { kind: 'key', field: field.name, key: event.key }));
  field.addEventListener('input', () => record(hidden
    ? { kind: 'text', field: field.name, length: field.value.length }
    : { kind: 'text', field: field.name, value: field.value }));
  for (const kind of ['click', 'select']) field.addEventListener(kind, () => record({ kind, field: field.name }));
}
"""

_CANVAS_SCRIPT: Final = """
const canvas = document.getElementById('canvas');
const pen = canvas.getContext('2d');
let points = null;
let drags = 0;
const spot = event => [Math.round(event.offsetX), Math.round(event.offsetY)];
pen.lineWidth = 4; pen.lineCap = pen.lineJoin = 'round'; pen.strokeStyle = '#2f7fc8';
canvas.addEventListener('pointerdown', event => {
  canvas.setPointerCapture(event.pointerId);
  points = [spot(event)];
  pen.beginPath(); pen.moveTo(...points[0]);
});
canvas.addEventListener('pointermove', event => {
  if (!points) return;
  if (points.length < 500) points.push(spot(event));
  pen.lineTo(...spot(event)); pen.stroke();
});
canvas.addEventListener('pointerup', event => {
  if (!points) return;
  points.push(spot(event));
  record({ kind: 'drag', button: event.button, points });
  points = null;
  document.getElementById('count').textContent = `Strokes that arrived: ${++drags}`;
});
document.getElementById('text').addEventListener('input', event => {
  document.getElementById('echo').textContent = `The page has: ${event.target.value}`;
});
"""


def page(server: str, body: str, *, here: str = "", signed_in: bool = False, script: str = "") -> str:
    """A whole page. ``server`` is the simulated server's name, ``here`` the path whose link is marked."""

    links = [("/power", "Power"), ("/try", "Keyboard and mouse"), ("/links", "Ways out"), ("/hold", "Hold on")]
    nav = "".join(
        f'<a href="{path}"{" class=here" if path == here else ""}>{label}</a>' for path, label in links if signed_in
    )
    leave = '<form method=post action="/logout"><button id=sign-out>Sign out</button></form>' if signed_in else ""
    return (
        f"<!DOCTYPE html><html lang=en><head><meta charset=utf-8><title>{TITLE}</title><style>{_STYLE}</style></head>"
        f"<body><header><b>{TITLE}</b><span class=tag>{escape(server)} is simulated</span><nav>{nav}</nav>{leave}"
        f"</header><main>{body}</main><script>{_SCRIPT}{script}</script></body></html>"
    )


def sign_in(server: str, *, error: str = "", hint: str = "") -> str:
    complaint = f'<p class=error id=error>{escape(error)}</p>' if error else ""
    note = f"<p class=note>{escape(hint)}</p>" if hint else ""
    return page(
        server,
        f"""<form class="card sign-in" method=post action="/login" autocomplete=off>
        <h1>Sign in</h1>{complaint}
        <label for=user>User name</label><input id=user name=user autofocus>
        <label for=password>Password</label><input id=password name=password type=password>
        <button id=sign-in>Sign in</button>{note}
        <p class=note><a href="/try" id=try>Try keyboard and mouse</a> without signing in</p></form>""",
    )


def power(server: str, state: str) -> str:
    actions = (("on", "Power on", ""), ("off", "Power off", "danger"), ("cycle", "Power cycle", "quiet"))
    buttons = "".join(
        f'<form method=post action="/power"><input type=hidden name=action value={action}>'
        f'<button id=power-{action} class="{style}">{label}</button></form>'
        for action, label, style in actions
    )
    return page(
        server,
        f"""<h1>Power</h1><div class=card><span class="state {state}" id=state>The server is {state}</span>
        <div class=row>{buttons}</div></div>
        <div class=row><button id=popup onclick="open('/popup', 'popup', 'width=720,height=480')">Open a pop-up
        window</button> <a class=button id=window href="/popup" target=_blank>Open a new window</a></div>""",
        here="/power",
        signed_in=True,
        script="setInterval(() => { if (document.hasFocus()) location.replace('/power'); }, 3000);",
    )


def try_out(server: str, *, signed_in: bool) -> str:
    x, y, _, _ = CANVAS
    return page(
        server,
        f"""<h1 class=at style="top: 80px">Keyboard and mouse</h1>
        <label class=at style="top: 122px" for=text>Text box</label><input id=text name=text autofocus>
        <p class="at note" id=echo style="top: 194px">Type something.</p>
        <label class=at style="top: 232px; left: {x}px">Canvas</label>
        <canvas id=canvas width={CANVAS[2]} height={CANVAS[3]}></canvas>
        <p class="at note" id=count style="top: {y + CANVAS[3] + 8}px">Draw with the mouse.</p>""",
        here="/try",
        signed_in=signed_in,
        script=_CANVAS_SCRIPT,
    )


def popup(server: str) -> str:
    return page(
        server,
        "<h1>Pop-up window</h1><div class=card>A panel's own window, as some open for their console."
        "<div class=row><button id=close onclick='window.close()'>Close this window</button></div></div>",
    )


def hold(server: str, *, signed_in: bool, alert: bool) -> str:
    """A page that does not want to be left."""

    return page(
        server,
        """<h1>A page that holds on</h1><div class=card>It asks whether you really want to leave.
        <label for=draft>Unsaved text</label><input id=draft name=draft>
        <div class=row><button id=alert onclick="alert('Simulated alert')">Show an alert</button>
        <button id=confirm onclick="confirm('Really?')">Ask</button></div></div>""",
        here="/hold",
        signed_in=signed_in,
        script="addEventListener('beforeunload', event => { event.preventDefault(); event.returnValue = 'stay'; });"
        + ("alert('Simulated alert');" if alert else ""),
    )


def links(server: str, elsewhere: str, *, signed_in: bool) -> str:
    """Ways out of the panel, which a console must not let anybody take."""

    targets = (
        ("elsewhere", elsewhere),
        ("file", "file:///etc/passwd"),
        ("source", "view-source:/"),
        ("data", "data:text/html,<h1>outside</h1>"),
        ("chrome", "chrome://settings"),
        ("about", "about:blank"),
        ("ssh", "ssh://root@192.0.2.1"),
        ("mail", "mailto:root@example.net"),
        ("download", "/download"),
    )
    items = "".join(
        f'<li><a id=to-{name} href="{escape(url)}">{escape(url)}</a> '
        f'<a id=new-{name} href="{escape(url)}" target=_blank>in a new window</a></li>'
        for name, url in targets
    )
    return page(
        server,
        f"""<h1>Ways out</h1><div class=card><ul>{items}</ul>
        <div class=row><button id=print onclick="print()">Print</button>
        <input type=file id=file></div></div>""",
        here="/links",
        signed_in=signed_in,
    )


def plain(server: str, text: str) -> str:
    return page(server, f"<h1>{escape(text)}</h1>")
