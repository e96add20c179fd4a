"""Which Java runs a console: the names of versions, what is installed on an agent, and what another version could help
when a program has died."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final, Literal

from ipmiproxyd.errors import BadValue, ToolMissing

DEFAULT: Final = "jdk_8u121"
KNOWN: Final = ("jdk_7u80", "jdk_8u121", "jre_8u251")
"""What EasyDCIM names."""

_ORACLE: Final = re.compile(r"(jdk|jre|server_jre)_([678])u([0-9]{1,3})")
_FOLDER: Final = re.compile(r"(jdk|jre)1\.([678])\.0_([0-9]{2,3})")
_ARCHIVE: Final = re.compile(r"(jdk|jre|server-jre)-([678]u[0-9]{1,3})-linux-[a-z0-9]+\.tar\.gz")
_DEBIAN: Final = re.compile(r"java-([0-9]{1,2})-openjdk-[a-z0-9]+")
_NUMBERS: Final = re.compile(r"(?:1\.)?([0-9]{1,2})(?:[._+-]|\Z)")

# Of the archives whose checksum two independent projects name: SHA-1, for want of a better one.
_CHECKSUMS: Final = {"jdk-7u80-linux-x64.tar.gz": "21e5e18c3511def01590994e926a4350c0509f01"}

_PLATFORMS: Final = {"x86_64": "x64", "i386": "i586", "aarch64": "aarch64"}
_PREFERENCE: Final = (8, 7, 11, 17)
"""Which to take where the wanted one is missing: what these programs were made for first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """One of Oracle's: its name, the folder that it holds, and its SHA-1 where that is known."""

    name: str
    folder: str
    sha1: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Java:
    """A Java that is installed on an agent.

    :ivar machine: what it was made for, and so the vendor's libraries have to be: x86_64, i386, aarch64.
    :ivar graphics: it can show windows; a "headless" one cannot.
    :ivar unpack200: its program for packed jars, or empty.
    """

    name: str
    home: str
    version: str
    machine: str = "x86_64"
    graphics: bool = True
    unpack200: str = ""

    @property
    def major(self) -> int:
        match = _NUMBERS.match(self.version)
        return int(match[1]) if match else 0

    @property
    def label(self) -> str:
        return f"{self.name} (Java {self.version})"


def archive(profile: str, machine: str = "x86_64") -> Archive:
    """The archive that has a profile. Raises BadValue where none is known to."""

    if not (match := _ORACLE.fullmatch(profile)):
        raise BadValue(
            f"{profile} is not the name of a version that is installed from an archive.",
            hint=f"Names are like {', '.join(KNOWN)}; any other Java can be registered by its folder.",
        )
    kind, major, update = match[1].replace("_", "-"), match[2], match[3]
    name = f"{kind}-{major}u{update}-linux-{_PLATFORMS.get(machine, 'x64')}.tar.gz"
    folder = f"{'jre' if kind == 'jre' else 'jdk'}1.{major}.0_{update:0>2}"
    return Archive(name=name, folder=folder, sha1=_CHECKSUMS.get(name, ""))


def installable(profile: str) -> bool:
    """Whether a profile may come in an archive of Oracle's."""

    return _ORACLE.fullmatch(profile) is not None


def profile_in(name: str) -> str:
    """The profile that an archive of this name has; empty if it is none."""

    if not (match := _ARCHIVE.fullmatch(name)):
        return ""
    profile = f"{match[1].replace('-', '_')}_{match[2]}"
    return profile if archive(profile).name == name else ""


def profile_of(home: str) -> str:
    """The name of the Java in a folder."""

    folder = PurePosixPath(home).name
    if match := _FOLDER.fullmatch(folder):
        return f"{match[1]}_{match[2]}u{int(match[3])}"
    if home.startswith("/usr/lib/jvm/") and (match := _DEBIAN.fullmatch(folder)):
        return f"debian_{match[1]}"
    return re.sub(r"[^a-z0-9]+", "_", folder.lower()).strip("_")[:40] or "java"


def choose(wanted: str, installed: Sequence[Java]) -> tuple[Java, str]:
    """The Java for a profile (or for the default, if empty), and what is to be told about the choice: empty if it is
    the wanted one. Raises ToolMissing where there is none at all."""

    wanted = wanted or DEFAULT
    able = [java for java in installed if java.graphics]
    exact = next((java for java in installed if java.name == wanted), None)
    if exact in able:
        return exact, ""
    if not able:
        headless = "; those that are there can show no windows" if installed else ""
        raise ToolMissing(
            f"No Java is installed on the agent that could run a console{headless}.",
            hint="Install one: java install, or Debian's openjdk-17-jre.",
        )
    match = _ORACLE.fullmatch(wanted) or re.fullmatch(r"(debian)_([0-9]+)", wanted)
    majors = [int(match[2])] if match else []
    best = _ordered(able, [*majors, *_PREFERENCE])[0]
    lacking = "is not installed" if exact is None else "can show no windows"
    return best, f"{wanted} {lacking} on the agent: {best.label} is used."


def _ordered(able: Sequence[Java], majors: Sequence[int]) -> list[Java]:
    def rank(java: Java) -> tuple[int, int, list[int]]:
        place = majors.index(java.major) if java.major in majors else len(majors)
        numbers = [-int(number) for number in re.findall("[0-9]+", java.version)]
        return (place, java.major, numbers)

    return sorted(able, key=rank)


# --- programs that died -----------------------------------------------------------------------------------------------

Helps = Literal["", "older", "newer", "other"]


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a Java program ended. ``helps``: which other Java may do better."""

    words: str
    helps: Helps = ""
    hint: str = ""


_CAUSES: Final[Sequence[tuple[str, Cause]]] = (
    (
        r"UnsupportedClassVersionError|Unsupported major\.minor version",
        Cause("The vendor's program was made for a newer Java than this one.", "newer"),
    ),
    (
        r"wrong ELF class|Can't load \S+ \S*-bit \.so on a|cannot open shared object file: No such file",
        Cause("The vendor's native library does not fit to this Java's kind of processor.", "other"),
    ),
    (
        r"UnsatisfiedLinkError",
        Cause("A native library of the vendor's program is missing, or is not for this machine.", "other"),
    ),
    (
        r"[Aa]lgorithm constraints|disabled algorithm|is disabled|MD5withRSA|No appropriate protocol|protocol_version"
        r"|handshake_failure|not enabled or supported|DH keypair|no cipher suites in common",
        Cause("The BMC's cryptography is too old for this Java.", "older"),
    ),
    (
        r"PKIX path|unable to find valid certification path|CertificateException|ValidatorException"
        r"|SSLHandshakeException",
        Cause("The vendor's program does not trust the BMC's certificate.", "older"),
    ),
    (
        r"Invalid signature file digest|SecurityException: .*(?:signer|digest|signature)|Prohibited package",
        Cause("This Java does not accept how the vendor's program is signed.", "older"),
    ),
    (
        r"Security Manager is deprecated|setting a Security Manager|InaccessibleObjectException|IllegalAccessError"
        r"|does not (?:\"opens|\"exports|export|open)|NoSuchMethodError|NoSuchFieldError"
        r"|ClassNotFoundException: (?:sun|com\.sun|javax)\.|NoClassDefFoundError: (?:sun|com/sun|javax|java)/"
        r"|Unrecognized option",
        Cause("The vendor's program needs something that this Java does not have any more.", "older"),
    ),
    (
        r"HeadlessException|libawt_xawt|Can't connect to X11|No X11 DISPLAY",
        Cause("This Java cannot show windows.", "other", "Install its full package, not the headless one."),
    ),
    (
        r"ConnectException: Connection refused|NoRouteToHost|Network is unreachable|UnknownHostException",
        Cause(
            "The vendor's program does not reach the BMC's console port.",
            hint="Check that the port is open between the agent and the BMC, and that its console is switched on.",
        ),
    ),
    (
        r"timed out|SocketTimeoutException",
        Cause("The BMC's console port does not answer.", hint="Check for a firewall between the agent and the BMC."),
    ),
    (
        r"OutOfMemoryError|Could not reserve enough space|insufficient memory",
        Cause("The vendor's program has too little memory."),
    ),
    (
        r"Could not find or load main class|ClassNotFoundException|NoClassDefFoundError|names a main class",
        Cause("A part of the vendor's program is missing."),
    ),
    (
        r"zip END header|ZipException|ClassFormatError|error in opening zip file|Invalid or corrupt",
        Cause("A file of the vendor's program is damaged."),
    ),
)


def cause(said: str) -> Cause | None:
    """Why a program ended, from what it said; None if that is not known."""

    return next((known for pattern, known in _CAUSES if re.search(pattern, said)), None)


def next_java(why: Cause, tried: Sequence[Java], installed: Sequence[Java]) -> Java | None:
    """Another Java that may help, after those that were tried; the last of them is the one that failed."""

    used = tried[-1]
    rest = [java for java in installed if java.graphics and java not in tried]
    if why.helps == "older":
        rest = [java for java in rest if java.major < used.major]
    elif why.helps == "newer":
        rest = [java for java in rest if java.major > used.major]
    elif why.helps == "other":
        rest = [java for java in rest if java.machine != used.machine or not used.graphics]
    else:
        return None
    return next(iter(_ordered(rest, _PREFERENCE)), None)
