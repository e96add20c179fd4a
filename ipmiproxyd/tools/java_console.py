"""From a panel's description of its Java console to what a job needs: a Java, and the vendor's files in the cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from twisted.internet.interfaces import IReactorTime

from ipmiproxyd.errors import BadJnlp, BadValue, BmcError, Exists, NotFound, ProxyError
from ipmiproxyd.interfaces import Agent, Store
from ipmiproxyd.model import Device, LibraryFile
from ipmiproxyd.tools.java_files import JavaFiles
from ipmiproxyd.tools.java_profiles import DEFAULT, KNOWN, Java, archive, choose
from ipmiproxyd.tools.panel_http import PanelHttp
from ipmiproxyd.vendors.talk import Request, WebSession
from ipmiproxyd.wire.jars import PACKED, jar_urls, needed
from ipmiproxyd.wire.jnlp import Jar, Jnlp

AGENT_KIND: Final = "java"
"""Kind of stored document, one for each agent: its registered Javas, and the one to be used."""
JARS_KIND: Final = "jars"
"""Kind of stored document: what a panel's file was when it was fetched last."""
WORKS_KIND: Final = "java-works"
"""Kind of stored document: the Java with which a vendor's program has shown its window."""

FRESH: Final = 86400.0
"""Seconds for which a panel's file is taken from the cache without asking again."""
JAR_LIMIT: Final = 96 << 20
JAR_TIME: Final = 120.0


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

    async def choice(self, agent: Agent, installed: Sequence[Java], wanted: str = "") -> tuple[Java, str]:
        """The Java to use, and what is to be told about that. Raises ToolMissing."""

        return choose(wanted or (await self._known(agent))["use"] or self._default, installed)

    async def listing(self, agent: Agent) -> Mapping[str, Any]:
        """For ``java list``."""

        installed = await self.installed(agent)
        used = (await self._known(agent))["use"] or self._default
        names = {java.name for java in installed}
        return {
            "use": used,
            "installed": [
                {"name": java.name, "version": java.version, "home": java.home, "windows": java.graphics,
                 "unpacks": bool(java.unpack200), "used": java.name == used}
                for java in installed
            ],
            "available": [
                {"name": name, "archive": f"{self._archives}/{archive(name).name}"}
                for name in KNOWN if name not in names
            ],
        }  # fmt: skip

    async def use(self, agent: Agent, name: str) -> Java:
        """Let a Java be the one that consoles run with. Raises NotFound."""

        java = await self._named(agent, name)
        await self._store.put(AGENT_KIND, agent.name, {**await self._known(agent), "use": name})
        return java

    async def install(self, agent: Agent, name: str) -> Java:
        return await self._files.install(agent, name, archives=self._archives, java_dir=self._java_dir)

    async def register(self, agent: Agent, name: str, home: str) -> Java:
        """Let the Java in a folder have a name. Raises NotFound if there is none in it, Exists."""

        installed = await self.installed(agent)
        if any(java.name == name and java.home != home for java in installed):
            raise Exists(f"There is a Java named {name} already.")
        known = await self._known(agent)
        homes = {**known["homes"], name: home}
        for java in await self._files.installed(agent, java_dir=self._java_dir, homes=homes):
            if java.name == name:
                await self._store.put(AGENT_KIND, agent.name, {**known, "homes": homes})
                return java
        raise NotFound(f"There is no Java that runs in {home} on the agent {agent.name}.")

    async def remove(self, agent: Agent, name: str) -> None:
        """Take a Java away that was installed, or forget one that was registered. Raises NotFound, Forbidden."""

        java = await self._named(agent, name)
        known = await self._known(agent)
        if name in known["homes"]:
            homes = {key: home for key, home in known["homes"].items() if key != name}
            await self._store.put(AGENT_KIND, agent.name, {**known, "homes": homes})
        else:
            await self._files.remove(agent, java, java_dir=self._java_dir)
        if known["use"] == name:
            await self._store.put(AGENT_KIND, agent.name, {**await self._known(agent), "use": ""})

    async def _named(self, agent: Agent, name: str) -> Java:
        for java in await self.installed(agent):
            if java.name == name:
                return java
        raise NotFound(f"There is no Java named {name} on the agent {agent.name}.", hint="See java list.")

    async def _known(self, agent: Agent) -> dict[str, Any]:
        return {"use": "", "homes": {}, **(await self._store.get(AGENT_KIND, agent.name) or {})}

    # --- what has worked ----------------------------------------------------------------------------------------------

    async def worked(self, family: str, jnlp: Jnlp) -> str:
        """The name of the Java that such a program ran with before; empty if that is not known."""

        known = await self._store.get(WORKS_KIND, _program(family, jnlp))
        return "" if known is None else str(known["java"])

    async def remember(self, family: str, jnlp: Jnlp, java: Java) -> None:
        key = _program(family, jnlp)
        if await self._store.get(WORKS_KIND, key) != {"java": java.name}:
            await self._store.put(WORKS_KIND, key, {"java": java.name})

    # --- files --------------------------------------------------------------------------------------------------------

    async def kit(
        self, agent: Agent, device: Device, session: WebSession, jnlp: Jnlp, java: Java, installed: Sequence[Java]
    ) -> Kit:
        """Have all files of a console in the agent's cache. Raises BadJnlp, ToolMissing, and what PanelHttp raises."""

        jars: list[LibraryFile] = []
        natives: list[LibraryFile] = []
        for place, jar in enumerate(needed(jnlp, java.machine)):
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
        key = f"{agent.name} {jar.url} {jar.version}"
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

    async def _fetch(
        self, agent: Agent, device: Device, session: WebSession, jar: Jar, place: int, java: Java,
        installed: Sequence[Java],
    ) -> tuple[LibraryFile, ...]:  # fmt: skip
        path = f"{agent.cache}/.fetch-{place}-{self._clock.seconds():.6f}"
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
            name = f"{place:02d}-{parts.path.rpartition('/')[2].removesuffix(PACKED)}"
            return (await self._files.take_jar(agent, agent.cache, path, name=name, unpacker=unpacker),)
        raise _NotThereError(f"{urlsplit(jar.url).path.rpartition('/')[2]}.")


class _NotThereError(ProxyError):
    """The panel does not have a file."""


def _program(family: str, jnlp: Jnlp) -> str:
    main = next((jar for jar in jnlp.jars if jar.main), jnlp.jars[0])
    return f"{family} {jnlp.main_class} {urlsplit(main.url).path.rpartition('/')[2]} {main.version}"


def checked_home(home: str) -> str:
    """A folder's path as it may be registered. Raises BadValue."""

    if not home.startswith("/") or ".." in home.split("/") or not home.isprintable():
        raise BadValue("home has to be a folder's whole path.")
    return home.rstrip("/")
