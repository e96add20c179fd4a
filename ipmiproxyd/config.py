"""The configuration file: TOML in, frozen settings out, with every mistake reported at once.

Each setting is declared once, below: its kind and its default. ``etc/ipmiproxyd.toml`` shows and explains them all;
a test holds the two in step. In the file a name may be written with ``-`` or ``_``. Times are seconds here.
"""

# ruff: noqa: RUF009 - setting() returns a dataclasses.field

from __future__ import annotations

import dataclasses
import os
import re
import socket
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final, Literal, get_args

from ipmiproxyd import config_kinds as kinds
from ipmiproxyd.config_kinds import AGENT_NAME, AGENT_NAME_WORDS, SOCKET_PATH_LIMIT, KindError
from ipmiproxyd.config_sections import Problem, read_section, setting, suggestion
from ipmiproxyd.model import Clipboard, ConsoleType, Transport
from ipmiproxyd.vendors.generic import Generic, read_generic

NumberRange = range
"""First to last number, both included: a Python range, so that ``in``, ``len`` and iteration are what they seem."""

HOUR: Final = 3600.0
DAY: Final = 24 * HOUR
YEAR: Final = 365 * DAY
LONGEST_JOB_ID: Final = 24
VNC_BASE_PORT: Final = 5900


# --- the sections -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonSettings:
    """[daemon] ``known_hosts`` is empty for the files that ssh looks into."""

    state_dir: Path = setting(kinds.path, "/var/lib/ipmiproxyd")
    runtime_dir: Path = setting(kinds.path, "/run/ipmiproxyd")
    on_stop: Literal["keep", "close"] = setting(kinds.choice("keep", "close"), "keep")
    known_hosts: tuple[Path, ...] = setting(kinds.list_of(kinds.path, empty=True), [])


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """[log]"""

    level: str = setting(kinds.choice("debug", "info", "warn", "error", "critical"), "info")


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlSettings:
    """[control] ``group`` is "" for the daemon's own."""

    socket: Path = setting(kinds.path_or_default, "")
    mode: int = setting(kinds.mode, "0660")
    group: str = setting(kinds.group, "")


@dataclass(frozen=True, slots=True, kw_only=True)
class RelaySettings:
    """[relay] ``ports`` is empty for none, ``gateway`` None for none, its address "" for those of ``listen``.
    ``public_host`` is as it stands in a URL; ``novnc`` is None for the copy that came with the package."""

    listen: tuple[str, ...] = setting(kinds.list_of(kinds.address, empty=False), ["0.0.0.0", "::"])  # noqa: S104
    ports: NumberRange = setting(kinds.span_or_none(1, 65535), "6081-6200")
    gateway: tuple[str, int] | None = setting(kinds.listen_place, "")
    certificate: Path | None = setting(kinds.path_or_none, "")
    key: Path | None = setting(kinds.path_or_none, "")
    public_host: str = setting(kinds.public_host, "")
    public_url: str = setting(kinds.public_url, "")
    allowed_origins: tuple[str, ...] = setting(kinds.list_of(kinds.origin, empty=True), [])
    frame_ancestors: tuple[str, ...] = setting(kinds.frame_ancestors, ["'self'"])
    viewers: int = setting(kinds.whole(1, 10000), 16)
    novnc: Path | None = setting(kinds.path_or_none, "")
    token_lifetime: float = setting(kinds.duration(1, DAY), "5m")
    port_rest: float = setting(kinds.duration(0, DAY), "60s")
    ping: float = setting(kinds.duration(1, HOUR), "20s")
    typing_pace: float = setting(kinds.duration(0.001, 10), "20ms")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsolesSettings:
    """[consoles] ``limit_per_agent`` and ``limit_per_user`` are 0 for no limit; ``idle`` and ``max`` None for never."""

    limit: int = setting(kinds.whole(1, 60000), 120)
    limit_per_agent: int = setting(kinds.whole(0, 60000), 100)
    limit_per_user: int = setting(kinds.whole(0, 60000), 0)
    idle: float | None = setting(kinds.duration_or_never(1, YEAR), "10m")
    max: float | None = setting(kinds.duration_or_never(1, YEAR), "never")
    unvisited: float = setting(kinds.duration(1, YEAR), "2m")
    abandoned: float = setting(kinds.duration(1, YEAR), "5m")
    clipboard: Clipboard = setting(kinds.choice(*get_args(Clipboard)), "both")
    login_buttons: bool = setting(kinds.switch, True)
    fall_back: tuple[ConsoleType, ...] = setting(
        kinds.list_of(kinds.choice("java", "html5", "panel", "vnc"), empty=True), ["java", "html5", "panel"]
    )
    geometry: str = setting(kinds.geometry, "1280x1024")
    open_timeout: float = setting(kinds.duration(1, HOUR), "60s")


@dataclass(frozen=True, slots=True, kw_only=True)
class DisplaysSettings:
    """[displays] A display's VNC port is 5900 + its number."""

    range: NumberRange = setting(kinds.span(1, 65535 - VNC_BASE_PORT), "1-100")
    vnc: Literal["unix", "tcp"] = setting(kinds.choice("unix", "tcp"), "unix")
    xvnc: str = setting(kinds.program, "Xvnc")
    openbox: str = setting(kinds.program, "openbox")


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """[agent] ``group`` is "" for the daemon's own."""

    name: str = setting(kinds.name(AGENT_NAME.pattern, AGENT_NAME_WORDS), "local")
    jobs_name: str = setting(kinds.jobs_name, "")
    python: str = setting(kinds.program, "/usr/bin/python3")
    users: Literal["auto", "always", "never"] = setting(kinds.choice("auto", "always", "never"), "auto")
    user_prefix: str = setting(
        kinds.name(
            r"[a-z_](?:[a-z0-9_-]{0,22}[a-z_-])?",
            "at most 24 small letters, digits, _ and -, the last one no digit (a Unix user's name)",
        ),
        "easydcim_vnc_",
    )
    group: str = setting(kinds.group, "")
    lease: float = setting(kinds.duration(1, YEAR), "15m")


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteAgentSettings:
    """[agents.NAME] An agent on another machine. ``folder`` and ``jobs_name`` are "" for their defaults there."""

    NEEDED: ClassVar[tuple[str, ...]] = ("host", "key")

    host: str = setting(kinds.host, "")
    port: int = setting(kinds.whole(1, 65535), 22)
    user: str = setting(kinds.name(r"[a-z_][a-z0-9_.-]{0,31}", "a Unix user's name"), "ipmiproxyd")
    key: str = setting(kinds.ssh_key, "")
    passphrase_file: Path | None = setting(kinds.path_or_none, "")
    host_keys: tuple[str, ...] = setting(kinds.list_of(kinds.ssh_fingerprint, empty=True), [])
    folder: str = setting(kinds.agent_path, "")
    jobs_name: str = setting(kinds.jobs_name, "")
    runner: str = setting(kinds.agent_path, "/usr/local/lib/ipmiproxyd/runner.py")
    python: str = setting(kinds.program, "/usr/bin/python3")
    users: Literal["auto", "always", "never"] = setting(kinds.choice("auto", "always", "never"), "auto")
    group: str = setting(kinds.group, "")
    transport: Transport = setting(kinds.choice("ssh", "direct"), "ssh")
    browser: str = setting(kinds.browser, "chromium")


@dataclass(frozen=True, slots=True, kw_only=True)
class IpmiSettings:
    """[ipmi]"""

    ipmitool: str = setting(kinds.program, "ipmitool")
    parallel: int = setting(kinds.whole(1, 1000), 16)
    timeout: float = setting(kinds.duration(1, 600), "20s")
    ciphers: tuple[int, ...] = setting(kinds.list_of(kinds.whole(1, 17), empty=False), [17, 3])


@dataclass(frozen=True, slots=True, kw_only=True)
class PanelSettings:
    """[panel]"""

    chromium: str = setting(kinds.program, "chromium")
    curl: str = setting(kinds.program, "curl")
    connect_timeout: float = setting(kinds.duration(0.5, 120), "10s")
    debug: bool = setting(kinds.switch, False)


@dataclass(frozen=True, slots=True, kw_only=True)
class JavaSettings:
    """[java] Folders on the agent; ``pack200`` is a class path, or empty."""

    default: str = setting(
        kinds.name(r"[a-z0-9][a-z0-9_.-]{0,39}", "the name of a Java, as java list tells it"), "jdk_8u121"
    )
    dir: Path = setting(kinds.path, "/opt/ipmiproxyd/java")
    archives: Path = setting(kinds.path, "/var/lib/ipmiproxyd/java-archives")
    pack200: str = setting(kinds.name(r"|/[^\0\n]{1,4000}", "a class path on the agent, or empty"), "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The whole configuration. Defaults that follow from other settings are filled in when it is made."""

    daemon: DaemonSettings = DaemonSettings()
    log: LogSettings = LogSettings()
    control: ControlSettings = ControlSettings()
    relay: RelaySettings = RelaySettings()
    consoles: ConsolesSettings = ConsolesSettings()
    displays: DisplaysSettings = DisplaysSettings()
    agent: AgentSettings = AgentSettings()
    ipmi: IpmiSettings = IpmiSettings()
    panel: PanelSettings = PanelSettings()
    java: JavaSettings = JavaSettings()
    vendors: Mapping[str, Generic] = field(default_factory=dict)
    agents: Mapping[str, RemoteAgentSettings] = field(default_factory=dict)

    def __post_init__(self) -> None:
        runtime = self.daemon.runtime_dir
        if self.control.socket == Path():
            self._fill("control", socket=runtime / "control.sock")
        if not self.agent.jobs_name:
            own = re.search(kinds.JOBS_NAME, runtime.name, re.ASCII)
            self._fill("agent", jobs_name=own[0] if own else "main")
        if not self.relay.public_host:
            self._fill("relay", public_host=socket.gethostname().lower() or "localhost")

    def _fill(self, section: str, **values: object) -> None:
        object.__setattr__(self, section, dataclasses.replace(getattr(self, section), **values))


def jobs_beside(runtime_dir: Path) -> Path:
    """Where the local agent's jobs are kept, if its runner is not root."""

    return runtime_dir.with_name(runtime_dir.name + "-jobs")


_SECTIONS: Final[Mapping[str, Any]] = {
    item.name: type(item.default) for item in dataclasses.fields(Settings) if item.name not in ("vendors", "agents")
}
"""The sections' names and classes."""


# --- mistakes ---------------------------------------------------------------------------------------------------------


class ConfigError(Exception):
    """The configuration cannot be used. As text: one mistake per line."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


# --- reading ----------------------------------------------------------------------------------------------------------


def load(path: Path) -> Settings:
    """The settings of a file. Blocks; meant for the start. Raises :class:`ConfigError`."""

    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError([Problem(str(path), f"cannot be read: {error.strerror or error}")]) from None
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError([Problem(f"line {line}", "is not UTF-8 text")]) from None
    return parse(text)


def parse(text: str) -> Settings:
    """The settings that a text of TOML gives; what it does not mention has its default.

    Raises :class:`ConfigError` with all mistakes.
    """

    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([_syntax_problem(str(error))]) from None
    problems: list[Problem] = []
    vendors = _read_vendors(document.pop("vendor", {}), problems)
    agents = _read_agents(document.pop("agents", {}), problems)
    read = {
        section: read_section(section, _SECTIONS[section], raw, problems, partial(_elsewhere, but=section))
        for section, raw in _sections(document, problems)
    }
    sections = {name: _SECTIONS[name](**values) for name, values in read.items()}
    settings = Settings(vendors=vendors, agents=agents, **sections)
    problems += _cross_check(settings, {problem.key.partition("[")[0] for problem in problems})
    if problems:
        raise ConfigError(problems)
    return settings


def every_key() -> Iterator[str]:
    """Every setting there is, as ``section.name``, in the order of this file."""

    for name, section in _SECTIONS.items():
        yield from (f"{name}.{item.name}" for item in dataclasses.fields(section))


def _syntax_problem(message: str) -> Problem:
    explanation, _, place = message.removesuffix(")").rpartition(" (at ")
    if not explanation:
        return Problem("syntax", message)
    return Problem(place if place.startswith("line ") else "at its end", f"is not TOML: {explanation}")


def _sections(document: Mapping[str, Any], problems: list[Problem]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for written, raw in document.items():
        if written in _SECTIONS and isinstance(raw, dict):
            yield written, raw
        elif written in _SECTIONS:
            problems.append(Problem(written, f"is a section: write [{written}] on a line of its own"))
        elif isinstance(raw, dict):
            problems.append(Problem(f"[{written}]", f"there is no such section{suggestion(written, _SECTIONS)}"))
        else:
            problems.append(Problem(written, f"stands outside of any section{_elsewhere(written, '')}"))


def _read_agents(described: object, problems: list[Problem]) -> dict[str, RemoteAgentSettings]:
    """The agents on other machines: [agents.NAME]."""

    if not isinstance(described, dict) or not all(isinstance(raw, dict) for raw in described.values()):
        problems.append(Problem("agents", "are sections: write [agents.NAME] on a line of its own"))
        return {}
    agents: dict[str, RemoteAgentSettings] = {}
    for name, raw in described.items():
        key = f"agents.{name}"
        if not AGENT_NAME.fullmatch(name):
            problems.append(Problem(key, f"is no name for an agent: it may have {AGENT_NAME_WORDS}"))
        values = read_section(key, RemoteAgentSettings, raw, problems)
        missing = [need for need in RemoteAgentSettings.NEEDED if not values.get(need)]
        told = {problem.key for problem in problems}
        problems += [Problem(f"{key}.{need}", "must be set") for need in missing if f"{key}.{need}" not in told]
        if not missing:
            agents[name] = RemoteAgentSettings(**values)
    return agents


def _read_vendors(described: object, problems: list[Problem]) -> dict[str, Generic]:
    """The families of panels that a site describes: [vendor.KEY]."""

    if not isinstance(described, dict):
        problems.append(Problem("vendor", "is a section: write [vendor.NAME] on a line of its own"))
        return {}
    families: dict[str, Generic] = {}
    for key, section in described.items():
        try:
            families[key] = read_generic(key, section)
        except KindError as error:
            problems += [
                Problem(f"vendor.{key}" + (f".{place}" if place else ""), explanation)
                for place, explanation in error.mistakes
            ]
    return families


def _elsewhere(written: str, but: str) -> str:
    """A hint for a setting that stands in the wrong section."""

    name = written.replace("-", "_")
    homes = [key.partition(".")[0] for key in every_key() if key.partition(".")[2] == name]
    return f", it belongs in [{homes[0]}]" if len(homes) == 1 and homes[0] != but else ""


# --- what must fit together -------------------------------------------------------------------------------------------


def _cross_check(settings: Settings, failed: set[str]) -> list[Problem]:
    """The mistakes that no setting shows alone; a check is left out if one of its settings is wrong already."""

    checks: list[tuple[tuple[str, ...], Callable[[Settings], Problem | None]]] = [
        (("daemon.runtime_dir", "control.socket"), _control_path_fits),
        (("daemon.runtime_dir",), _display_path_fits),
        (("relay.ports", "displays.range", "displays.vnc"), _ports_are_apart),
        (("relay.ports", "relay.gateway"), _something_serves),
        (("relay.ports", "relay.gateway"), _gateway_is_no_relay_port),
        (("relay.gateway", "displays.range", "displays.vnc"), _gateway_is_no_display),
        (("relay.gateway", "relay.public_url"), _public_url_leads_somewhere),
        (("relay.certificate", "relay.key"), _key_has_a_certificate),
        (("agent.name", "agents"), _agents_have_names_of_their_own),
    ]
    found = [check(settings) for involved, check in checks if not failed.intersection(involved)]
    return [problem for problem in found if problem]


def _too_long(path: Path, inside: int) -> int:
    return len(os.fsencode(path)) + inside - SOCKET_PATH_LIMIT


def _control_path_fits(settings: Settings) -> Problem | None:
    over = _too_long(settings.control.socket, 0)
    if over <= 0:
        return None
    default = settings.control.socket == settings.daemon.runtime_dir / "control.sock"
    return Problem("daemon.runtime_dir" if default else "control.socket", _too_long_text("control socket", over))


def _display_path_fits(settings: Settings) -> Problem | None:
    over = _too_long(jobs_beside(settings.daemon.runtime_dir), len("/") + LONGEST_JOB_ID + len("/vnc/socket"))
    if over <= 0:
        return None
    return Problem("daemon.runtime_dir", _too_long_text("displays' sockets", over))


def _too_long_text(what: str, over: int) -> str:
    return (
        f"is {over} byte{'s' if over > 1 else ''} too long for the {what}: "
        f"the path of a UNIX socket has room for {SOCKET_PATH_LIMIT} bytes"
    )


def _ports_are_apart(settings: Settings) -> Problem | None:
    relay = settings.relay.ports
    if settings.displays.vnc != "tcp" or not relay:
        return None
    first, last = (VNC_BASE_PORT + settings.displays.range[end] for end in (0, -1))
    if last < relay[0] or relay[-1] < first:
        return None
    return Problem(
        "displays.range", f"gives the VNC ports {first}-{last}, which overlap relay.ports ({relay[0]}-{relay[-1]})"
    )


def _something_serves(settings: Settings) -> Problem | None:
    if settings.relay.ports or settings.relay.gateway is not None:
        return None
    return Problem("relay.gateway", 'must be set, such as to "0.0.0.0:6080", where relay.ports is empty')


def _gateway_is_no_relay_port(settings: Settings) -> Problem | None:
    gateway, ports = settings.relay.gateway, settings.relay.ports
    if gateway is None or gateway[1] not in ports:
        return None
    return Problem("relay.gateway", f"has a port that is one of relay.ports ({ports[0]}-{ports[-1]}): {gateway[1]}")


def _gateway_is_no_display(settings: Settings) -> Problem | None:
    gateway = settings.relay.gateway
    if settings.displays.vnc != "tcp" or gateway is None or gateway[1] - VNC_BASE_PORT not in settings.displays.range:
        return None
    return Problem("relay.gateway", f"has a port that is a display's VNC port, see displays.range: {gateway[1]}")


def _public_url_leads_somewhere(settings: Settings) -> Problem | None:
    if not settings.relay.public_url or settings.relay.gateway is not None:
        return None
    return Problem("relay.public_url", "needs relay.gateway: that is what it leads to")


def _key_has_a_certificate(settings: Settings) -> Problem | None:
    if settings.relay.key is None or settings.relay.certificate is not None:
        return None
    return Problem("relay.key", "needs relay.certificate")


def _agents_have_names_of_their_own(settings: Settings) -> Problem | None:
    if settings.agent.name not in settings.agents:
        return None
    return Problem(f"agents.{settings.agent.name}", "has the name of the local agent, see agent.name")
