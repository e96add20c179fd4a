"""The commands of the control protocol: one module per noun, and two more for consoles."""

from __future__ import annotations

from dataclasses import dataclass

from ipmiproxyd.control.commands import agent as agent_commands
from ipmiproxyd.control.commands import console as console_commands
from ipmiproxyd.control.commands import daemon as daemon_commands
from ipmiproxyd.control.commands import device as device_commands
from ipmiproxyd.control.commands import java as java_commands
from ipmiproxyd.control.commands import power as power_commands
from ipmiproxyd.control.commands import screenshot as screenshot_commands
from ipmiproxyd.control.commands import vendor as vendor_commands
from ipmiproxyd.control.commands import viewers as viewers_commands
from ipmiproxyd.control.declare import CommandTable
from ipmiproxyd.interfaces import Agents, Consoles, Daemon, Devices, Javas, Power, Vendors
from ipmiproxyd.model import Clipboard


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What the settings say where a request says nothing.

    :ivar idle: seconds; None means never.
    :ivar max_time: seconds; None means never.
    :ivar clipboard: which way texts may go.
    :ivar login_buttons: whether a console's page may have the BMC's user name and password typed.
    :ivar agent: the name of the agent that reaches the BMCs, where a request names none.
    """

    idle: float | None = 600.0
    max_time: float | None = None
    clipboard: Clipboard = "both"
    login_buttons: bool = True
    agent: str = "local"


def make_commands(
    devices: Devices,
    power: Power,
    consoles: Consoles,
    vendors: Vendors,
    javas: Javas,
    agents: Agents,
    daemon: Daemon,
    defaults: Defaults,
) -> CommandTable:
    """Every command, bound to what it drives."""

    return CommandTable(
        [
            *device_commands.commands(devices),
            *power_commands.commands(devices, power, agent=defaults.agent),
            *console_commands.commands(
                devices,
                consoles,
                agent=defaults.agent,
                idle=defaults.idle,
                max_time=defaults.max_time,
                clipboard=defaults.clipboard,
                login_buttons=defaults.login_buttons,
            ),
            *viewers_commands.commands(consoles),
            *screenshot_commands.commands(consoles),
            *vendor_commands.commands(devices, vendors, agent=defaults.agent),
            *java_commands.commands(javas, agent=defaults.agent),
            *agent_commands.commands(agents),
            *daemon_commands.commands(daemon),
        ]
    )
