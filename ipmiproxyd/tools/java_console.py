"""From a panel's description of its Java console to what a job needs: a Java, and the vendor's files in the cache."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from twisted.internet.interfaces import IReactorTime

from ipmiproxyd.errors import BadJnlp, BadValue, BmcError, BmcUnreachable, Exists, NotFound, ProxyError, ToolMissing
from ipmiproxyd.interfaces import Agent, Store
from ipmiproxyd.model import Device, LibraryFile
from ipmiproxyd.tools.java_files import JavaFiles
from ipmiproxyd.tools.java_profiles import DEFAULT, KNOWN, Java, archive, choose, installable, profile_in
from ipmiproxyd.tools.panel_http import PanelHttp
from ipmiproxyd.vendors.talk import Request, WebSession
from ipmiproxyd.wire.jars import PACKED, jar_urls, needed
from ipmiproxyd.wire.jnlp import Jar, Jnlp

AGENT_KIND: Final = "java"
"""Kind of stored document, one for each agent: its registered Javas, and the one to be used."""
JARS_KIND: Final = "jars"
"""Kind of stored document: what a panel's file was when it was fetched last. See :meth:`JavaConsoles._key`."""
INSTEAD_KIND: Final = "java-instead"
"""Kind of stored document: with which Java a vendor's program ran where it had died with another."""

FRESH: Final = 86400.0
"""Seconds for which a panel's file is taken from the cache without asking again."""
JAR_LIMIT: Final = 96 << 20
JAR_TIME: Final = 120.0
KIT_TIME: Final = 600.0
"""Seconds after which no other file is begun with."""


@dataclass(frozen=True, slots=True)
class Kit:
    """What a job needs beside its programs: the class path in order, and all files."""

    jars: tuple[LibraryFile, ...]
    library: tuple[LibraryFile, ...]


class JavaConsoles:
    """Javas on agents, and the vendors' files for them.

    :param java_dir: the folder on the agents where Javas are installed.
    :param archives: the folder there into which an administrator puts Oracle's archives.
    :param default: the profile that is used where nothing else is said.
    :param pack200: the class path of a library that unpacks, on the agents; may be empty.
    """

    def __init__(
        self,
        files: JavaFiles,
        panels: PanelHttp,
        store: Store,
        clock: IReactorTime,
        *,
        java_dir: str,
        archives: str,
        default: str = DEFAULT,
        pack200: str = "",
    ) -> None:
        self._files = files
        self._panels = panels
        self._store = store
        self._clock = clock
        self._java_dir = java_dir
        self._archives = archives
        self._default = default
        self._pack200 = pack200

    # --- Javas --------------------------------------------------------------------------------------------------------

    async def installed(self, agent: Agent) -> list[Java]:
        known = await self._known(agent)
        return await self._files.installed(agent, java_dir=self._java_dir, homes=known["homes"])

    async def choice(
        self, agent: Agent, installed: Sequence[Java], *, device: str = "", liked: str = ""
    ) -> tuple[Java, str]:
        """The Java to use, and what is to be told about that: what to do where the one that was chosen is missing.
        Raises ToolMissing.

        :param device: the choice of the device or its proxy, if they have one.
        :param liked: the profile that the panel's family likes: it counts where nobody has chosen.
        """

        use = (await self._known(agent))["use"]
        if not (device or use) and any(java.name == liked and java.graphics for java in installed):
            return choose(liked, installed)
        wanted = device or use or self._default
        java, words = choose(wanted, installed)
        if words and device:
            words += " To settle it: install that one, or change the device's java, or its proxy's."
        elif words:
            words += f" To settle it: {_use(agent, java.name)}, or install that one (see java list)."
        return java, words

    async def used(self, agent: Agent) -> str:
        """What ``java use`` was told; empty if nothing was."""

        use: str = (await self._known(agent))["use"]
        return use

    async def listing(self, agent: Agent) -> Mapping[str, Any]:
        """For ``java list``."""

        installed = await self.installed(agent)
        known = await self._known(agent)
        try:
            java, words = await self.choice(agent, installed)
        except ToolMissing as error:
            java, words = None, " ".join(filter(None, (error.message, error.hint)))
        there = set(await self._files.archives(agent, self._archives))
        profiles = [*KNOWN, *sorted(found for name in there if (found := profile_in(name)) and found not in KNOWN)]
        names = {each.name for each in installed}
        return {
            "use": known["use"] or self._default,
            "chosen_by": "java use" if known["use"] else "[java] default",
            "warnings": [words] if words else [],
            "installed": [
                {"name": each.name, "version": each.version, "used": each == java, "windows": each.graphics,
                 "unpacks": bool(each.unpack200), "home": each.home}
                for each in installed
            ],
            "available": [
                {"name": name, "there": archive(name).name in there,
                 "archive": f"{self._archives}/{archive(name).name}"}
                for name in profiles if name not in names
            ],
        }  # fmt: skip

    async def use(self, agent: Agent, name: str) -> Java:
        """Let a Java be the one that consoles run with. What was learned about others counts no more. Raises NotFound,
        BadValue."""

        java = _able(await self._named(agent, name))
        await self._store.put(AGENT_KIND, agent.name, {**await self._known(agent), "use": name})
        for key in await self._store.list(INSTEAD_KIND):
            await self._store.delete(INSTEAD_KIND, key)
        return java

    async def install(self, agent: Agent, name: str) -> Java:
        """Raises BadValue, NotFound, Exists, Forbidden."""

        if any(java.name == name for java in await self.installed(agent)):
            raise Exists(f"{name} is installed already.", hint=f"For consoles to run with it: {_use(agent, name)}")
        return await self._files.install(agent, name, archives=self._archives, java_dir=self._java_dir)

    async def register(self, agent: Agent, name: str, home: str) -> Java:
        """Let the Java in a folder have a name. Raises NotFound if there is none in it, Exists, BadValue, Forbidden."""

        java = _able(await self._files.look(agent, home, name=name))
        for other in await self.installed(agent):
            if other.name == name or other.home == java.home:
                raise Exists(f"There is a Java named {other.name} already: the one in {other.home}.")
        known = await self._known(agent)
        await self._store.put(AGENT_KIND, agent.name, {**known, "homes": {**known["homes"], name: java.home}})
        return java

    async def remove(self, agent: Agent, name: str) -> None:
        """Take a Java away that was installed, or forget one that was registered. Raises NotFound, Forbidden."""

        java = await self._named(agent, name)
        known = await self._known(agent)
        homes = {key: home for key, home in known["homes"].items() if key != name}
        if homes == known["homes"]:
            await self._files.remove(agent, java, java_dir=self._java_dir)
        use = "" if known["use"] == name else known["use"]
        await self._store.put(AGENT_KIND, agent.name, {**known, "homes": homes, "use": use})

    async def _named(self, agent: Agent, name: str) -> Java:
        for java in await self.installed(agent):
            if java.name == name:
                return java
        shown = f"java list agent={agent.name} shows all."
        hint = f"{shown} To install it: java install version={name} agent={agent.name}"
        raise NotFound(
            f"There is no Java {name} on the agent {agent.name}.",
            hint=hint if installable(name) else shown,
        )

    async def _known(self, agent: Agent) -> dict[str, Any]:
        return {"use": "", "homes": {}, **(await self._store.get(AGENT_KIND, agent.name) or {})}

    # --- what has helped ----------------------------------------------------------------------------------------------

    async def instead(self, family: str, jnlp: Jnlp, java: Java, installed: Sequence[Java]) -> Java | None:
        """The Java with which such a program ran where it had died with this one; None if that is not known."""

        known = await self._store.get(INSTEAD_KIND, _program(family, jnlp)) or {}
        name = known.get(java.name)
        return next((other for other in installed if other.name == name), None)

    async def remember(self, family: str, jnlp: Jnlp, failed: Sequence[Java], java: Java) -> None:
        """Such a program has died with some, and then run with another."""

        key = _program(family, jnlp)
        known = await self._store.get(INSTEAD_KIND, key) or {}
        await self._store.put(INSTEAD_KIND, key, {**known, **{each.name: java.name for each in failed}})

    # --- files --------------------------------------------------------------------------------------------------------

    async def kit(
        self, agent: Agent, device: Device, session: WebSession, jnlp: Jnlp, java: Java, installed: Sequence[Java]
    ) -> Kit:
        """Have all files of a console in the agent's cache. Raises BadJnlp, ToolMissing, and what PanelHttp raises."""

        jars: list[LibraryFile] = []
        natives: list[LibraryFile] = []
        until = self._clock.seconds() + KIT_TIME
        for place, jar in enumerate(needed(jnlp, java.machine)):
            if self._clock.seconds() > until:
                raise BmcUnreachable("The panel takes too long to hand out the files of its Java console.")
            try:
                found = await self._have(agent, device, session, jar, place, java, installed)
            except _NotThereError as error:
                if place == 0 or jar.native:
                    raise BadJnlp(f"A file of the vendor's Java console is not on its panel: {error.message}") from None
                continue  # real panels name files that they do not have
            (natives if jar.native else jars).extend(found)
        return Kit(tuple(jars), (*jars, *natives))

    async def _have(
        self, agent: Agent, device: Device, session: WebSession, jar: Jar, place: int, java: Java,
        installed: Sequence[Java],
    ) -> tuple[LibraryFile, ...]:  # fmt: skip
        key = await self._key(agent, device, jar)
        known = await self._store.get(JARS_KIND, key)
        if known is not None:
            files = tuple(LibraryFile(*pair) for pair in known["files"])
            if not await self._files.have(agent, agent.cache, files):
                known = None
            elif self._clock.seconds() - known["at"] < FRESH:
                return files
        try:
            files = await self._fetch(agent, device, session, jar, place, java, installed)
        except ProxyError:
            if known is None:
                raise
            return files  # some panels hand a file out only once
        document = {"files": [[file.sha256, file.name] for file in files], "at": self._clock.seconds()}
        await self._store.put(JARS_KIND, key, document)
        return files

    async def _key(self, agent: Agent, device: Device, jar: Jar) -> str:
        """Under what a file is remembered: it is what a panel of that key had there. A digest, for there may be secrets
        in the URL. What was fetched with less trust, or from another panel that had the address, is another file."""

        _, pin = await self._panels.known(agent, device)
        told = [agent.name, device.web_url, device.web_trust, pin, jar.url, jar.version, jar.native]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()

    async def _fetch(
        self, agent: Agent, device: Device, session: WebSession, jar: Jar, place: int, java: Java,
        installed: Sequence[Java],
    ) -> tuple[LibraryFile, ...]:  # fmt: skip
        name = f".fetch-{place}-{self._clock.seconds():.6f}"
        try:
            return await self._fetch_to(f"{agent.cache}/{name}", agent, device, session, jar, place, java, installed)
        except BaseException:
            await self._files.drop(agent, agent.cache, name)
            raise

    async def _fetch_to(
        self, path: str, agent: Agent, device: Device, session: WebSession, jar: Jar, place: int, java: Java,
        installed: Sequence[Java],
    ) -> tuple[LibraryFile, ...]:  # fmt: skip
        for url in jar_urls(jar):
            parts = urlsplit(url)
            request = Request(
                parts.path + (f"?{parts.query}" if parts.query else ""),
                cookies=session.cookies,
                limit=JAR_LIMIT,
                timeout=JAR_TIME,
            )
            origin = f"{parts.scheme}://{parts.netloc}"
            status = await self._panels.download(agent, device, origin, request, path)
            if status in (401, 403, 404, 405, 410):
                continue
            if status != 200:
                raise BmcError(f"The panel answers {status} to the request for {parts.path.rpartition('/')[2]}.")
            unpacker: tuple[str, ...] = ()
            if parts.path.endswith(PACKED):
                unpacker = await self._files.unpacker(agent, agent.cache, java, installed, pack200=self._pack200)
            if jar.native:
                return await self._files.take_libraries(agent, agent.cache, path, unpacker=unpacker)
            name = f"{place:02d}-{_plain(parts.path.rpartition('/')[2].removesuffix(PACKED))}"
            return (await self._files.take_jar(agent, agent.cache, path, name=name, unpacker=unpacker),)
        raise _NotThereError(f"{urlsplit(jar.url).path.rpartition('/')[2]}.")


class _NotThereError(ProxyError):
    """The panel does not have a file."""


def _plain(name: str) -> str:
    """A file's name as a job may have it: the end of it, without what is not plain."""

    return re.sub(r"[^A-Za-z0-9._-]", "_", name)[-48:]


def _able(java: Java) -> Java:
    if not java.graphics:
        hint = "Install its full package, such as Debian's openjdk-17-jre."
        raise BadValue(f"{java.label} can show no windows: it is a headless one.", hint=hint)
    return java


def _use(agent: Agent, name: str) -> str:
    return f"java use version={name} agent={agent.name}"


def _program(family: str, jnlp: Jnlp) -> str:
    main = next((jar for jar in jnlp.jars if jar.main), jnlp.jars[0])
    return f"{family} {jnlp.main_class} {urlsplit(main.url).path.rpartition('/')[2]} {main.version}"


def checked_home(home: str) -> str:
    """A folder's path as it may be registered. Raises BadValue."""

    if not home.startswith("/") or ".." in home.split("/") or not home.isprintable():
        raise BadValue("home has to be a folder's whole path.")
    return home.rstrip("/")
