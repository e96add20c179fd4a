"""The certificates that consoles are served with: the relay's own, and those of proxies."""

from __future__ import annotations

import ssl
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import TimeoutError as TooSlow
from twisted.internet.threads import deferToThreadPool

from ipmiproxyd.errors import BadValue
from ipmiproxyd.model import CertificateFiles
from ipmiproxyd.relay.servertls import OF_A_PROXY, ServerTls

LOAD_LIMIT: Final = 10.0
"""Seconds in which files have to be read: they may be on another machine, which does not answer."""


class Certificates:
    """Loads them, and chooses one where a client says which host it wants (SNI): among those in use, and else the
    relay's own.

    :ivar own: the relay's own; None without TLS.
    """

    def __init__(self, reactor: Any, own: ServerTls | None) -> None:
        self.own = own
        self._reactor = reactor
        self._loaded: dict[CertificateFiles, ServerTls] = {}
        self._in_use: Counter[CertificateFiles] = Counter()

    async def load(self, files: CertificateFiles) -> ServerTls:
        """A certificate as its files are now. Raises BadValue."""

        key = Path(files.key) if files.key else None
        making = deferToThreadPool(
            self._reactor, self._reactor.getThreadPool(), ServerTls, self._reactor, Path(files.certificate), key,
            OF_A_PROXY,
        )  # fmt: skip
        try:
            made: ServerTls = await making.addTimeout(LOAD_LIMIT, self._reactor)
        except TooSlow:
            raise BadValue(
                f"certificate: {files.certificate} was not read within {LOAD_LIMIT:g} s.",
                hint="Put it on a disk of the daemon's machine.",
            ) from None
        return made

    async def prepare(self, files: CertificateFiles) -> ServerTls:
        """Have a certificate ready for :meth:`take`. One that is there already stays where its files are broken now.
        Raises BadValue."""

        if files in self._loaded:
            await self._loaded[files].look()
        else:
            self._loaded[files] = await self.load(files)
        return self._loaded[files]

    def take(self, files: CertificateFiles) -> ServerTls:
        """One that is prepared; from now on until :meth:`give_back` it may be chosen."""

        self._in_use[files] += 1
        return self._loaded[files]

    def give_back(self, files: CertificateFiles) -> None:
        self._in_use[files] -= 1
        if self._in_use[files] <= 0:
            del self._in_use[files]

    # --- by the client's wish -----------------------------------------------------------------------------------------

    def context(self) -> ssl.SSLContext:
        """For a connection that begins now and may say which host it wants."""

        if self.own is None:
            raise RuntimeError("The relay has no certificate of its own.")
        context = self.own.context()
        context.sni_callback = self._choose
        return context

    def _choose(self, tls: ssl.SSLObject | ssl.SSLSocket, host: str | None, _: ssl.SSLContext) -> None:
        wanted = (host or "").lower()
        # Of two for one host the one that was taken later, and the relay's own last.
        known = [*(self._loaded[files] for files in reversed(self._in_use)), *filter(None, [self.own])]
        covering = [one for one in known if wanted and one.covers(wanted)]
        chosen = next((one for one in covering if wanted in hosts(one)), next(iter(covering), self.own))
        if chosen is not None and chosen is not self.own:
            tls.context = chosen.context()

    # --- for a gateway ------------------------------------------------------------------------------------------------

    def judge(self, files: CertificateFiles, tls: ServerTls) -> None:
        """See whether a gateway can choose it by the client's wish. Raises BadValue."""

        if self.own is None:
            raise BadValue(
                "certificate: the gateway has no TLS, so no certificate can be chosen there.",
                hint="Set relay.certificate in the configuration, or have relay ports alone (relay.gateway).",
            )
        if not hosts(tls):
            raise BadValue(
                f"certificate: {files.certificate} names no host that a browser could ask the gateway for.",
                hint="It needs a DNS name without * among its subject alternative names.",
            )

    async def tell_apart(self, files: CertificateFiles, tls: ServerTls, others: Collection[CertificateFiles]) -> None:
        """See whether a gateway could choose between it and ``others``. Raises BadValue."""

        for where, other in [*self._own(), *await self._there(others)]:
            both = {name.lower() for name in tls.dns_names} & {name.lower() for name in other.dns_names}
            if both and other.fingerprint != tls.fingerprint:
                raise BadValue(
                    f"certificate: {files.certificate} is for {', '.join(sorted(both))}, and so is {where}: "
                    "the gateway could not choose between them.",
                    hint="Use the same certificate, or one for another name.",
                )

    def _own(self) -> list[tuple[str, ServerTls]]:
        return [] if self.own is None else [("relay.certificate", self.own)]

    async def _there(self, others: Collection[CertificateFiles]) -> list[tuple[str, ServerTls]]:
        """Those of them that can be used."""

        found = []
        for files in others:
            try:
                found.append((files.certificate, await self.load(files)))
            except BadValue:
                continue  # it is told when a console is opened with it
        return found


def hosts(tls: ServerTls) -> list[str]:
    """The hosts that a client could ask for and get this certificate."""

    return [name.lower() for name in tls.dns_names if not name.startswith("*")]
