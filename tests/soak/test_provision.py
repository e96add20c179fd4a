"""From a bare Debian to an agent with one command, and back: on each release that can become one."""

from __future__ import annotations

from tests.support import leftovers
from tests.support.listing import differences, listing
from tests.support.roots_world import LIMIT, RootsWorld
from tests.support.ws_client import WsClient

DUMMY=1

class Debian11Tests(RootsWorld):
    suite = "bullseye"

    async def test_there_and_back(self) -> None:
        host = self.east.host
        import time
        t=time.time()
        before = listing(host); print("listing", time.time()-t, len(before))
        t=time.time()
        dry = await self.provisioned(dry_run="yes"); print(dry.body["changes"], differences(before, listing(host)))
        reply = await self.provisioned(); print("provision", time.time()-t, reply.body)
        after = listing(host)
        t=time.time()
        again = await self.provisioned(); print("again", time.time()-t, again.body["changes"], differences(after, listing(host)))
        t=time.time()
        print((await self.client.must("agent check name=east"))["findings"])
        print("check", time.time()-t)
        t=time.time()
        back = await self.provisioned("unprovision"); print("back", time.time()-t, back.body)
        print("\n".join(differences(before, listing(host))))

class Debian12Tests(Debian11Tests):
    suite = "bookworm"
class Debian13Tests(Debian11Tests):
    suite = "trixie"
