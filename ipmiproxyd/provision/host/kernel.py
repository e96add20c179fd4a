"""Settings of the kernel that keep ordinary users from making namespaces, which sandboxes are made of."""

from __future__ import annotations

from ipmiproxyd.provision.host import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ipmiproxyd.provision.host.record import Change
    from ipmiproxyd.provision.host.work import Work

FILE = "/etc/sysctl.d/60-ipmiproxyd-agent.conf"
LEAST_NAMESPACES, NAMESPACES = 1024, 16384
# What is in the way, and what it is to be.
SETTINGS = {
    "kernel.unprivileged_userns_clone": (range(1), 1),
    "kernel.apparmor_restrict_unprivileged_userns": (range(1, 2), 0),
    "user.max_user_namespaces": (range(LEAST_NAMESPACES), NAMESPACES),
}


def _path(name: str) -> str:
    return f"/proc/sys/{name.replace('.', '/')}"


def _value(work: Work, name: str) -> int | None:
    text = (work.host.read(_path(name)) or "").strip()
    return int(text) if text.isdigit() else None


def put(work: Work) -> None:
    """What is there and in the way, now and after each start."""
    values = {name: _value(work, name) for name in SETTINGS}
    bad = [name for name, value in values.items() if value is not None and value in SETTINGS[name][0]]
    known = [name for name in SETTINGS if work.record.find("sysctl", name)]
    settings = [name for name in SETTINGS if name in bad or name in known]
    if not settings:
        return
    text = "# Made by ipmiproxyd: sandboxes need namespaces.\n"
    text += "".join(f"{name} = {SETTINGS[name][1]}\n" for name in settings)
    work.put(FILE, files.new_file(text.encode(), 0o644), f"Settings of the kernel: {FILE}")
    for name in settings:
        if name not in bad:
            work.want("sysctl", name)
        elif work.begin(f"{name} = {SETTINGS[name][1]}", "sysctl", name, before=values[name]):
            _write(work, name, SETTINGS[name][1])


def _write(work: Work, name: str, value: int) -> None:
    try:
        with open(work.host.path(_path(name)), "w") as file:
            file.write(f"{value}\n")
    except OSError as error:
        work.teller.warning(f"{name} on the host cannot be set to {value}: {error.strerror}")


def undo_setting(work: Work, change: Change) -> None:
    """Unless somebody gave it another value since."""
    name, before = change["key"], change["before"]
    now = _value(work, name)
    if now == SETTINGS[name][1] and now != before and work.tell(f"{name} = {before}, as before"):
        _write(work, name, before)
