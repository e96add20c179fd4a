"""makeService: the only place where things are wired."""

from __future__ import annotations

import atexit
import functools
import os
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NoReturn

from twisted.application.service import MultiService
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ipmiproxyd import __version__
from ipmiproxyd.access.grants import GrantBook
from ipmiproxyd.agents.fleet import Fleet
from ipmiproxyd.agents.local import LocalAgent
from ipmiproxyd.config import Settings, jobs_beside
from ipmiproxyd.console.admission import Limits
from ipmiproxyd.console.agent_desk import AgentDesk, AgentMaker, DeskRooms
from ipmiproxyd.console.browser_sessions import KIND as BROWSER_SESSION
from ipmiproxyd.console.browser_sessions import BrowserSessions
from ipmiproxyd.console.displays import DisplayPools
from ipmiproxyd.console.html5_opening import Html5Opening
from ipmiproxyd.console.java_desk import JavaDesk
from ipmiproxyd.console.java_opening import JavaOpening
from ipmiproxyd.console.manager import ConsoleManager, Surroundings
from ipmiproxyd.console.opening import DebugOpening, PanelOpening, VncOpening, Workshop
from ipmiproxyd.console.provision_desk import ProvisionDesk, Provisioner
from ipmiproxyd.console.proxies import ProxyDesk
from ipmiproxyd.console.types import Types
from ipmiproxyd.console.web_sessions import KIND as WEB_SESSION
from ipmiproxyd.console.web_sessions import WebSessions
from ipmiproxyd.control.commands import Defaults, make_commands
from ipmiproxyd.control.listen import control_endpoint
from ipmiproxyd.control.server import ControlServer
from ipmiproxyd.daemon import DaemonService, Parts
from ipmiproxyd.doctor.bmc import BmcRooms
from ipmiproxyd.doctor.doctor import Doctor, DoctorRooms
from ipmiproxyd.doctor.trial import TrialRooms, Trials
from ipmiproxyd.errors import ProxyError
from ipmiproxyd.interfaces import Store, VncServer, agent_named
from ipmiproxyd.log import LoggedService, make_observer
from ipmiproxyd.model import CHROMIUM, NO_BROWSER, RemoteAgent, Secret
from ipmiproxyd.notify import Heartbeat, Notifier
from ipmiproxyd.options import Options
from ipmiproxyd.relay.backend import connect
from ipmiproxyd.relay.glimpse import shows
from ipmiproxyd.relay.host import WebRelayHost
from ipmiproxyd.relay.screenshot import capture
from ipmiproxyd.store.agents import StoredAgents
from ipmiproxyd.store.devices import StoredDevices
from ipmiproxyd.store.sqlite import SqliteStore
from ipmiproxyd.tools.browser import PanelBrowser
from ipmiproxyd.tools.curl import Curl
from ipmiproxyd.tools.ipmitool import ENTERPRISE_NUMBERS, ENTERPRISE_NUMBERS_PATH, IpmiPower
from ipmiproxyd.tools.java import JavaProgram
from ipmiproxyd.tools.java_console import JavaConsoles
from ipmiproxyd.tools.java_files import JavaFiles
from ipmiproxyd.tools.names import Names
from ipmiproxyd.tools.panel_http import PanelHttp
from ipmiproxyd.tools.vendors import VendorDesk
from ipmiproxyd.tools.xvnc import Display
from ipmiproxyd.vendors.registry import by_key

__all__ = ["Options", "makeService"]

KNOWN_HOSTS: Final = (Path("~/.ssh/known_hosts"), Path("/etc/ssh/ssh_known_hosts"))
"""The files of known hosts that ssh itself looks into."""

log = Logger()


def makeService(options: Options) -> MultiService:
    """The daemon as a service for twistd. Ends the process with status 1 and a plain line if it cannot be made."""

    from twisted.internet import reactor

    settings = options.settings
    try:
        service = LoggedService(make_observer(settings.log.level))
        daemon = make_daemon(settings, reactor, Notifier.from_environment(os.environ, os.getpid()))
    except (ProxyError, OSError) as error:
        _give_up(error)
    daemon.setServiceParent(service)  # type: ignore[no-untyped-call]
    return service


def make_daemon(settings: Settings, reactor: Any, notifier: Notifier) -> DaemonService:
    """Wire everything. Raises ProxyError or OSError for what is wrong already now."""

    settings.daemon.runtime_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
    endpoint = control_endpoint(settings, reactor)
    heartbeat = Heartbeat(notifier, reactor)
    heartbeat.start()
    reactor.addSystemEventTrigger("after", "shutdown", heartbeat.stop)

    _warn_of_missing_programs(settings)

    store = SqliteStore(settings.daemon.state_dir, reactor)
    agents = Fleet()
    agents.put(_local_agent(settings, reactor))
    displays = DisplayPools(agents, settings.displays.range[0], settings.displays.range[-1], reactor)
    grants = GrantBook(reactor, settings.relay.token_lifetime)
    relay = _relay(settings, reactor, grants)
    names = Names(curl=settings.panel.curl)
    curl = Curl(program=settings.panel.curl, connect_timeout=settings.panel.connect_timeout, names=names)
    panels = PanelHttp(curl, store, reactor)
    vendors = VendorDesk(panels, store, by_key(settings.vendors.values()), agents)
    web = WebSessions(vendors, panels, agents, reactor)
    browsers = BrowserSessions(vendors, panels, agents, reactor)
    javas = _javas(settings, reactor, panels, store)
    trials = _trials(settings, reactor, displays)
    types = Types(debug=settings.panel.debug, is_local=lambda name: name in agents and agents[name].kind == "local")
    around = Surroundings(
        store=store,
        agents=agents,
        displays=displays,
        relay=relay,
        grants=grants,
        limits=_limits(settings),
        capture=lambda server: capture(server, reactor),
        types=types,
        releases={WEB_SESSION: web.release, BROWSER_SESSION: browsers.release},
        is_away=lambda name: name in agents and agents[name].describe().get("connected") is False,
        trials=trials.jobs,
        clock=reactor,
    )
    consoles = _consoles(settings, around, panels, names, vendors, web, browsers, javas)
    proxies = ProxyDesk(store, relay, types, lambda name: name in agents, consoles.list)
    power = _power(settings, reactor, agents, store)
    bmc = BmcRooms(names=names, panels=panels, vendors=vendors, power=power, store=store)
    operators = AgentDesk(
        DeskRooms(
            fleet=agents,
            stored=StoredAgents(store),
            maker=_ssh_maker(settings, reactor),
            consoles=consoles,
            displays=displays,
            configured=_configured_agents(settings),
            proxies=proxies.list,
            doctor=Doctor(
                DoctorRooms(
                    trials=trials,
                    bmc=bmc,
                    javas=javas,
                    programs=functools.partial(_needed_programs, settings),
                    displays=settings.displays.range,
                    prefix=settings.agent.user_prefix,
                    consoles=consoles.list,
                    reactor=reactor,
                )
            ),
            limit=settings.consoles.limit_per_agent,
        )
    )
    defaults = _defaults(settings)
    daemon = DaemonService(
        Parts(
            store=store,
            agents=agents,
            load_agents=operators.load,
            displays=displays,
            consoles=consoles,
            supervisor=notifier,
            clock=reactor,
            on_stop=settings.daemon.on_stop,
            shown=_shown(settings, defaults),
            end_process=lambda status: _end_process(reactor, status),
        )
    )

    desk = JavaDesk(javas, agents, consoles.javas_in_use)
    hosts = ProvisionDesk(operators, desk, _provisioner(settings, reactor), reactor.seconds)
    table = make_commands(
        StoredDevices(store), power, consoles, vendors, desk, operators, hosts, proxies, daemon, defaults
    )
    daemon.serve(ControlServer(table, __version__, reactor), endpoint)
    return daemon


def _needed_programs(settings: Settings, browser: str = CHROMIUM) -> dict[str, list[str]]:
    """What an agent with such a browser needs, by what for."""

    displays, panel = settings.displays, settings.panel
    browsers = () if browser == NO_BROWSER else (panel.chromium if browser == CHROMIUM else browser,)
    needed = {
        "consoles": (displays.xvnc, displays.openbox, panel.curl, "bwrap"),
        "consoles in a browser (type=panel, html5)": browsers,
        "power actions": (settings.ipmi.ipmitool,),
        "consoles of unknown panels (vendor=generic)": ("nft",),
    }
    return {what: [shlex.split(program)[0] for program in programs] for what, programs in needed.items()}


def _warn_of_missing_programs(settings: Settings) -> None:
    """They may be installed later, so this is no reason not to start."""

    for what, programs in _needed_programs(settings).items():
        for program in programs:
            if shutil.which(program) is None:
                log.warn("{program} is not installed: {what} will not work", program=program, what=what)


def _jobs_folder(runtime_dir: Path) -> Path:
    """Where jobs are kept if the runner is not root. A daemon that is not root, either, may not write to /run."""

    beside = jobs_beside(runtime_dir)
    return beside if os.access(beside.parent, os.W_OK) else runtime_dir / "jobs"


def _local_agent(settings: Settings, reactor: Any) -> LocalAgent:
    mine = settings.agent
    return LocalAgent(
        mine.name,
        jobs_dir=_jobs_folder(settings.daemon.runtime_dir),
        jobs_name=mine.jobs_name,
        tool_home=settings.daemon.runtime_dir / "tools",
        home_files={ENTERPRISE_NUMBERS_PATH: ENTERPRISE_NUMBERS},
        python=mine.python,
        users=mine.users,
        user_prefix=mine.user_prefix,
        group=mine.group,
        lease=mine.lease,
        reactor=reactor,
    )


def _configured_agents(settings: Settings) -> list[RemoteAgent]:
    """Raises KeyRefused for a passphrase that cannot be read."""

    def passphrase(file: Path | None) -> Secret:
        if file is None:
            return Secret("")
        from ipmiproxyd.agents.ssh_keys import load_passphrase

        return load_passphrase(str(file))

    return [
        RemoteAgent(
            name=name,
            host=mine.host,
            port=mine.port,
            user=mine.user,
            key=mine.key,
            passphrase=passphrase(mine.passphrase_file),
            host_keys=mine.host_keys,
            folder=mine.folder,
            jobs_name=mine.jobs_name,
            runner=mine.runner,
            python=mine.python,
            users=mine.users,
            group=mine.group,
            transport=mine.transport,
            browser=mine.browser,
        )
        for name, mine in settings.agents.items()
    ]


def _ssh_maker(settings: Settings, reactor: Any) -> Callable[[], AgentMaker]:
    """Conch costs time and memory: it is loaded only where there are agents over SSH."""

    @functools.cache
    def maker() -> AgentMaker:
        from ipmiproxyd.agents.ssh_maker import SshMaker

        return SshMaker(
            reactor,
            home_files={ENTERPRISE_NUMBERS_PATH: ENTERPRISE_NUMBERS},
            user_prefix=settings.agent.user_prefix,
            lease=settings.agent.lease,
            displays=settings.displays.range,
            known_hosts=settings.daemon.known_hosts or KNOWN_HOSTS,
        )

    return maker


def _provisioner(settings: Settings, reactor: Any) -> Callable[[], Provisioner]:
    @functools.cache
    def provisioner() -> Provisioner:
        from ipmiproxyd.provision.provisioner import Provisioner as SshProvisioner

        return SshProvisioner(
            reactor,
            user_prefix=settings.agent.user_prefix,
            displays=settings.displays.range,
            java_dir=str(settings.java.dir),
            known_hosts=settings.daemon.known_hosts or KNOWN_HOSTS,
        )

    return provisioner


def _relay(settings: Settings, reactor: Any, grants: GrantBook) -> WebRelayHost:
    mine = settings.relay
    return WebRelayHost(
        reactor,
        grants,
        listen=mine.listen,
        ports=mine.ports,
        gateway=mine.gateway,
        certificate=mine.certificate,
        key=mine.key,
        public_host=mine.public_host,
        public_url=mine.public_url,
        allowed_origins=mine.allowed_origins,
        frame_ancestors=mine.frame_ancestors,
        viewers=mine.viewers,
        novnc=str(mine.novnc or ""),
        port_rest=mine.port_rest,
        ping=mine.ping,
        typing_pace=mine.typing_pace,
    )


def _javas(settings: Settings, reactor: Any, panels: PanelHttp, store: Store) -> JavaConsoles:
    mine = settings.java
    return JavaConsoles(
        JavaFiles(),
        panels,
        store,
        reactor,
        java_dir=str(mine.dir),
        archives=str(mine.archives),
        default=mine.default,
        pack200=mine.pack200,
    )


def _power(settings: Settings, reactor: Any, agents: Fleet, store: Store) -> IpmiPower:
    mine = settings.ipmi
    return IpmiPower(
        lambda name: agent_named(agents, name),
        store,
        reactor,
        program=mine.ipmitool,
        parallel=mine.parallel,
        timeout=mine.timeout,
        ciphers=mine.ciphers,
    )


def _limits(settings: Settings) -> Limits:
    mine = settings.consoles
    return Limits(
        total=mine.limit,
        per_agent=mine.limit_per_agent,
        per_user=mine.limit_per_user,
        unvisited=mine.unvisited,
        abandoned=mine.abandoned,
    )


def _display(settings: Settings) -> Display:
    return Display(
        geometry=settings.consoles.geometry,
        vnc=settings.displays.vnc,
        xvnc=settings.displays.xvnc,
        openbox=settings.displays.openbox,
    )


def _trials(settings: Settings, reactor: Any, displays: DisplayPools) -> Trials:
    async def seen(server: VncServer, colour: int, limit: float) -> None:
        await shows(server, colour, reactor, limit=limit)

    return Trials(
        TrialRooms(
            displays=displays,
            display=_display(settings),
            browser=PanelBrowser(program=settings.panel.chromium),
            chromium=settings.panel.chromium,
            shows=seen,
            clock=reactor,
        )
    )


def _consoles(
    settings: Settings,
    around: Surroundings,
    panels: PanelHttp,
    names: Names,
    vendors: VendorDesk,
    web: WebSessions,
    browsers: BrowserSessions,
    javas: JavaConsoles,
) -> ConsoleManager:
    check = functools.partial(_try_screen, clock=around.clock)
    workshop = Workshop(
        agents=around.agents,
        displays=around.displays,
        display=_display(settings),
        browser=PanelBrowser(program=settings.panel.chromium),
        panels=panels,
        names=names,
        check=check,
        lease=settings.agent.lease,
        start_timeout=settings.consoles.open_timeout,
    )
    # The stages ask the manager for the relay port, the manager starts the stages.
    stages: dict[str, Any] = {}
    manager = ConsoleManager(around, stages)
    stages["panel"] = PanelOpening(workshop, manager.serve, vendors, browsers.record)
    if settings.panel.debug:
        stages["panel-debug"] = DebugOpening(workshop, manager.serve, vendors, browsers.record)
    stages["html5"] = Html5Opening(workshop, manager.serve, vendors, web, browsers)
    stages["java"] = JavaOpening(workshop, manager.serve, vendors, web, javas, JavaProgram())
    stages["vnc"] = VncOpening(
        around.agents, manager.serve, check, around.clock, settings.consoles.open_timeout
    )
    return manager


async def _try_screen(server: VncServer, clock: IReactorTime) -> None:
    """Sign in at a VNC server and leave again. Raises what :func:`~ipmiproxyd.relay.backend.connect` raises."""

    (await connect(server, clock)).close()


def _defaults(settings: Settings) -> Defaults:
    mine = settings.consoles
    return Defaults(
        idle=mine.idle,
        max_time=mine.max,
        clipboard=mine.clipboard,
        login_buttons=mine.login_buttons,
        agent=settings.agent.name,
        fall_back=mine.fall_back,
        debug=settings.panel.debug,
        limits={
            "consoles": mine.limit,
            "per_agent": mine.limit_per_agent,
            "per_user": mine.limit_per_user,
            "displays": len(settings.displays.range),
            "relay_ports": len(settings.relay.ports),
            "viewers": settings.relay.viewers,
        },
    )


def _shown(settings: Settings, defaults: Defaults) -> dict[str, Any]:
    relay = settings.relay
    return {
        "relay": {
            "public_host": relay.public_host,
            "listen": list(relay.listen),
            "ports": f"{relay.ports[0]}-{relay.ports[-1]}" if relay.ports else "",
        },
        "limits": dict(defaults.limits),
        "defaults": defaults.told(),
        "on_stop": settings.daemon.on_stop,
    }


def _end_process(reactor: Any, status: int) -> None:
    if status:
        # twistd knows no exit status of its own: the interpreter's last act sets it.
        atexit.register(_exit_with, status)
    reactor.stop()


def _exit_with(status: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _give_up(error: ProxyError | OSError) -> NoReturn:
    words = " ".join(filter(None, (error.message, error.hint))) if isinstance(error, ProxyError) else str(error)
    print(f"ipmiproxyd cannot start: {words}", file=sys.stderr)
    raise SystemExit(1)
