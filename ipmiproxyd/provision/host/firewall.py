"""A table of our own in the kernel's firewall: nobody outside reaches the ports of displays, but for daemons that are
to connect to them (``transport=direct``). Other tables are not touched, and still decide for themselves."""

from __future__ import annotations

import hashlib
import ipaddress

from ipmiproxyd.provision.host import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ipmiproxyd.provision.host.record import Change
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
PartOf=nftables.service
ReloadPropagatedFrom=nftables.service
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
    apply(work, tenants)
    if not work.dry_run and work.record.changes and work.record.tenants != tenants:
        work.record.tenants = tenants
        work.record.save()


def apply(work: Work, tenants: Mapping[str, Object]) -> None:
    text = rules(tenants)
    changed = work.put(RULES, files.new_file(text.encode(), 0o644), f"The rules of the firewall: {RULES}")
    unit = files.new_file(UNIT.encode(), 0o644)
    if not files.same(files.look(work.host.root, f"{UNITS}/{UNIT_NAME}"), unit) and not work.dry_run:
        work.record.begin(work.stage, "units", UNIT_NAME)
    new = work.put(f"{UNITS}/{UNIT_NAME}", unit, f"The unit {UNIT_NAME}, which loads them after a restart")
    new = work.put(WANTS, files.new_link(f"{UNITS}/{UNIT_NAME}"), f"{UNIT_NAME} is enabled") or new
    _load(work, text, changed)
    if new and not work.dry_run:
        _systemctl(work, "daemon-reload")
        _systemctl(work, "start", UNIT_NAME)


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
