"""The display: TigerVNC's Xvnc, and openbox as its window manager."""

from __future__ import annotations

from typing import Final, Literal

from ipmiproxyd.agents.sandbox import DISPLAY_FD, HOME, READY, VNC_SOCKET, XAUTHORITY
from ipmiproxyd.model import Clipboard, JobFile, Program, Ready
from ipmiproxyd.tools.guard import Guard

VNC_BASE_PORT: Final = 5900
_CONFIG: Final = "openbox.xml"

# Normal windows fill the screen without decorations; dialogs and the panel's pop-ups have a title with a close button.
# There are no keys and no desktop menu: whatever is typed belongs to the program.
_OPENBOX: Final = """\
<?xml version="1.0" encoding="UTF-8"?>
<openbox_config xmlns="http://openbox.org/3.4/rc">
  <focus><focusNew>yes</focusNew><followMouse>no</followMouse></focus>
  <placement><policy>Smart</policy><center>yes</center></placement>
  <theme><titleLayout>LC</titleLayout></theme>
  <desktops><number>1</number><popupTime>0</popupTime></desktops>
  <resize><drawContents>yes</drawContents><popupShow>Never</popupShow></resize>
  <keyboard/>
  <mouse>
    <dragThreshold>4</dragThreshold>
    <context name="Client">
      <mousebind button="Left" action="Press"><action name="Focus"/><action name="Raise"/></mousebind>
    </context>
    <context name="Titlebar">
      <mousebind button="Left" action="Press"><action name="Focus"/><action name="Raise"/></mousebind>
      <mousebind button="Left" action="Drag"><action name="Move"/></mousebind>
    </context>
    <context name="Close">
      <mousebind button="Left" action="Click"><action name="Close"/></mousebind>
    </context>
  </mouse>
  <applications>
    <application type="normal"><decor>no</decor><maximized>yes</maximized><focus>yes</focus></application>
    <application type="normal" title="Task Manager*"><decor>yes</decor><maximized>no</maximized></application>
    <application role="pop-up"><decor>yes</decor><maximized>no</maximized><focus>yes</focus></application>
    <application type="dialog"><decor>yes</decor><focus>yes</focus><layer>above</layer></application>
  </applications>
</openbox_config>
"""


class Display:
    """Makes the first programs of a job.

    :param geometry: "WIDTHxHEIGHT" in pixels.
    :param vnc: "unix": a socket that only the console's user and the agent's group can reach; "tcp": port 5900+X on
        the agent's loopback interface, which leads to it.
    """

    NAME: Final = "Xvnc"
    """The program whose readiness means that the display is there."""

    def __init__(
        self,
        *,
        geometry: str = "1280x1024",
        vnc: Literal["unix", "tcp"] = "unix",
        xvnc: str = "Xvnc",
        openbox: str = "openbox",
    ) -> None:
        self.vnc: Literal["unix", "tcp"] = vnc
        self._geometry = geometry
        self._xvnc = xvnc
        self._openbox = openbox

    def programs(
        self, display: int, *, clipboard: Clipboard = "both", guard: Guard | None = None
    ) -> tuple[tuple[Program, ...], tuple[JobFile, ...]]:
        """Xvnc and the window manager for display number ``display``, and their files. Xvnc itself lets no text
        through that ``clipboard`` does not allow. ``guard``: for a display that others could come to."""

        # Without: the folder's mode, or the relay's grant, has decided who comes here.
        security = ("-SecurityTypes", "None") if guard is None else guard.options
        argv = (self._xvnc, f":{display}", *self._options(), *security, *_clipboard_options(clipboard))
        server = Program(name=self.NAME, argv=argv, ready=Ready.DISPLAY)
        # With the letters of Western Europe on the keyboard from the beginning: see wire/typing.py.
        # A window that asks to be mapped while openbox starts stays unmapped for ever: what follows waits for it.
        said = f"sh -c 'setxkbmap eu; echo > {READY}'"
        argv = (self._openbox, "--sm-disable", "--config-file", f"{HOME}/{_CONFIG}", "--startup", said)
        manager = Program(name="openbox", argv=argv, ready=Ready.TOLD)
        files = (JobFile(place="home", name=_CONFIG, text=_OPENBOX), *(guard.files if guard is not None else ()))
        return (server, manager), files

    def _options(self) -> tuple[str, ...]:
        return (
            "-rfbport", "-1",
            "-rfbunixpath", VNC_SOCKET,
            "-rfbunixmode", "0660",
            "-displayfd", str(DISPLAY_FD),
            "-geometry", self._geometry,
            "-depth", "24",
            "-noreset",  # the display outlives the last of its clients
            "-extension", "GLX",  # nobody draws with it, and loading it doubles the start
            "-auth", XAUTHORITY,
            "-nolisten", "tcp",
            "-nolisten", "local",  # the abstract socket, which any local user could reach
            "-desktop", "console",
            "-UseBlacklist=0",  # else four clients that say nothing lock out everybody behind the relay
            "-AlwaysShared",
            "-AcceptSetDesktopSize=0",
            "-SendPrimary=0",
            "-SetPrimary=0",
        )  # fmt: skip


def _clipboard_options(clipboard: Clipboard) -> tuple[str, ...]:
    return (
        # A program on the display could otherwise allow itself what it wants to.
        "-AllowOverride=",
        *(() if clipboard in ("in", "both") else ("-AcceptCutText=0",)),
        *(() if clipboard in ("out", "both") else ("-SendCutText=0",)),
    )
