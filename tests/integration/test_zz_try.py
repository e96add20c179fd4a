from __future__ import annotations
import sys
from tests.support.world import World
from tests.support.visit import enter, key_for, visit
from tests.support.ws_client import open_socket
from tests.support import leftovers
from tests.support.screen_world import key, pointer

class T(World):
    async def test_x(self):
        opened = await self.opened()
        v = await visit(opened["url"])
        await enter(v)
        self.addCleanup(v.hang_up)
        v.say(pointer(640,315)+pointer(640,315,1)+pointer(640,315))
        await leftovers.pause(1)
        async def stroke(sym, hold, gap):
            sym = sym if ord(sym)<256 else sym
            n = ord(sym); n = n if n < 256 else 0x1000000|n
            v.say(key(n)); 
            if hold: await leftovers.pause(hold)
            v.say(key(n, False)); await leftovers.pause(gap)
        for text, hold, gap in (("aüb",0,0.02),("cüdü",0,0.02),("eßf",0.02,0.02),("g€h",0.2,0.2),("iΩj",0,1.0),("kΩlΩ",0,0.02), ("m°n°", 0, 0.02), ("oñpñ",0.05,0.02), ("qxñ", 0, 0.02)):
            for c in text: await stroke(c, hold, gap)
            await leftovers.pause(0.5)
            print(text, hold, gap, self.server.panel.record("text")[-1]["value"], file=sys.stderr)
        for e in self.server.panel.record("key"): print(e.get("key"), end=" ", file=sys.stderr)
