"""The daemon's key in the account's authorized_keys, for nothing but commands and forwarding."""

from __future__ import annotations

import re

from ipmiproxyd.provision.host import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ipmiproxyd.provision.host.work import Work

RESTRICT = "restrict"
RESTRICTED = f"{RESTRICT},port-forwarding"
KINDS = ("ssh-", "ecdsa-", "sk-")
OPTIONS = re.compile(r'(?:"(?:\\"|[^"])*"|[^\s"])+')
OPTION = re.compile(r'(?:"(?:\\"|[^"])*"|[^,"])+')


def parsed(line: str) -> tuple[list[str], str] | None:
    """The options and the key of a line, as sshd reads it; None for one that lets nobody in."""
    options, rest = "", line.strip()
    if not rest.startswith(KINDS):
        match = OPTIONS.match(rest)
        if rest.startswith("#") or not match:
            return None
        options, rest = match[0], rest[match.end() :]
    words = rest.split()
    if len(words) < 2 or not words[0].startswith(KINDS):
        return None
    return OPTION.findall(options.lower()), words[1]


def put_key(work: Work) -> None:
    """Of several lines with the same key sshd takes the first. Those of others are left, and told if they let in for
    more; those that we put there for a key that is not the daemon's any more go."""
    entry = work.host.entries("passwd").get(work.account)
    if entry is None:  # in a dry run
        work.tell(f"The daemon's key for the account {work.account}")
        return
    uid, gid, folder = int(entry[2]), int(entry[3]), f"{entry[5]}/.ssh"
    path = f"{folder}/authorized_keys"
    now = files.look(work.host.root, path)
    there = files.content_of(now).decode("utf-8", "surrogateescape").split("\n")
    if not there[-1]:
        there.pop()
    wanted = [f"{RESTRICTED} {key.strip()}" for key in work.document["public_key"].splitlines() if key.strip()]
    # Two daemons may share an account.
    ours: dict[str, Sequence[str]] = (work.record.find("file", path) or {}).get("lines", {})
    mine = ours.get(work.document["jobs_name"], ())
    left = [line for line in there if line.strip() not in mine or line.strip() in wanted]
    new = _lacking(work, path, left, wanted)
    work.folder(folder, files.new_folder(0o700, uid, gid))
    if left == there and not new:
        work.want("file", path)
        return
    content = "".join(f"{line}\n" for line in [*left, *new]).encode("utf-8", "surrogateescape")
    mode, uid, gid = (now["mode"], now["uid"], now["gid"]) if now["type"] == "file" else (0o600, uid, gid)
    ours = {**ours, work.document["jobs_name"]: [*(line for line in mine if line in left), *new]}
    words = f"The daemon's key for the account {work.account}"
    _is_looked_for(work)
    work.put(path, files.new_file(content, mode, uid, gid), words, lines=ours)


def _lacking(work: Work, path: str, lines: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """What of it has to be added to these lines."""
    found = [(line.strip(), parsed(line)) for line in lines]
    new = []
    for line in wanted:
        _, key = parsed(line) or ([], "")
        others = [one[0] for text, one in found if one and one[1] == key and text != line]
        if any(RESTRICT not in options for options in others):
            work.teller.warning(
                f"{path} has the daemon's key in somebody else's line, too, without restrict: that is left, and counts"
            )
        # Whoever set options of their own may have meant to allow less than ours do.
        if not any(others) and line not in (text for text, _ in found):
            new.append(line)
    return new


def _is_looked_for(work: Work) -> None:
    """sshd may have been told to look for keys elsewhere."""
    if not (sshd := work.host.which("sshd")):
        return
    done = work.host.run([sshd, "-T", "-C", f"user={work.account},host=localhost,addr=127.0.0.1"])
    match = re.search(r"^authorizedkeysfile (.*)$", done.output, re.MULTILINE)
    if match and not {".ssh/authorized_keys", "%h/.ssh/authorized_keys"} & set(match[1].split()):
        work.teller.warning(
            f"sshd looks for keys in {match[1]}, and not in ~/.ssh/authorized_keys, where the key is put"
        )
