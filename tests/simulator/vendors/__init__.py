"""The panels of all families."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tests.simulator.personality import Personality
from tests.simulator.vendors import (
    ami,
    ami_api,
    cimc,
    generic,
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

_MODULES: Final = (supermicro, ami, ami_api, idrac, idrac9, ilo, imm, cimc, irmc, ibmc, ilom, xcc, openbmc, generic)

DRIVERS: Final = {"idrac6-old": "idrac6"}
"""The families of personalities whose family has another key."""

PERSONALITIES: Final[Mapping[str, type[Personality]]] = {
    kind.key: kind for kind in (Personality, *(kind for module in _MODULES for kind in module.PERSONALITIES))
}
