"""Lets ``twistd`` find the daemon."""

from twisted.application.service import ServiceMaker

ipmiproxyd = ServiceMaker(
    "ipmiproxyd",
    "ipmiproxyd.service",
    "Gateway for BMCs: power control and remote consoles in the browser.",
    "ipmiproxyd",
)
