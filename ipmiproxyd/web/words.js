// Plain words for every code that a person may meet. Nothing here touches the page.

const MINUTE = 60;

/** code: [tone, title, text, what to do next] — tone is calm, warn or bad. */
const WORDS = {
  // the console was closed
  "closed": ["calm", "The console was closed", "Somebody ended it from the panel or from the command line.", "Open a new one when you need it."],
  "viewer": ["calm", "The console was closed", "Somebody on this console pressed Close.", "Open a new one when you need it."],
  "mine": ["calm", "You closed the console", "Everything it used has been given back.", "Open a new one when you need it."],
  "idle": ["calm", "Closed because nobody used it", "No key was pressed and the mouse was not moved for a while.", "Open a new console to go on."],
  "unvisited": ["calm", "Closed because nobody came", "The console was ready, but no browser connected in time.", "Open a new one, and open its link soon."],
  "abandoned": ["calm", "Closed because everybody had left", "No browser was connected to the console for a while.", "Open a new console to go on."],
  "max-time": ["calm", "The console's time is over", "It reached the longest time that a console may stay open.", "Open a new console to go on."],
  "replaced": ["calm", "Another console took its place", "A new console to the same server was opened instead of this one.", "Use the new console's link."],
  "shutdown": ["warn", "The console server was stopped", "All its consoles were closed.", "Open a new console when it is back."],
  "restart": ["warn", "The console server was restarted", "All its consoles were closed.", "Open a new console."],
  "agent-removed": ["calm", "The place where the console ran was taken away", "The agent on which it ran was removed.", "Open a new console: it may run elsewhere."],
  "cancelled": ["calm", "Opening was cancelled", "Whoever asked for this console did not wait for it.", "Open a new one."],

  // it could not be opened, or broke
  "job-failed": ["bad", "The console's program ended", "It stopped by itself, so there is nothing left to show.", "Open a new console. If it happens again, tell your administrator."],
  "agent-unreachable": ["bad", "The console's host cannot be reached", "The machine next to the servers that runs consoles does not answer.", "Try again in a minute. If it stays so, tell your administrator."],
  "tool-missing": ["bad", "A program is missing", "The machine that runs consoles lacks a program that this one needs.", "Tell your administrator."],
  "agent-host-key": ["bad", "The host at the server's site cannot be trusted", "It shows another key than the one that is known.", "Tell your administrator."],
  "agent-host-key-unknown": ["bad", "The host at the server's site is not known yet", "Nobody has said which key it has.", "Tell your administrator."],
  "agent-key": ["bad", "The host at the server's site lets nobody in", "The gateway's key is not accepted there, or cannot be used.", "Tell your administrator."],
  "agent-outdated": ["bad", "The host at the server's site is not up to date", "Its runner is another version than the gateway's.", "Tell your administrator."],
  "agent-sudo": ["bad", "The host at the server's site cannot be set up", "The administrator's account may not do there what root may.", "Tell your administrator."],
  "system-unsupported": ["bad", "The host at the server's site is of an unknown kind", "Its operating system cannot be set up by itself.", "Tell your administrator."],
  "packages-failed": ["bad", "The host at the server's site is not set up", "Its package manager did not do what it was asked for.", "Tell your administrator."],
  "busy": ["warn", "Somebody else is at it just now", "The same is being done already.", "Try again in a while."],
  "agent-full": ["bad", "There is no room for another console just now", "The host at the server's site has no memory or disk left.", "Close other consoles, or try again in a while."],
  "bmc-unreachable": ["bad", "The server's management board does not answer", "Nothing came back from its address.", "Check that the board has power and network, then open a new console."],
  "bmc-auth": ["bad", "The management board refused the sign-in", "The stored user name or password is not right.", "Have the device's credentials corrected, then open a new console."],
  "bmc-privilege": ["bad", "Not allowed on the management board", "The stored user may not do this.", "Have the device's user changed, then open a new console."],
  "bmc-state": ["bad", "Not possible right now", "The server is not in a state in which this can be done.", "Try again later."],
  "bmc-unsupported": ["bad", "The management board cannot do this", "It does not know what it was asked.", "Tell your administrator."],
  "bmc-error": ["bad", "The management board reported an error", "It answered, but not with what was asked for.", "Try again. If it happens again, tell your administrator."],
  "bmc-no-slot": ["bad", "The management board has no free session", "It allows only a few sign-ins at a time.", "Wait until an old one has timed out, or sign somebody out there."],
  "bmc-no-licence": ["bad", "The server has no licence for a remote screen", "Its management board says that the licence is missing.", "Use the board's own panel, or have the licence installed."],
  "bmc-html5-only": ["bad", "This board has no Java console", "It shows its remote screen in a page only.", "Open a console of another type: html5, or panel."],
  "bmc-locked": ["bad", "The management board is locked", "It accepts no sign-in for a while, mostly after wrong passwords.", "Wait, then open a new console."],
  "bmc-tls-too-old": ["bad", "The management board is too old to speak with", "Its encryption is older than anything that is known here.", "A newer firmware of the board may help."],
  "vendor-unknown": ["bad", "The management board is of an unknown kind", "Its panel was not recognised.", "Have the device's vendor set, or use a console of type panel."],
  "bad-jnlp": ["bad", "The Java console cannot be used", "What the management board handed out is not a Java console, or asks for what it may not have.", "Tell your administrator."],
  "bad-certificate": ["bad", "The server's certificate is not trusted", "It is not the one that is expected, or nobody vouches for it.", "Tell your administrator: its fingerprint may have to be stored anew."],
  "no-free-port": ["warn", "All places are taken", "Every port for consoles is in use.", "Close a console that is not needed, or try again in a minute."],
  "no-free-display": ["warn", "All places are taken", "Every display for consoles is in use.", "Close a console that is not needed, or try again in a minute."],
  "limit": ["warn", "Too many consoles", "As many consoles as are allowed are open.", "Close one that is not needed, then open this one again."],
  "timeout": ["bad", "It took too long", "The console was not ready in time.", "Open a new one. If it happens again, tell your administrator."],
  "internal": ["bad", "Something went wrong on the console server", "The fault is ours, not yours.", "Open a new console. The server's log knows more."],

  // this browser may not come in
  "used-link": ["warn", "This link cannot be used", "This link was already used or has expired. Ask for a new one.", "A link opens a console once, in one browser."],
  "used-link-no-memory": ["warn", "This link cannot be used", "This link was already used or has expired. Ask for a new one.", "This browser lets the page remember nothing here, so loading it again needs a new link."],
  "no-link": ["warn", "This page needs a link", "The address alone does not open a console.", "Ask for a link, or open the console from your panel."],
  "expired": ["warn", "You can no longer use this console", "It was closed, or your right to it was withdrawn.", "Ask for a new link."],
  "revoked": ["warn", "Your access was withdrawn", "Somebody took back your right to this console. The console itself may go on for others.", "Ask for a new link if you still need it."],
  "in-use": ["warn", "Something still needs it", "It cannot be changed while it is in use.", "Try again later."],
  "forbidden": ["warn", "You may not use this console", "The server did not accept this browser.", "Ask for a new link."],

  // the way to the server
  "unreachable": ["bad", "The console server cannot be reached", "It has not answered for a while.", "Check your network. The console may still be running."],
  "agent-away": ["wait", "Waiting for the connection", "The connection to the place where the console runs is lost.", "Your console keeps running; this page goes on by itself as soon as it is back."],
  "no-display": ["bad", "The screen does not answer", "The console server answers, but where the console runs, its screen does not.", "Try again, or close the console and open a new one. If it stays so, tell your administrator."],
  "no-screen": ["bad", "The screen cannot be connected", "The server answers, but the connection for the picture does not come about.", "A proxy in between may not pass WebSockets, or this address is not among the allowed ones."],
  "no-room": ["warn", "No room for another viewer", "The server's screen takes no more viewers just now.", "Try again when somebody has left."],
  "screen-refused": ["bad", "The server's screen refuses the connection", "It cannot be shown with what is known about it.", "Try again. If it stays so, tell your administrator."],
  "page-fault": ["bad", "This page has failed", "The fault is ours, not yours. The console may still be running.", "Load the page again."],
  "no-viewer": ["bad", "A part of this page is missing", "The viewer could not be loaded.", "Load the page again. If it stays so, tell your administrator: the noVNC files are not in their place."],
};

const UNKNOWN = ["warn", "The console is closed", "", "Open a new console to go on."];

/** Words of a code. `message` and `hint` are the server's own text and win over ours, except where they would say the title again. */
export function explain(code, { message = "", hint = "", idle = null } = {}) {
  const known = Object.hasOwn(WORDS, code);
  const [tone, title, text, next] = known ? WORDS[code] : UNKNOWN;
  const ours = code === "idle" && idle ? `No key was pressed and the mouse was not moved for ${span(idle)}.` : text;
  const keepOurs = code.startsWith("used-link") || ["mine", "shutdown", "restart"].includes(code);
  return {
    tone,
    title,
    text: keepOurs ? ours : message || ours || code,
    next: keepOurs ? next : hint || next,
  };
}

/** Why a request was refused, in one line; `silence` is said where no answer came. */
export function refusal({ code, serverMessage, hint }, silence) {
  if (!code) return silence;
  const message = serverMessage || explain(code).text;
  return hint ? `${message.replace(/[^.!?]$/, "$&.")} ${hint}` : message;
}

const STATES = {
  starting: "Loading",
  opening: "Starting",
  connecting: "Connecting",
  connected: "Connected",
  reconnecting: "Reconnecting",
  closing: "Closing",
  over: "Closed",
};

/** One word or two for the status line and the page's title. */
export function stateWord(state) {
  return Object.hasOwn(STATES, state) ? STATES[state] : state;
}

/** 600 → "10 minutes". */
export function span(seconds) {
  if (seconds < 2 * MINUTE && seconds !== MINUTE) return `${Math.round(seconds)} seconds`;
  const minutes = Math.round(seconds / MINUTE);
  if (minutes < 120) return minutes === 1 ? "1 minute" : `${minutes} minutes`;
  return `${Math.round(minutes / 60)} hours`;
}

/** 1234 → "1.2 s". */
export function duration(ms) {
  return ms < 9950 ? `${(ms / 1000).toFixed(1)} s` : `${Math.round(ms / 1000)} s`;
}
