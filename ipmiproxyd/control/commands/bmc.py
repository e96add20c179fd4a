"""How a BMC is told on a request: the fields of a device, and ``device=`` or the same fields inline."""

from __future__ import annotations

from typing import Any, Final, get_args

from ipmiproxyd.control.arguments import Argument, Choice, Integer, Name, SecretText, Text, Values
from ipmiproxyd.control.commands.fields import given_fields
from ipmiproxyd.errors import BadRequest, MissingArgument
from ipmiproxyd.interfaces import Devices
from ipmiproxyd.model import IPMI_PORT, Device, Interface, Privilege, WebTrust
from ipmiproxyd.wire.device import changed, checked, vnc_address


class Host(Text):
    """The address of a BMC or an agent; an IPv6 address may stand in brackets, as in a URL."""

    def parse(self, text: str) -> str:
        text = super().parse(text)
        return text[1:-1] if text.startswith("[") and text.endswith("]") else text


# Each is named like the field of model.Device that it fills. What is valid in them, wire.device knows.
NAME: Final = Argument("name", Name(), "the device's name", required=True)
ADDRESS: Final = Argument("address", Host(255, "address"), "the BMC's IP address or host name")
FIELDS: Final[tuple[Argument[Any], ...]] = (
    ADDRESS,
    Argument("port", Integer(1, 65535), "the BMC's IPMI port", default=IPMI_PORT),
    Argument("username", Text(), "the BMC's user", default=""),
    Argument("password", SecretText(), "that user's password"),
    Argument(
        "interface",
        Choice[Interface](get_args(Interface)),
        "how IPMI is spoken: lanplus (2.0) or lan (1.5)",
        default="lanplus",
    ),
    Argument("cipher", Text(8, "auto|1-17"), "the IPMI cipher suite; auto finds one that works", default="auto"),
    Argument(
        "privilege", Choice[Privilege](get_args(Privilege)), "the privilege level asked for", default="administrator"
    ),
    Argument("kg", SecretText(40), "the BMC's second key (K_G) in hexadecimal digits"),
    Argument("web", Text(512, "URL"), "the web panel's address; by default the BMC's own, with https", default=""),
    Argument("web_username", Text(), "the web panel's user, where it is another", default=""),
    Argument("web_password", SecretText(), "the web panel's password, where it is another"),
    Argument(
        "web_trust",
        Choice[WebTrust](get_args(WebTrust)),
        "whose certificate the panel may show: the one that it showed first, one that an authority signed, or any",
        default="pin",
    ),
    Argument("java", Text(40, "name"), "the Java that its console runs with, where it is another", default=""),
    Argument("vnc", Text(300, "host:port"), "its own VNC server, or that of a KVM switch", default=""),
    Argument("vnc_password", SecretText(), "that VNC server's password"),
    Argument(
        "vnc_fingerprint",
        Text(128, "SHA-256"),
        "the fingerprint of that VNC server's certificate, where no authority has signed it",
        default="",
    ),
    Argument("location", Text(), "where the server stands", default=""),
    Argument("vendor", Text(32, "name"), "the family of the web panel; auto finds out", default="auto"),
)
NOTES: Final = Argument("notes", Text(4096), "anything worth knowing", default="")

DEVICE: Final = Argument("device", Name(), "a stored device; or give the BMC's own data instead, from address= on")
TARGET: Final[tuple[Argument[Any], ...]] = (DEVICE, *FIELDS)
"""The arguments of a command that acts on one BMC: see :func:`target`."""


_VNC: Final = next(field for field in FIELDS if field.name == "vnc")


async def target(
    values: Values, devices: Devices, *, just_vnc: bool = False, over: tuple[str, ...] = ()
) -> Device:
    """The BMC that a request with the arguments ``TARGET`` means: a stored device, or one given inline.

    :param just_vnc: nothing but its VNC server is of interest, so ``vnc=`` alone tells it, too.
    :param over: fields that may stand beside ``device=``, and then count for this request.

    Raises BadRequest for both, MissingArgument for neither, NotFound, BadValue.
    """

    inline = given_fields(values, FIELDS)
    if DEVICE in values:
        changes = {name: inline.pop(name) for name in over if name in inline}
        if inline:
            raise BadRequest(
                f"device= cannot be given together with {next(iter(inline))}=.",
                hint="Name a stored device, or give the BMC's own data, not both.",
            )
        device = await devices.get(values[DEVICE])
        return changed(device, changes) if changes else device
    if just_vnc and ADDRESS not in values and inline.get(_VNC.name):
        inline[ADDRESS.name] = _host_of(inline[_VNC.name])
    if ADDRESS.name not in inline:
        raise MissingArgument(
            "The request does not say which BMC is meant.",
            hint="Give device=<name>, or vnc=host:port."
            if just_vnc
            else "Give device=<name>, or address= with username= and password=.",
        )
    return checked(Device(**inline))


def _host_of(vnc: str) -> str:
    try:
        return vnc_address(vnc).host
    except ValueError:
        return "unknown"  # the check of the whole device tells what is wrong with vnc=
