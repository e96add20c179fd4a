"""Javas on agents, and the files of vendors' Java programs in an agent's cache: what is in ``on_agent.py``, called from
here."""

from __future__ import annotations

import base64
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from twisted.logger import Logger

from ipmiproxyd.errors import BadJnlp, BadValue, Exists, Forbidden, InternalError, NotFound, ProxyError, ToolMissing
from ipmiproxyd.interfaces import Agent
from ipmiproxyd.model import Command, LibraryFile
from ipmiproxyd.tools import on_agent
from ipmiproxyd.tools.java import LAUNCHER
from ipmiproxyd.tools.java_profiles import Java, archive, profile_of
from ipmiproxyd.wire.jars import Entry, libraries

JVM: Final = "/usr/lib/jvm"
"""Where the distribution's Javas are; a job sees them anyway."""

CACHE_LIMIT: Final = 1 << 30
"""Bytes of an agent's cache; what was not used for longest goes first."""

_LOAD: Final = (
    "import json, sys; document = json.load(sys.stdin);"
    " exec(compile(document.pop('program'), 'on_agent.py', 'exec'), {'__name__': 'on_agent', 'given': document})"
)
_CALL: Final = "\nmain(given)\n"
_ERRORS: Final[Mapping[str, type[ProxyError]]] = {
    error.code: error for error in (BadJnlp, BadValue, Exists, Forbidden, NotFound, ToolMissing)
}

log = Logger()


class JavaFiles:
    """One for all agents.

    :param launcher: our own classes, for :meth:`unpacker`.
    """

    def __init__(self, *, launcher: Path = LAUNCHER) -> None:
        self._launcher = launcher
        self._program = Path(on_agent.__file__).read_text() + _CALL

    # --- Javas --------------------------------------------------------------------------------------------------------

    async def installed(self, agent: Agent, *, java_dir: str, homes: Mapping[str, str] | None = None) -> list[Java]:
        """Every Java on an agent that runs: those below ``java_dir``, the distribution's, and those that are
        registered (``homes``: name → folder)."""

        homes = homes or {}
        folders = [java_dir, JVM] if java_dir else [JVM]
        found = await self._call(agent, "list", timeout=60.0, folders=folders, homes=list(homes.values()))
        names = {home: name for name, home in homes.items()}
        return [_java(one, names.get(one["home"], "")) for one in found["javas"]]

    async def archives(self, agent: Agent, folder: str) -> Collection[str]:
        """The names of what lies in a folder for archives."""

        names: list[str] = (await self._call(agent, "names", folder=folder))["names"]
        return names

    async def look(self, agent: Agent, home: str, *, name: str) -> Java:
        """The Java in a folder, to be called ``name``. Raises NotFound; Forbidden for one that others can change."""

        return _java(await self._call(agent, "look", timeout=60.0, home=home), name)

    async def install(
        self, agent: Agent, profile: str, *, archives: str, java_dir: str, machine: str = "x86_64"
    ) -> Java:
        """Unpack Oracle's archive of a profile, which an administrator has put into the folder ``archives`` of the
        agent. Raises BadValue for an archive that is not what it is called, NotFound, Exists, Forbidden."""

        wanted = archive(profile, machine)
        path = f"{archives.rstrip('/')}/{wanted.name}"
        into = java_dir.rstrip("/")
        found = await self._call(
            agent, "install", timeout=300.0, archive=path, folder=wanted.folder, sha1=wanted.sha1, into=into
        )
        return _java(found, "")

    async def remove(self, agent: Agent, java: Java, *, java_dir: str) -> None:
        """Whoever asks makes sure that nobody uses it. Raises Forbidden for one that was not installed by us."""

        await self._call(agent, "remove", timeout=60.0, home=java.home, java_dir=java_dir)

    # --- the cache ----------------------------------------------------------------------------------------------------

    async def have(self, agent: Agent, cache: str, wanted: Collection[LibraryFile]) -> bool:
        """Whether all of these are in the cache; they count as used now."""

        names = {file.sha256 for file in wanted}
        found = await self._call(agent, "have", cache=cache, wanted=sorted(names), limit=CACHE_LIMIT)
        return names <= set(found["found"])

    async def take_jar(
        self, agent: Agent, cache: str, path: str, *, name: str, unpacker: Sequence[str] = ()
    ) -> LibraryFile:
        """Move a fetched jar into the cache, to be called ``name`` in a job. ``unpacker``: what unpacks it, if it is
        packed. Raises BadJnlp for what is no jar."""

        found = await self._take(agent, cache, path, unpacker, native=False)
        return LibraryFile(found["sha256"], name)

    async def take_libraries(
        self, agent: Agent, cache: str, path: str, *, unpacker: Sequence[str] = ()
    ) -> tuple[LibraryFile, ...]:
        """The same with a jar of native libraries: what is in it. Raises BadJnlp for what may not be unpacked."""

        found = await self._take(agent, cache, path, unpacker, native=True)
        try:
            names = libraries([Entry(*entry) for entry in found["listing"]])
            files = await self._call(agent, "extract", timeout=60.0, cache=cache, sha256=found["sha256"], names=names)
        except BadJnlp:
            await self.drop(agent, cache, found["sha256"])
            raise
        return tuple(LibraryFile(sha256, name) for name, sha256 in files["files"].items())

    async def _take(
        self, agent: Agent, cache: str, path: str, unpacker: Sequence[str], *, native: bool
    ) -> Mapping[str, Any]:
        more = {"path": path, "native": native, "command": list(unpacker)}
        return await self._call(agent, "take", timeout=150.0, cache=cache, **more)

    async def drop(self, agent: Agent, cache: str, name: str) -> None:
        """Let a file in the cache's folder be gone. If the agent cannot be asked now, what was half fetched goes later
        (see :meth:`have`)."""

        try:
            await self._call(agent, "drop", cache=cache, name=name)
        except ProxyError as error:
            log.info("agent {agent}: {name} stays for now: {error}", agent=agent.name, name=name, error=error.message)

    async def unpacker(
        self, agent: Agent, cache: str, java: Java, installed: Sequence[Java], *, pack200: str = ""
    ) -> tuple[str, ...]:
        """What unpacks a jar that was packed by pack200: the program of a Java that has one, or the library
        commons-compress (``pack200``: its class path on the agent). Raises ToolMissing."""

        for candidate in (java, *installed):
            if candidate.unpack200:
                return (candidate.unpack200,)
        if not pack200:
            raise ToolMissing(
                "The vendor's Java console comes packed, and no Java on the agent can unpack it.",
                hint="Install a Java before version 14 (java install), or Apache's library commons-compress.",
            )
        content = base64.b64encode(self._launcher.read_bytes()).decode()
        ours = (await self._call(agent, "put", cache=cache, base64=content))["sha256"]
        options = ("-XX:-UsePerfData", "-Xmx512m", "-cp", f"{cache}/{ours}:{pack200}")
        return (f"{java.home}/bin/java", *options, "ipmiproxyd.Unpack")

    async def _call(self, agent: Agent, verb: str, *, timeout: float = 20.0, **more: Any) -> Mapping[str, Any]:
        document = json.dumps({"program": self._program, "verb": verb, **more}).encode()
        argv = (agent.python, "-I", "-S", "-c", _LOAD)
        outcome = await agent.run(Command(argv=argv, stdin=document, timeout=timeout))
        try:
            answer: Mapping[str, Any] = json.loads(outcome.stdout)
        except ValueError:
            why = "it took too long" if outcome.timed_out else outcome.last_words
            raise InternalError(f"Work on the files of Java on the agent {agent.name} failed: {why}.") from None
        if "failed" in answer:
            kind = _ERRORS.get(answer["failed"], InternalError)
            raise kind(f"{answer['message']}.", hint=answer.get("hint") or None)
        return answer


def _java(found: Mapping[str, Any], name: str) -> Java:
    return Java(
        name=name or profile_of(found["home"]),
        home=found["home"],
        version=found["version"],
        machine=found["machine"],
        graphics=found["graphics"],
        unpack200=found["unpack200"],
    )
