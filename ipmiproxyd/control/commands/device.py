"""``device …``: the stored devices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ipmiproxyd.control.commands.bmc import ADDRESS, FIELDS, NAME, NOTES
from ipmiproxyd.control.commands.fields import given_fields, to_add, to_change
from ipmiproxyd.control.commands.proxy import of_no_proxy
from ipmiproxyd.control.declare import Call, Command
from ipmiproxyd.errors import MissingArgument
from ipmiproxyd.interfaces import Devices, Proxies
from ipmiproxyd.model import Device, Secret

_FIELDS = (*FIELDS, NOTES)
_ADDED = to_add(_FIELDS, ADDRESS)
_CHANGED = to_change(_FIELDS)


def device_json(device: Device) -> dict[str, Any]:
    """A device as it may be shown: of each secret only whether it is "set", or "" if it is not."""

    shown = {"name": device.name}
    for field in _FIELDS:
        value = getattr(device, field.name)
        shown[field.name] = ("set" if value else "") if isinstance(value, Secret) else value
    return shown


def commands(devices: Devices, proxies: Proxies) -> list[Command]:
    async def told(device: Device, *, of_location: bool) -> dict[str, Any]:
        warnings = await of_no_proxy(device, proxies) if of_location else []
        return {**device_json(device), "warnings": [f"{words} (proxy list shows theirs)." for words in warnings]}

    async def add(call: Call) -> Mapping[str, Any]:
        device = Device(name=call.values[NAME], **given_fields(call.values, _FIELDS))
        return await told(await devices.add(device), of_location=True)

    async def change(call: Call) -> Mapping[str, Any]:
        changes = given_fields(call.values, _FIELDS)
        if not changes:
            raise MissingArgument("device set needs something to change.", hint="For example: password= or notes=")
        return await told(await devices.change(call.values[NAME], changes), of_location="location" in changes)

    async def show(call: Call) -> Mapping[str, Any]:
        return device_json(await devices.get(call.values[NAME]))

    async def list_all(_call: Call) -> Mapping[str, Any]:
        return {"devices": [device_json(device) for device in await devices.list()]}

    async def remove(call: Call) -> Mapping[str, Any]:
        await devices.remove(call.values[NAME])
        return {"removed": call.values[NAME]}

    return [
        Command(noun="device", verb="add", summary="Store a device.", arguments=(NAME, *_ADDED), handler=add),
        Command(
            noun="device",
            verb="set",
            summary="Change what is stored of a device; an empty value clears a text.",
            arguments=(NAME, *_CHANGED),
            handler=change,
        ),
        Command(
            noun="device", verb="show", summary="Tell what is stored of a device.", arguments=(NAME,), handler=show
        ),
        Command(noun="device", verb="list", summary="List the stored devices.", handler=list_all),
        Command(noun="device", verb="remove", summary="Forget a device.", arguments=(NAME,), handler=remove),
    ]
