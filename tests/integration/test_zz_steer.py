import json, os
from typing import ClassVar
from ipmiproxyd.model import JobSpec
from ipmiproxyd.tools.browser import PanelBrowser
from ipmiproxyd.tools.xvnc import Display
from ipmiproxyd.vendors.family import Page
from tests.integration.test_local_agent import LocalCase
from tests.support.https_site import HttpsSite
from tests.support import leftovers
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.defer import Deferred

HTML = """<!doctype html><body style="background:rgb(34,136,34)"><script>fetch('/seen/' + encodeURIComponent(document.cookie + '|' + JSON.stringify(sessionStorage) + location.hash))</script>"""
class Collect(Protocol):
    def __init__(self): self.data=b""; self.done=Deferred()
    def dataReceived(self,d): self.data+=d
    def connectionLost(self,r): self.done.callback(self.data)

class T(LocalCase):
    timeout: ClassVar[float] = 40
    async def test_it(self):
        site = HttpsSite(self, {"/con": "<title>Hallo</title>"+HTML})
        page = Page(path="/con?x=geheim#y", cookies={"SID":"s1","__Host-garc":"g1"})
        program, files = PanelBrowser(python="/usr/bin/python3").programs(site.url, site.pin, page)
        small = self.spec()
        screen, sf = Display().programs(small.display)
        spec = JobSpec(id=small.id, display=small.display, programs=(*screen, program), files=(*sf,*files))
        import time; t=time.time()
        job = await self.agent.launch(spec, lambda s: print(s))
        print("up", time.time()-t, job.door, site.requests)
        for _ in range(30):
            await leftovers.pause(0.1)
            if any(r.startswith("/seen") for r in site.requests): break
        print(time.time()-t, site.requests)
        print([str(x) for x in self.folder.rglob('log')], await self.agent.jobs(), os.listdir(self.agent._jobs_dir), [[print(l) for l in x.read_text().split(chr(10)) if 'arget' in l] for x in self.folder.rglob("log")])
        from tests.support.rfb_client import RfbClient, CONTROL
        client = await RfbClient.connect(self.agent.dial(job.vnc)); self.addCleanup(client.close)
        client.press(0xffc9) # F12
        await leftovers.pause(1)
        client.press(CONTROL, 0xffe1, ord('I'))
        await leftovers.pause(1)
        screen = await client.look()
        from PIL import Image
        im = Image.new('RGB',(1280,1024)); im.putdata([screen.colour(x,y) for y in range(1024) for x in range(1280)]); im.save('/tmp/w/shots/hb.png')
        t=time.time()
        p = await self.agent.dial(job.door).connect(Factory.forProtocol(Collect))
        print(await p.done, time.time()-t)
        await self.agent.stop(spec.id)
        await self.nothing_left()
