"""Chromium, or another browser made from it, locked down to one BMC's web panel."""

from __future__ import annotations

import ipaddress
import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, Final
from urllib.parse import urlsplit

from ipmiproxyd.agents.sandbox import HOME, LIBRARY
from ipmiproxyd.interfaces import Agent
from ipmiproxyd.model import CHROMIUM, PROGRAM_PLACES, JobFile, Program, Ready, Secret
from ipmiproxyd.tools import steer
from ipmiproxyd.tools.bridged import LEAST, Bridges, OwnCertificate
from ipmiproxyd.vendors.family import Page
from ipmiproxyd.vendors.ports import Port, ranges

_POLICY: Final = "panel.json"
_PROFILE: Final = f"{HOME}/profile"
_STEER: Final = "ipmiproxyd-steer.py"

_NOWHERE: Final = "127.0.0.1:9"
"""The proxy for all but the panel: nobody listens there, and none but root could. URLBlocklist stops only pages and
frames; this stops what a page fetches from elsewhere too."""

# What starting a browser costs beyond the one page that is wanted here, and what would call its maker.
_QUIET: Final = (
    "--no-first-run",
    "--no-default-browser-check",
    "--no-pings",
    "--disable-background-networking",
    "--disable-breakpad",
    "--disable-client-side-phishing-detection",
    "--disable-component-extensions-with-background-pages",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-domain-reliability",
    "--disable-extensions",
    "--disable-field-trial-config",
    "--disable-quic",
    "--disable-search-engine-choice-screen",
    "--disable-session-crashed-bubble",
    "--disable-sync",
    "--metrics-recording-only",
    "--password-store=basic",
    "--disable-features=MediaRouter,OptimizationHints,OptimizationGuideModelDownloading,Translate,"
    "InterestFeedContentSuggestions,CalculateNativeWinOcclusion,GlobalMediaControls,DialMediaRouteProvider,"
    "AutofillServerCommunication,CertificateTransparencyComponentUpdater,HttpsUpgrades,HttpsFirstBalancedMode,"
    # Two renderers of its own for every window's address field.
    "WebUIOmniboxPopup,WebUIOmniboxAimPopup",
)

# An Xvnc has no graphics card: drawing in the browser's own threads is what it would end with anyway.
_DRAWING: Final = (
    "--disable-gpu",
    "--disable-gpu-compositing",
    "--disable-software-rasterizer",
    "--disable-smooth-scrolling",
    "--disk-cache-size=1",
)

# Chromium's policies: https://chromeenterprise.google/policies/. 2 is "block" for the content settings.
_POLICIES: Final[dict[str, Any]] = {
    # The star leaves out the browser's own pages.
    "URLBlocklist": ["*", "chrome://*", "chrome-untrusted://*", "chrome-extension://*", "edge://*", "brave://*"],
    "AlwaysOpenPdfExternally": True,
    "DeveloperToolsAvailability": 2,
    "DownloadRestrictions": 3,
    "AllowFileSelectionDialogs": False,
    "PrintingEnabled": False,
    "PasswordManagerEnabled": False,
    "AutofillAddressEnabled": False,
    "AutofillCreditCardEnabled": False,
    "BrowserSignin": 0,
    "SyncDisabled": True,
    "IncognitoModeAvailability": 1,
    "BrowserGuestModeEnabled": False,
    "BrowserAddPersonEnabled": False,
    "ExtensionInstallBlocklist": ["*"],
    "BookmarkBarEnabled": False,
    "EditBookmarksEnabled": False,
    "TranslateEnabled": False,
    "SpellcheckEnabled": False,
    "SearchSuggestEnabled": False,
    "DefaultSearchProviderEnabled": False,
    "AlternateErrorPagesEnabled": False,
    "NetworkPredictionOptions": 2,
    "SafeBrowsingProtectionLevel": 0,
    "MetricsReportingEnabled": False,
    "BackgroundModeEnabled": False,
    "PromotionsEnabled": False,
    "ComponentUpdatesEnabled": False,
    "CommandLineFlagSecurityWarningsEnabled": False,
    "SSLErrorOverrideAllowed": False,
    "DefaultPopupsSetting": 1,
    "DefaultNotificationsSetting": 2,
    "DefaultGeolocationSetting": 2,
    "DefaultWebUsbGuardSetting": 2,
    "DefaultWebBluetoothGuardSetting": 2,
    "DefaultSerialGuardSetting": 2,
    "DefaultWebHidGuardSetting": 2,
    "DefaultFileSystemReadGuardSetting": 2,
    "DefaultFileSystemWriteGuardSetting": 2,
    "DefaultLocalFontsSetting": 2,
    "DefaultWindowManagementSetting": 2,
    "AudioCaptureAllowed": False,
    "VideoCaptureAllowed": False,
    "ScreenCaptureAllowed": False,
    "AllowDinosaurEasterEgg": False,
    "HttpsOnlyMode": "disallowed",
    "QuicAllowed": False,
    "WebRtcIPHandling": "disable_non_proxied_udp",
    "DnsOverHttpsMode": "off",
    "BuiltInDnsClientEnabled": False,
    "TaskManagerEndProcessEnabled": False,
}


# For debugging: what holds then is the job's own network alone.
_DEBUG: Final[dict[str, Any]] = {
    **{name: value for name, value in _POLICIES.items() if name != "URLBlocklist"},
    "DeveloperToolsAvailability": 1,
}
# The developer tools load thousands of modules: that would fill the log.
_VERBOSE: Final = ("--enable-logging=stderr", "--v=1", "--vmodule=modulator_impl_base=0")

_SPELT_OUT: Final = 32
"""Ports that are told one by one to a browser; of more, it is told that all ports of the panel's host are fine."""

# For steer.py, which has to attach to a page. The developer tools themselves are a page, and stay blocked.
_ATTACHABLE: Final[dict[str, Any]] = {
    "DeveloperToolsAvailability": 1,
    "URLBlocklist": [*_POLICIES["URLBlocklist"], "devtools://*"],
}


class PanelBrowser:
    """Makes the job's program for a console in a browser: Chromium, started and steered by ``steer.py``.

    The panel fills the screen and has no browser around it. What it opens comes as a window of its own that can be
    closed: a pop-up by the window manager's button, a new tab by the button of its browser window.

    On an agent that is to have another browser, it is that one.

    :param program: Chromium's command, quoted as in a shell if it has words of its own.
    """

    NAME: Final = "Chromium"

    def __init__(self, *, program: str = CHROMIUM) -> None:
        self._chromium = tuple(shlex.split(program))
        self._steer_text = Path(steer.__file__).read_text()
        self._bridges = Bridges()

    def programs(
        self,
        agent: Agent,
        url: str,
        pin: str | None,
        page: Page | None = None,
        ports: Sequence[Port] = (),
        *,
        tls: str = "modern",
    ) -> tuple[Program, tuple[JobFile, ...]]:
        """The agent's browser on ``url``, and its policy.

        :param pin: see :meth:`ipmiproxyd.tools.curl.Curl.look`; only that certificate is accepted although no
            authority vouches for it.
        :param page: the page to be shown, signed in already, instead of the first one: nothing of it is in the command
            line, the environment or a file.
        :param ports: what the panel's pages may connect to beside its own port.
        :param tls: what the panel speaks, see :data:`ipmiproxyd.tools.curl.TLS_PROFILES`. If the browser does not, the
            panel is behind a bridge.
        """

        def make(pin: str | None, way: Mapping[str, Any]) -> tuple[Program, tuple[JobFile, ...]]:
            return self._shown(agent, url, pin, page, way)

        return self._on_the_way(agent, make, url, pin, ports, tls)

    def debugging(
        self, agent: Agent, url: str, pin: str | None, ports: Sequence[Port] = (), *, tls: str = "modern"
    ) -> tuple[Program, tuple[JobFile, ...]]:
        """An ordinary browser window on ``url``, with its address field and its developer tools, which says much to its
        standard error. Nothing of its own keeps it from going elsewhere. Arguments as of :meth:`programs`."""

        def make(pin: str | None, _way: Mapping[str, Any]) -> tuple[Program, tuple[JobFile, ...]]:
            told = {"origin": origin_in_script(url), "door": True}
            policy = {**_DEBUG, "NewTabPageLocation": f"{url}/"}
            return self._program(agent, (*_VERBOSE, f"{url}/"), pin, Ready.WINDOW, told, policy)

        return self._on_the_way(agent, make, url, pin, ports, tls)

    def _on_the_way(
        self, agent: Agent, make: _Make, url: str, pin: str | None, ports: Sequence[Port], tls: str
    ) -> tuple[Program, tuple[JobFile, ...]]:
        """A browser that reaches the panel, by itself or by a bridge."""

        if pin is None or tls not in LEAST:
            return make(pin, _direct(url, ports))
        own = OwnCertificate.make(urlsplit(url).hostname or "")
        program, files = make(own.pin, {})
        program, file = self._bridges.behind(agent.python, program, url, tuple(ports), pin, tls, own)
        return program, (*files, file)

    def _shown(
        self, agent: Agent, url: str, pin: str | None, page: Page | None, way: Mapping[str, Any]
    ) -> tuple[Program, tuple[JobFile, ...]]:
        """Locked down, on the whole screen."""

        told: dict[str, Any] = {"origin": origin_in_script(url), "door": True}
        if page is not None:
            told |= {"url": f"{url}{page.path}", "cookies": dict(page.cookies), "storage": dict(page.storage)}
            told |= {"referer": f"{url}{page.referer}"} if page.referer else {}
        policy = {**_POLICIES, "URLAllowlist": [origin_of(url)], "NewTabPageLocation": f"{url}/", **way}
        if page is not None and (page.storage or page.referer):
            policy |= _ATTACHABLE
        first = f"--app={url}/" if page is None else "--no-startup-window"
        ready = Ready.WINDOW if page is None else Ready.TOLD
        return self._program(agent, ("--kiosk", "--disable-logging", first), pin, ready, told, policy)

    def _program(
        self,
        agent: Agent,
        options: Sequence[str],
        pin: str | None,
        ready: Ready,
        told: Mapping[str, Any],
        policy: Mapping[str, Any],
    ) -> tuple[Program, tuple[JobFile, ...]]:
        is_usual = agent.browser == CHROMIUM
        command = self._chromium if is_usual else (agent.browser,)
        # The configuration's own may be another build, too.
        place = PROGRAM_PLACES.get(PurePath(command[0]).name, PROGRAM_PLACES[CHROMIUM])
        start = (agent.python, "-I", "-S", f"{LIBRARY}/{_STEER}")
        trust = () if pin is None else (f"--ignore-certificate-errors-spki-list={pin}",)
        common = (f"--user-data-dir={_PROFILE}", *_QUIET, *_DRAWING, *trust)
        program = Program(
            name=self.NAME if is_usual else agent.browser,
            argv=(*start, *command, *common, *options),
            ready=ready,
            stdin=Secret(json.dumps(told)),
            door=True,
        )
        return program, (
            JobFile(place=place, name=_POLICY, text=json.dumps(policy)),
            JobFile(place="library", name=_STEER, text=self._steer_text),
        )


_Make = Callable[[str | None, Mapping[str, Any]], tuple[Program, tuple[JobFile, ...]]]
"""Makes a browser's program from the key that it is to trust, and from the part of its policy about the way there."""


def _direct(url: str, ports: Sequence[Port]) -> dict[str, Any]:
    """The policy for a browser that speaks to the panel by itself."""

    host = host_and_port(url).rpartition(":")[0]
    more = ranges(ports)
    direct = [host_and_port(url)]
    if sum(last - first + 1 for first, last in more) > _SPELT_OUT:
        direct.append(host)
    else:
        direct += [f"{host}:{port}" for first, last in more for port in range(first, last + 1)]
    return {
        "ProxySettings": {
            "ProxyMode": "fixed_servers",
            "ProxyServer": _NOWHERE,
            "ProxyBypassList": ";".join(["<-loopback>", *direct]),
        },
    }


def origin_in_script(url: str) -> str:
    """A server as the pages' scripts see it: its port is named unless it is the scheme's own."""

    parts = urlsplit(url)
    usual = {"http": 80, "https": 443}[parts.scheme]
    where = host_and_port(url).lower()
    return f"{parts.scheme}://{where.removesuffix(f':{usual}')}"


def host_and_port(url: str) -> str:
    """The server of a URL, its port always named."""

    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _is_ipv4(host: str) -> bool:
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        return False
    return True


def origin_of(url: str) -> str:
    """Exactly one server in the language of URLAllowlist: scheme, a dot that forbids sub-domains, host and port."""

    parts = urlsplit(url)
    no_sub_domains = "" if ":" in (parts.hostname or "") or _is_ipv4(parts.hostname or "") else "."
    return f"{parts.scheme}://{no_sub_domains}{host_and_port(url)}"
