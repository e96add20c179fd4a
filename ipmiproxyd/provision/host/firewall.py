"""A table of our own in the kernel's firewall: nobody outside reaches the ports of displays, but for daemons that are
to connect to them (``transport=direct``). Other tables are not touched, and still decide for themselves."""

from __future__ import annotations

import hashlib
import ipaddress
import re

from ipmiproxyd.provision.host import accounts, files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ipmiproxyd.provision.host.files import State
    from ipmiproxyd.provision.host.record import Change
    from ipmiproxyd.provision.host.system import Host
    from ipmiproxyd.provision.host.work import Object, Work

TABLE = ("inet", "ipmiproxyd_agent")
KEY = " ".join(TABLE)
RULES = "/etc/ipmiproxyd-agent.nft"
UNIT_NAME = "ipmiproxyd-agent-firewall.service"
UNITS = "/etc/systemd/system"
WANTS = f"{UNITS}/multi-user.target.wants/{UNIT_NAME}"
BOOTED = "/run/systemd/system"
PORTS = 5900
UNIT = f"""# Made by ipmiproxyd.
[Unit]
Description=Firewall of the ipmiproxyd agent: the ports of displays
DefaultDependencies=no
After=nftables.service
Wants=network-pre.target
Before=network-pre.target shutdown.target
Conflicts=shutdown.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/sbin/nft -f {RULES}
ExecReload=/usr/sbin/nft -f {RULES}

[Install]
WantedBy=multi-user.target
"""
DROP_IN = f"{UNITS}/nftables.service.d/ipmiproxyd-agent.conf"
AFTERWARDS = f"""# Made by ipmiproxyd: nftables.service removes all tables when it is started, loaded anew or stopped.
[Service]
ExecStartPost=-/usr/sbin/nft -f {RULES}
ExecReload=-/usr/sbin/nft -f {RULES}
ExecStopPost=-/usr/sbin/nft -f {RULES}
"""
LISTENS = "0A"
LOOPBACK = r"(?:0{16}FFFF0000)?[0-9A-F]{6}7F|0{24}01000000"
"""As /proc has addresses: by words of four bytes, in the order of the machine's."""


def facts(document: Object) -> Object:
    """What the rules must know of a tenant."""
    ports = _ranges(PORTS + number for number in document["displays"])
    return {"ports": ports, "daemon": _address(document) if document["transport"] == "direct" else ""}


def _address(document: Object) -> str:
    """Raises ValueError where it is none."""
    if not document["daemon_address"]:
        return ""
    address = ipaddress.ip_address(document["daemon_address"].partition("%")[0])
    return str(getattr(address, "ipv4_mapped", None) or address)


def _ranges(numbers: Iterable[int]) -> list[str]:
    found: list[list[int]] = []
    for number in sorted(set(numbers)):
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return [str(first) if first == last else f"{first}-{last}" for first, last in found]


def rules(tenants: Mapping[str, Object]) -> str:
    """For nft: replaces the table in one step."""
    lines = ['iifname "lo" accept']
    for one in sorted(tenants.values(), key=str):
        if one["daemon"]:
            kind = "ip6" if ":" in one["daemon"] else "ip"
            lines.append(f"{kind} saddr {one['daemon']} tcp dport {{ {', '.join(one['ports'])} }} accept")
    lines += sorted({f"tcp dport {{ {', '.join(one['ports'])} }} drop" for one in tenants.values()})
    body = "".join(f"\t\t{line}\n" for line in ["type filter hook input priority 0; policy accept;", *lines])
    return f"# Made by ipmiproxyd.\ntable {KEY}\ndelete table {KEY}\ntable {KEY} {{\n\tchain input {{\n{body}\t}}\n}}\n"


def put(work: Work) -> None:
    """For all tenants, and the present account."""
    document = work.document
    if document["transport"] == "direct" and not document["daemon_address"]:
        work.teller.warning("The daemon's address is not known: it cannot connect to the ports of displays")
    tenants = {**work.record.tenants, work.account: facts(document)}
    _tell_of_others(work)
    apply(work, tenants)
    if not work.dry_run and work.record.changes and work.record.tenants != tenants:
        work.record.tenants = tenants
        work.record.save()


def _tell_of_others(work: Work) -> None:
    """Somebody's service at the ports of displays is cut off."""
    ports, ours = {PORTS + number for number in work.document["displays"]}, accounts.display_uids(work)
    if entry := work.host.entries("passwd").get(work.account):
        ours.add(int(entry[2]))
    found = ports.intersection(port for port, uid in listening(work.host) if uid not in ours)
    if found:
        work.teller.warning(
            f"Others' programs listen on ports of displays on the host, where nobody outside reaches them any more: "
            f"{', '.join(_ranges(found))}. Give them other ports, or the displays (displays.range of the daemon)"
        )


def listening(host: Host) -> list[tuple[int, int]]:
    """Ports of TCP that are open to others, with the number of whose they are."""
    found = []
    for name in ("tcp", "tcp6"):
        for fields in map(str.split, (host.read(f"/proc/net/{name}") or "").splitlines()[1:]):
            address, port = fields[1].split(":")
            if fields[3] == LISTENS and not re.fullmatch(LOOPBACK, address):
                found.append((int(port, 16), int(fields[7])))
    return found


def apply(work: Work, tenants: Mapping[str, Object]) -> None:
    text = rules(tenants)
    changed = work.put(RULES, _file(text), f"The rules of the firewall: {RULES}")
    units = (
        (f"{UNITS}/{UNIT_NAME}", UNIT, f"The unit {UNIT_NAME}, which loads them after a restart"),
        (DROP_IN, AFTERWARDS, f"They are loaded after nftables.service, too: {DROP_IN}"),
    )
    if all(files.digest(files.look(work.host.root, path)) == files.digest(_file(text)) for path, text, _ in units):
        work.want("units", UNIT_NAME)
    elif not work.dry_run:
        work.prepare()
        work.record.begin(work.stage, "units", UNIT_NAME)
    new = [work.put(path, _file(text), words) for path, text, words in units]
    new.append(work.put(WANTS, files.new_link(f"{UNITS}/{UNIT_NAME}"), f"{UNIT_NAME} is enabled"))
    _load(work, text, changed)
    if any(new) and not work.dry_run:
        _systemctl(work, "daemon-reload")
        _systemctl(work, "start", UNIT_NAME)


def _file(text: str) -> State:
    return files.new_file(text.encode(), 0o644)


def _load(work: Work, text: str, changed: bool) -> None:
    known, now = work.record.find("table", KEY), _listing(work)
    if known and not changed and now and _digest(now) == known["loaded"]:
        work.want("table", KEY)
        return
    change = work.begin("The firewall's rules are put in force", "table", KEY, before=now, loaded="")
    if change is None:
        return
    done = work.host.run(["nft", "-f", "-"], text)
    if done.status:
        work.teller.warning(f"The firewall's rules are not in force: {done.words}")
    change["loaded"] = _digest(_listing(work))
    work.record.save()


def _listing(work: Work) -> str:
    """The table as it is in force; empty if there is none."""
    if not work.host.which("nft"):
        return ""
    done = work.host.run(["nft", "list", "table", *TABLE])
    return "" if done.status else done.output


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _systemctl(work: Work, *words: str) -> None:
    """Where systemd is process 1; elsewhere its files are enough."""
    if work.host.exists(BOOTED):
        done = work.host.run(["systemctl", *words])
        if done.status:
            work.teller.warning(f"systemctl {' '.join(words)} failed on the host: {done.words}")


def undo_table(work: Work, change: Change) -> None:
    now, before = _listing(work), change["before"]
    if now == before or not work.tell("The firewall is as it was before"):
        return
    _systemctl(work, "stop", UNIT_NAME)
    removed = f"table {KEY}\ndelete table {KEY}\n"
    done = work.host.run(["nft", "-f", "-"], removed + before)
    if done.status:
        work.teller.warning(f"The firewall's rules could not be taken back: {done.words}")


def undo_units(work: Work, _: Change) -> None:
    """Once the unit's files are gone."""
    if not work.dry_run:
        _systemctl(work, "daemon-reload")
