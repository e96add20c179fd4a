"""Who may come to a console: its owner's grant, those for others, and their end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from twisted.logger import Logger

from ipmiproxyd.console.ids import new_id
from ipmiproxyd.console.session import ConsoleSession
from ipmiproxyd.errors import BadValue, InternalError, NotFound
from ipmiproxyd.interfaces import Grants, RelayHost
from ipmiproxyd.model import Grant

_ID_LENGTH: Final = 6

log = Logger()


class Sharing:
    """The rights to consoles that are served. Each right has an id; its tokens and keys are in ``grants``."""

    def __init__(self, grants: Grants, relay: RelayHost) -> None:
        self._grants = grants
        self._relay = relay

    def owner_url(self, session: ConsoleSession) -> str:
        """A one-time URL for whoever opened the console. It is the same grant each time, until that is revoked."""

        if session.owner is None:
            session.owner = Grant(
                console=session.id,
                id=self._new_id(session),
                user=session.request.user,
                control=True,
                credentials=session.request.login_buttons,
            )
        return self.url(session, session.owner)

    def share(self, session: ConsoleSession, *, user: str, control: bool, credentials: bool) -> Grant:
        """A further right. Raises BadValue for one that the console does not give."""

        if credentials and not control:
            raise BadValue("Who only watches cannot have credentials typed.", hint="Add view=no, or leave it out.")
        if credentials and not session.request.login_buttons:
            raise BadValue(
                "The login buttons of this console are off.", hint="Open a console with login_buttons=yes."
            )
        grant = Grant(
            console=session.id, id=self._new_id(session), user=user, control=control, credentials=credentials
        )
        log.info(
            "console {console}: shared with {user!r} as {grant}, control {control}, credentials {credentials}",
            console=session.id,
            user=user,
            grant=grant.id,
            control=control,
            credentials=credentials,
        )
        return grant

    def url(self, session: ConsoleSession, grant: Grant) -> str:
        """A one-time URL for a grant; somebody is expected to come with it."""

        if session.has.port is None:
            raise InternalError("The console has no page.")
        token = self._grants.issue(grant)
        session.wanted = True
        session.expect_viewer()
        return self._relay.url(session.has.port, token)

    def all(self, session: ConsoleSession) -> list[Grant]:
        """Every grant that is out: those with a token or a key, and whatever else a browser is connected by."""

        grants = {grant.id: grant for grant in self._grants.all(session.id)}
        for viewer in session.snapshot().viewers:
            # So many others came after it that its key was forgotten, but there it is.
            known = Grant(console=session.id, id=viewer.id, user=viewer.user, control=viewer.control)
            grants.setdefault(viewer.id, known)
        return list(grants.values())

    def revoke(self, session: ConsoleSession, *, viewer: str, user: str) -> Sequence[Grant]:
        """Take back one grant, all of a user, or all there are; their browsers are cut at once. Raises NotFound."""

        chosen = [
            grant for grant in self.all(session) if viewer in ("", grant.id) and (not user or grant.user == user)
        ]
        if not chosen and (viewer or user):
            whose = f"viewer {viewer!r}" if viewer else f"viewer of the user {user!r}"
            raise NotFound(
                f"The console {session.id} has no {whose}.", hint=f"See: console viewers console={session.id}"
            )
        for grant in chosen:
            self._grants.revoke(session.id, grant.id)
            if session.owner is not None and session.owner.id == grant.id:
                session.owner = None
            if session.has.port is not None:
                session.has.port.cut(grant.id)
            log.info(
                "console {console}: {grant} of {user!r} revoked", console=session.id, grant=grant.id, user=grant.user
            )
        return chosen

    def _new_id(self, session: ConsoleSession) -> str:
        taken = {grant.id for grant in self.all(session)}
        while True:
            grant_id = new_id(_ID_LENGTH)
            if grant_id not in taken:
                return grant_id
