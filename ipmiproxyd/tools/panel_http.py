"""Conversations with a BMC's web panel: drives a family's generators through curl on the agent.

One request at a time per panel: boards hang under two. Which TLS a panel speaks is found out once and remembered, as is
its key: the first that it shows is trusted, and another one later is refused until somebody says that it is right.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar
from urllib.parse import urljoin, urlsplit

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from ipmiproxyd.errors import BadCertificate, BmcError, ProxyError, TlsTooOld
from ipmiproxyd.interfaces import Agent, Store
from ipmiproxyd.model import Device
from ipmiproxyd.tools.curl import TLS_PROFILES, Curl, NoCommonTls, Trust
from ipmiproxyd.tools.turns import Turns
from ipmiproxyd.vendors.talk import Answer, Pause, Request, Site, Talk

T = TypeVar("T")

KIND: Final = "panel"
"""Kind of stored document: what is remembered of a panel, by its host. What a look by plain HTTP has found, or one that
trusts whatever it meets, is remembered apart: it says nothing to those who know a key."""

ANEW: Final = 86400.0
"""Seconds after which a panel that did not speak the best TLS is asked for it again: it may have got a new firmware, or
have broken off for some other reason."""

PATIENCE: Final = 60.0
AT_ONCE: Final = 32
QUEUE: Final = 128
"""Requests that may wait for one panel: as many consoles as there may be to it, each with one."""
MAX_PAUSE: Final = 15.0
MAX_STEPS: Final = 60

_MODERN: Final = next(iter(TLS_PROFILES))


class PanelHttp:
    """The way to the panels.

    :param clock: for pauses that panels ask for.
    """

    def __init__(self, curl: Curl, store: Store, clock: IReactorTime) -> None:
        self._curl = curl
        self._store = store
        self._clock = clock
        self._turns = Turns(clock, places=AT_ONCE, patience=PATIENCE, queue=QUEUE)

    async def trusted(self, agent: Agent, device: Device) -> tuple[str, str | None]:
        """The profile of TLS that the panel speaks, and its key's pin (None for plain HTTP).

        Raises BadCertificate if it shows another key than before, TlsTooOld, BmcUnreachable, BmcError.
        """

        url, key = device.web_url, _key(agent, device)
        known = await self._store.get(KIND, key) or {}
        first, looked, now = known.get("tls", _MODERN), known.get("looked", 0.0), self._clock.seconds()
        if now - looked >= ANEW:
            first, looked = _MODERN, now
        async with self._turns.turn(urlsplit(url).netloc):
            profile, pin = await self._look(agent, url, first)
        before = known.get("pin")
        if device.web_trust == "pin" and before and pin and pin != before:
            forget = f"ipmiproxyctl vendor forget device={device.label} agent={agent.name}"
            raise BadCertificate(
                f"The panel at {url} shows another certificate than before.",
                hint=f"If it was changed on purpose: {forget}",
            )
        found = {"tls": profile, "pin": pin, "looked": looked}
        if found != known:
            await self._store.put(KIND, key, found)
        return profile, pin

    async def forget(self, agent: Agent, device: Device) -> None:
        """Trust whatever key the panel shows next."""

        await self._store.delete(KIND, _key(agent, device))

    async def shared_with(self, device: Device, pin: str | None) -> list[str]:
        """Other panels that show the very same key: such a pin proves little."""

        mine = urlsplit(device.web_url).netloc
        known = await self._store.list(KIND) if pin else {}
        hosts = {key.partition(" ")[0] for key, document in known.items() if document.get("pin") == pin}
        return sorted(hosts - {mine})

    async def talk(self, agent: Agent, device: Device, make: Callable[[Site], Talk[T]]) -> T:
        """Have a conversation. Raises what the family raises, and what :meth:`trusted` does."""

        profile, pin = await self.trusted(agent, device)
        trust = _trust(device, pin)
        talk = make(self.site(device))
        step: Request | Pause
        try:
            step = next(talk)
            for _ in range(MAX_STEPS):
                if isinstance(step, Pause):
                    await deferLater(self._clock, min(step.seconds, MAX_PAUSE))
                    step = next(talk)
                    continue
                try:
                    answer = await self._ask(agent, device.web_url, step, profile, trust)
                except ProxyError as error:
                    step = talk.throw(error)  # a family may know another way
                else:
                    step = talk.send(answer)
        except StopIteration as end:
            result: T = end.value
            return result
        except (ValueError, RecursionError) as error:
            raise _odd(device.web_url) from error
        finally:
            talk.close()
        raise BmcError(f"The conversation with the panel at {device.web_url} does not end.")

    async def download(self, agent: Agent, device: Device, origin: str, request: Request, path: str) -> int:
        """Fetch a large file from the panel into a file on the agent. Returns the status of the answer; only with 200
        the file is what was asked for. ``origin``: scheme and host, the panel's own or another that is known as good.
        Raises what :meth:`talk` raises."""

        profile, pin = await self.known(agent, device)
        async with self._turns.turn(urlsplit(device.web_url).netloc), self._turns.place():
            return await self._curl.fetch(agent, origin, request, profile, _trust(device, pin), path)

    async def known(self, agent: Agent, device: Device) -> tuple[str, str | None]:
        """What :meth:`trusted` has found before; only a panel that nothing is known of is looked at."""

        known = await self._store.get(KIND, _key(agent, device))
        return await self.trusted(agent, device) if known is None else (known["tls"], known["pin"])

    def site(self, device: Device) -> Site:
        parts = urlsplit(device.web_url)
        own = device.web_username or bool(device.web_password)
        return Site(
            scheme="http" if parts.scheme == "http" else "https",
            host=parts.netloc,
            address=parts.hostname or device.address,
            username=device.web_username if own else device.username,
            password=device.web_password if own else device.password,
            now=int(self._clock.seconds() * 1000),
        )

    async def _look(self, agent: Agent, url: str, first: str) -> tuple[str, str | None]:
        profiles = list(TLS_PROFILES)
        # The one that is known to work, then from the best downwards.
        for profile in dict.fromkeys([first, *profiles]):
            try:
                return profile, await self._curl.look(agent, url, profile)
            except NoCommonTls:
                continue
        raise TlsTooOld(
            f"The panel at {url} speaks no TLS that can be spoken here.",
            hint="It may know nothing but RC4 or 3DES, or be no HTTPS at all: try web=http://…, or a newer firmware.",
        )

    async def _ask(self, agent: Agent, url: str, request: Request, profile: str, trust: Trust) -> Answer:
        path = request.path
        for _ in range(request.redirects + 1):
            async with self._turns.turn(urlsplit(url).netloc), self._turns.place():
                asked = request if path == request.path else _again(request, path)
                answer = await self._curl.ask(agent, url, asked, profile, trust)
            if not (request.redirects and 300 <= answer.status < 400 and answer.header("location")):
                return answer
            path = _within(url, path, answer.header("location"))
        raise BmcError(f"The panel at {url} redirects without end.")


def _trust(device: Device, pin: str | None) -> Trust:
    return Trust(pin if device.web_trust == "pin" and pin else "", device.web_trust == "ca")


def _again(request: Request, path: str) -> Request:
    """The request that follows a redirect: a plain one to another page."""

    return Request(
        path, headers=request.headers, cookies=request.cookies, digest=request.digest, limit=request.limit,
        ignore_length=request.ignore_length, timeout=request.timeout,
    )  # fmt: skip


def _key(agent: Agent, device: Device) -> str:
    """Under what a panel is remembered: behind another agent the same address is another panel."""

    parts = urlsplit(device.web_url)
    key = f"{parts.netloc} {agent.name}" + ("" if parts.scheme == "https" else f" {parts.scheme}")
    return key if device.web_trust == "pin" else f"{key} {device.web_trust}"


def _odd(url: str) -> BmcError:
    return BmcError(f"The panel at {url} answers in a way that nobody understands.", hint="Open it with type=panel.")


def _within(url: str, path: str, location: str) -> str:
    try:
        target = urlsplit(urljoin(url + path, location))
    except ValueError:
        raise _odd(url) from None
    here = urlsplit(url)
    if (target.scheme, target.netloc) != (here.scheme, here.netloc):
        raise BmcError(f"The panel at {url} redirects to another place.")
    return target._replace(scheme="", netloc="", fragment="").geturl() or "/"
