"""The commands of the control protocol: one module per noun, and two more for consoles."""

from __future__ import annotations

from ipmiproxyd.control.commands import agent as agent_commands
from ipmiproxyd.control.commands import console as console_commands
from ipmiproxyd.control.commands import daemon as daemon_commands
from ipmiproxyd.control.commands import device as device_commands
from ipmiproxyd.control.commands import java as java_commands
from ipmiproxyd.control.commands import power as power_commands
from ipmiproxyd.control.commands import provision as provision_commands
from ipmiproxyd.control.commands import proxy as proxy_commands
from ipmiproxyd.control.commands import screenshot as screenshot_commands
from ipmiproxyd.control.commands import vendor as vendor_commands
from ipmiproxyd.control.commands import viewers as viewers_commands
from ipmiproxyd.control.commands.defaults import Defaults
from ipmiproxyd.control.declare import CommandTable
from ipmiproxyd.interfaces import Agents, Consoles, Daemon, Devices, Javas, Power, Provisioning, Proxies, Vendors

__all__ = ["Defaults", "make_commands"]


def make_commands(
    devices: Devices,
    power: Power,
    consoles: Consoles,
    vendors: Vendors,
    javas: Javas,
    agents: Agents,
    provisioning: Provisioning,
    proxies: Proxies,
    daemon: Daemon,
    defaults: Defaults,
) -> CommandTable:
    """Every command, bound to what it drives."""

    return CommandTable(
        [
            *device_commands.commands(devices, proxies),
            *proxy_commands.commands(proxies, devices, agents, javas, defaults),
            *power_commands.commands(devices, power, proxies, agent=defaults.agent),
            *console_commands.commands(devices, consoles, proxies, defaults),
            *viewers_commands.commands(consoles),
            *screenshot_commands.commands(consoles),
            *vendor_commands.commands(devices, vendors, proxies, agent=defaults.agent),
            *java_commands.commands(javas, agent=defaults.agent),
            *agent_commands.commands(agents, devices),
            *provision_commands.commands(provisioning),
            *daemon_commands.commands(daemon),
        ]
    )
