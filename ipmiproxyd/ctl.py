"""``ipmiproxyctl``: the operator's command over the control protocol.

It knows no command of the daemon: what there is, the daemon itself tells (``ipmiproxyctl help``). Only ``setup`` is its
own: it prepares the machine, and works without a daemon.
"""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, BinaryIO, Final

from ipmiproxyd import __version__
from ipmiproxyd.control.absent import SOCKET
from ipmiproxyd.control.talk import Conversation, RefusedAtDoor, TalkError
from ipmiproxyd.control.view import View, choose_view
from ipmiproxyd.errors import BadRequest, BadValue, MissingArgument, UnknownArgument, UnknownCommand
from ipmiproxyd.wire.control import Done, Quit, Refused, Request, format_request, parse_request

DONE: Final = 0
REFUSED: Final = 1
FAULTY: Final = 1
"""Done, and the answer has ``problems``: ``agent check`` has found faults."""
USAGE: Final = 2
INTERRUPTED: Final = 130
NOBODY_READS: Final = 141

BROKEN_OFF: Final = "Broken off. The daemon stops what it was doing."
"""Where it has not told anything else in the request's progress."""
_LONGEST_SECRET: Final = 4096
_WRITTEN_WRONG: Final = frozenset(
    error.code for error in (BadRequest, UnknownCommand, UnknownArgument, MissingArgument, BadValue)
)

_EPILOG: Final = """\
requests:
  ipmiproxyctl help                               all commands
  ipmiproxyctl help console open                  what one of them takes
  ipmiproxyctl device add name=node17 address=10.0.0.17 username=ADMIN password=-
  ipmiproxyctl console open device=node17
  ipmiproxyctl power cycle device=node17 wait=30s
  ipmiproxyctl setup --dry-run                    this machine itself: see ipmiproxyctl setup --help
Without words, requests are read from standard input, one on a line, as the daemon itself
takes them: quoted as in a shell, # begins a comment.

secrets:
  A secret does not belong on a command line, where every user of the machine sees it:
  password=-      asks on the terminal, or reads a line from standard input
  password=@FILE  reads it from a file

exit status:
  0   done
  1   refused by the daemon, or the daemon cannot be reached; in a script: one request was refused;
      or done, and agent check has found faults (warnings are none)
  2   usage: the options or the request are written wrongly
      (bad-request, unknown-command, unknown-argument, missing-argument, bad-value)
  130 broken off with Ctrl-C; what was running is cancelled
"""


class UsageError(Exception):
    """The command line cannot be turned into a request."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ipmiproxyctl",
        description="Talk to a running ipmiproxyd: devices, power, consoles.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("words", nargs="*", metavar="WORD", help="noun verb [key=value …]")
    parser.add_argument(
        "--socket",
        metavar="PATH",
        default=os.environ.get("IPMIPROXYD_SOCKET") or SOCKET,
        help=f"the daemon's control socket (default: $IPMIPROXYD_SOCKET, or {SOCKET})",
    )
    parser.add_argument("--json", action="store_true", help="print each reply's JSON object on one line")
    parser.add_argument("--version", action="version", version=f"ipmiproxyctl {__version__}")
    return parser


class Operator:
    """Carries requests out over one conversation and shows what comes back."""

    def __init__(self, talk: Conversation, view: View, ask: Callable[[str], str]) -> None:
        """``ask`` returns a secret for the argument of the given name; it raises UsageError."""

        self._talk = talk
        self._view = view
        self._ask = ask
        self._broken_off = BROKEN_OFF

    def run(self, words: Sequence[str]) -> int:
        """One request. Returns the exit status; raises UsageError, TalkError."""

        reply = self._request(_line(self._with_secrets(words)))
        if isinstance(reply, Refused) and reply.code in _WRITTEN_WRONG:
            return USAGE
        return _status(reply)

    def run_script(self, lines: BinaryIO) -> int:
        """A request per line, each carried out whatever became of those before it."""

        status = DONE
        for line in lines:
            line = line.rstrip(b"\r\n")
            try:
                request = parse_request(line)
                if request is None:
                    continue
                if isinstance(request, Request):
                    words = [request.noun, request.verb, *(f"{key}={value}" for key, value in request.arguments)]
                    line = _line(self._with_secrets([word for word in words if word])).removesuffix(b"\n")
            except BadRequest as error:
                self._view.refused(Refused(error.code, error.message, error.hint, _object(error)))
                status = REFUSED
                continue
            status = _status(self._request(line + b"\n")) or status
            if isinstance(request, Quit):
                break
        return status

    def _request(self, line: bytes) -> Done | Refused:
        self._broken_off = BROKEN_OFF
        try:
            reply = self._talk.request(line, self._heard)
        except KeyboardInterrupt:
            self._view.error(self._broken_off, None)
            raise
        if isinstance(reply, Done):
            self._view.done(reply.data)
        else:
            self._view.refused(reply)
        return reply

    def _heard(self, progress: Mapping[str, Any]) -> None:
        if isinstance(words := progress.get("broken_off"), str):
            self._broken_off = f"Broken off. {words}"
        self._view.progress(progress)

    def _with_secrets(self, words: Sequence[str]) -> list[str]:
        """Fill in the secrets that are given as ``-`` or ``@FILE``; other arguments may have such values."""

        marked = [word for word in words[2:] if word.partition("=")[2] == "-" or "=@" in word]
        secret = self._secret_names(words[:2]) if marked else frozenset()
        filled = list(words[:2])
        for word in words[2:]:
            name, _, value = word.partition("=")
            is_secret = name.replace("-", "_") in secret
            if is_secret and value == "-":
                value = self._ask(name)
            elif is_secret and value.startswith("@"):
                value = _secret_file(name, value[1:])
            filled.append(f"{name}={value}" if "=" in word else word)
        return filled

    def _secret_names(self, command: Sequence[str]) -> frozenset[str]:
        reply = self._talk.request(_line(["help", *command]), lambda _: None)
        if isinstance(reply, Refused):
            return frozenset()  # the request itself will be refused, in better words
        return frozenset(row["name"] for row in reply.data.get("arguments", []) if row.get("secret"))


def _status(reply: Done | Refused) -> int:
    if isinstance(reply, Refused):
        return REFUSED
    return FAULTY if reply.data.get("problems") else DONE


def _line(words: Sequence[str]) -> bytes:
    try:
        return format_request(*words)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _object(error: BadRequest) -> dict[str, str]:
    return {"message": error.message} if error.hint is None else {"message": error.message, "hint": error.hint}


def _secret_file(name: str, path: str) -> str:
    try:
        with open(path, encoding="utf-8", newline="") as file:
            text = file.read(_LONGEST_SECRET)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise UsageError(f"the file for {name}= cannot be read: {reason}") from None
    return text.rstrip("\r\n")


def _ask(name: str) -> str:
    """A secret from the terminal, or a line of standard input."""

    if sys.stdin.isatty():
        try:
            return getpass.getpass(f"{name}: ")
        except EOFError:
            print()
            raise UsageError(f"no {name} was given") from None
    line = sys.stdin.readline(_LONGEST_SECRET)
    if not line:
        raise UsageError(f"standard input has no line for {name}=")
    return line.rstrip("\r\n")


def _ask_beside_script(name: str) -> str:
    raise UsageError(f"{name}=- cannot be read from standard input, where the script comes from: use {name}=@FILE")


def _run(options: argparse.Namespace, view: View) -> int:
    with Conversation(options.socket) as talk:
        if options.words:
            return Operator(talk, view, _ask).run(options.words)
        return Operator(talk, view, _ask_beside_script).run_script(sys.stdin.buffer)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status; ``--help`` says what it means."""

    words = sys.argv[1:] if arguments is None else arguments
    if words[:1] == ["setup"]:
        from ipmiproxyd.setup.command import main as setup

        return setup(words[1:])
    parser = _parser()
    options = parser.parse_intermixed_args(words)
    if not options.words and sys.stdin.isatty():
        parser.print_help(sys.stderr)
        return USAGE
    view = choose_view(as_json=options.json)
    try:
        return _run(options, view)
    except RefusedAtDoor as error:
        view.refused(error.reply)
        return REFUSED
    except TalkError as error:
        view.error(f"error: {error.message}", error.hint)
        return REFUSED
    except UsageError as error:
        view.error(f"usage: {error}", "See ipmiproxyctl --help.")
        return USAGE
    except KeyboardInterrupt:
        view.end()
        return INTERRUPTED
    except BrokenPipeError:
        # Python would complain once more when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return NOBODY_READS


if __name__ == "__main__":
    sys.exit(main())
