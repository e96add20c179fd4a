"""What the panel's page itself tries to reach: scripts, pictures and sockets of other servers."""

from __future__ import annotations

from typing import ClassVar

from ipmiproxyd.model import JobSpec
from ipmiproxyd.tools.browser import PanelBrowser
from ipmiproxyd.tools.xvnc import Display
from tests.integration.test_local_agent import LocalCase
from tests.support.agent_suite import reach_of
from tests.support.https_site import HttpsSite

PAGE = """<!doctype html><title>Hostile panel</title><script>
    const other = "{url}"
    const over = Promise.all(["script", "img", "iframe"].map(kind => new Promise(done => {{
        const element = document.createElement(kind)
        element.onload = element.onerror = done
        element.src = `${{other}}/${{kind}}`
        document.documentElement.append(element)
    }})))
    const closed = new Promise(done => new WebSocket(other.replace("http", "ws") + "/socket").onclose = done)
    const fetched = fetch(`${{other}}/fetch`, {{ mode: "no-cors" }}).catch(() => 0)
    Promise.all([over, closed, fetched]).then(() => fetch("/tried"))
</script>"""


class ReachTests(LocalCase):
    timeout: ClassVar[float] = 60

    async def test_no_other_server_hears_of_it(self) -> None:
        other = HttpsSite(self, {"/": ""}, tls=False)
        site = HttpsSite(self, {"/": PAGE.format(url=other.url), "/tried": ""}, tls=False)
        program, files = PanelBrowser().programs(self.agent, site.url, None)
        small = self.spec()
        screen, screen_files = Display().programs(small.display)
        spec = JobSpec(
            id=small.id,
            display=small.display,
            programs=(*screen, program),
            files=(*screen_files, *files),
            reach=reach_of(site.url, other.url),  # what holds here is the browser itself
        )
        await self.agent.launch(spec, lambda _: None)
        await site.asked_for("/tried")
        self.assertEqual(other.connections, 0)
        await self.agent.stop(spec.id)
        await self.nothing_left()
