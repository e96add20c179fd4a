from tests.integration.test_java import *
from tests.integration import test_java as t
class Timing(t.JavaCase):
    async def test_it(self):
        for i in range(3):
            jnlp = self.jnlp("com.ami.kvm.jviewer.JViewer", "127.0.0.1", str(self.port), t.TOKEN)
            stages=[]
            job = await self.agent.launch(self.job(jnlp), stages.append)
            b=time.monotonic()
            await self.view(job)
            print(stages, time.monotonic()-b)
            b=time.monotonic(); f=JavaFiles(); await f.installed(self.agent, java_dir=""); print("installed", time.monotonic()-b)
            b=time.monotonic(); await f.have(self.agent, str(self.agent.cache_dir), [self.viewer]); print("have", time.monotonic()-b)
