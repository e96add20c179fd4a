"""A vendor's Java console as a program of a job. No Web Start runs it but our launcher (``java/``), which gets the
arguments by standard input: they are in no command line, no environment and no file."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from ipmiproxyd.agents.sandbox import HOME, LIBRARY
from ipmiproxyd.errors import BadJnlp, ToolMissing
from ipmiproxyd.model import JobFile, LibraryFile, Program, Ready, Secret
from ipmiproxyd.wire.jnlp import Jnlp

LAUNCHER: Final = Path(__file__).parents[1] / "java" / "launcher.jar"

_LAUNCHER_NAME: Final = "ipmiproxyd-launcher.jar"
_SECURITY: Final = "java.security"
_HEAP: Final = (128 << 20, 256 << 20, 512 << 20)
"""Bytes: at least, if the vendor asks for nothing, at most."""
TOLD_LIMIT: Final = 1 << 18
"""Characters of a program's standard input, as in the runner."""

# For this one process: panels of these years know nothing better.
_OLD_CRYPTOGRAPHY: Final = """\
jdk.tls.disabledAlgorithms=
jdk.tls.legacyAlgorithms=
jdk.certpath.disabledAlgorithms=
jdk.jar.disabledAlgorithms=
jdk.security.legacyAlgorithms=
"""

# For launchers that read them: a program may start another one.
_DEPLOYMENT: Final = """\
deployment.security.level=HIGH
deployment.security.mixcode=DISABLE
deployment.insecure.jres=ALWAYS
deployment.security.revocation.check=NO_CHECK
deployment.security.tls.revocation.check=NO_CHECK
deployment.security.validation.crl=false
deployment.security.validation.ocsp=false
deployment.security.TLSv1=true
deployment.security.TLSv1.1=true
deployment.expiration.check.enabled=false
deployment.javaws.autodownload=NEVER
deployment.javaws.shortcut=NEVER
"""

_OPTIONS: Final = (
    "-XX:+IgnoreUnrecognizedVMOptions",
    # Nothing about the program where others could read it.
    "-XX:-UsePerfData",
    "-XX:+DisableAttachMechanism",
    "-XX:ErrorFile=/dev/null",
    "-XX:-CreateCoredumpOnCrash",
    # A small program that is to be there soon.
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Xshare:auto",
    # The sandbox's home; Java would take the one in /etc/passwd.
    f"-Duser.home={HOME}",
    f"-Djava.util.prefs.userRoot={HOME}",
    f"-Djava.library.path={LIBRARY}",
    f"-Djava.security.properties={HOME}/{_SECURITY}",
    "-Djava.awt.headless=false",
    "-Dawt.useSystemAAFontSettings=on",
    "-Dsun.java2d.opengl=false",
)

# Since Java 9 a program does not get at these by itself; what was made before takes it for granted.
_OPENED: Final = ("java.base/java.lang", "java.base/java.util", "java.base/java.net", "java.desktop/java.awt")
_OPENED_DESKTOP: Final = ("java.desktop/sun.awt", "java.desktop/sun.awt.X11", "java.desktop/javax.swing")


class JavaProgram:
    """Makes the job's program for a console of type ``java``.

    :param launcher: the launcher's jar.
    """

    NAME: Final = "Java"

    def __init__(self, *, launcher: Path = LAUNCHER) -> None:
        self._launcher = launcher

    def programs(
        self, jnlp: Jnlp, *, java: str, major: int, jars: Sequence[LibraryFile]
    ) -> tuple[Program, tuple[JobFile, ...]]:
        """The vendor's program, and its files beside the job's library. Raises ToolMissing, BadJnlp.

        :param java: the Java's home on the agent: also the job's ``java``.
        :param major: its version: 7, 8, 17, …
        :param jars: those of the class path, in order, the main one first; the job's ``library`` has them, and the
            native libraries too.
        """

        class_path = [f"{LIBRARY}/{name}" for name in (_LAUNCHER_NAME, *(jar.name for jar in jars))]
        least, usual, most = _HEAP
        heap = min(max(jnlp.heap, least), most) if jnlp.heap else usual
        argv = (
            f"{java}/bin/java",
            *_OPTIONS,
            f"-Xmx{heap >> 20}m",
            *_options_of(major),
            "-cp",
            ":".join(class_path),
            "ipmiproxyd.Launcher",
        )
        program = Program(
            name=self.NAME,
            argv=argv,
            ready=Ready.WINDOW,
            env={"LD_LIBRARY_PATH": LIBRARY},
            stdin=launch_text(jnlp, [f"{LIBRARY}/{jar.name}" for jar in jars]),
        )
        return program, self._files(jnlp)

    def _files(self, jnlp: Jnlp) -> tuple[JobFile, ...]:
        try:
            launcher = base64.b64encode(self._launcher.read_bytes()).decode()
        except FileNotFoundError:
            raise ToolMissing(
                "The launcher for Java consoles is not there.",
                hint="make build makes it, and make wheel puts it into the wheel; pip install . leaves it out.",
            ) from None
        deployment = ".java/deployment"
        sites = "".join(f"{site}\n" for site in sorted({f"{jnlp.origin}/", jnlp.codebase}))
        return (
            JobFile(place="library", name=_LAUNCHER_NAME, text=launcher, encoding="base64"),
            JobFile(place="home", name=_SECURITY, text=_OLD_CRYPTOGRAPHY),
            JobFile(place="home", name=f"{deployment}/deployment.properties", text=_DEPLOYMENT),
            JobFile(place="home", name=f"{deployment}/security/exception.sites", text=sites),
        )


def _options_of(major: int) -> Iterator[str]:
    """What only some versions know."""

    if major <= 8:
        # Java 7 offers only TLS 1.0 by itself, later ones nothing so old.
        yield "-Djdk.tls.client.protocols=TLSv1,TLSv1.1,TLSv1.2"
        yield "-Dhttps.protocols=TLSv1,TLSv1.1,TLSv1.2"
    if major >= 9:
        yield from (f"--add-opens={package}=ALL-UNNAMED" for package in (*_OPENED, *_OPENED_DESKTOP))
    if 12 <= major < 24:
        yield "-Djava.security.manager=allow"


def launch_text(jnlp: Jnlp, jars: Sequence[str]) -> Secret:
    """What the launcher reads; see ``java/Launcher.java``. Raises BadJnlp for more than a job may be told."""

    text = "".join(f"{word} {_escaped(text)}\n" for word, text in _told(jnlp, jars)) + "start\n"
    if len(text) > TOLD_LIMIT:
        raise BadJnlp("The description of the Java console has too many arguments, or too long ones.")
    return Secret(text)


def _told(jnlp: Jnlp, jars: Sequence[str]) -> Iterator[tuple[str, str]]:
    yield from (("jar", jar) for jar in jars)
    yield from (("argument", argument.reveal()) for argument in jnlp.arguments)
    yield from (("property", f"{name}={value.reveal()}") for name, value in jnlp.properties.items() if _fits(name))
    if jnlp.main_class:
        yield "main", jnlp.main_class
    if jnlp.applet is not None:
        yield "applet", f"{jnlp.applet.width}x{jnlp.applet.height}"
        yield "name", jnlp.applet.name or jnlp.title or "console"
        yield "codebase", jnlp.codebase
        yield "document", jnlp.applet.document
        yield from (("parameter", f"{name}={value.reveal()}") for name, value in jnlp.applet.parameters.items())


def _fits(name: str) -> bool:
    """Whether a program may set this property: not those by which we keep it in its place."""

    return not name.startswith(("java.", "sun.", "jdk.", "user.", "os.", "file.", "https.", "http."))


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
