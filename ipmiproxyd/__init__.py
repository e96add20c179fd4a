"""ipmiproxyd: power control and remote consoles for BMCs that have no public address."""

__version__ = "0.1.0"
