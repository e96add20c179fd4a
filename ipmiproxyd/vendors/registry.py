"""Every family that is known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from ipmiproxyd.vendors import (
    ami,
    ami_api,
    cimc,
    ibmc,
    idrac,
    idrac9,
    ilo,
    ilom,
    imm,
    irmc,
    openbmc,
    supermicro,
    xcc,
)
from ipmiproxyd.vendors.family import Family

_MODULES: Final = (supermicro, ami, ami_api, idrac, idrac9, ilo, imm, cimc, irmc, ibmc, ilom, xcc, openbmc)

BUILT_IN: Final[tuple[Family, ...]] = tuple(family for module in _MODULES for family in module.FAMILIES)


def by_key(described: Iterable[Family] = ()) -> Mapping[str, Family]:
    """The families by key. One that the configuration describes takes the place of one of ours of the same key."""

    return {family.key: family for family in (*BUILT_IN, *described)}
