"""Opening a console of type ``html5``: the panel's own console page in a locked-down browser, signed in already."""

from __future__ import annotations

from collections.abc import Mapping

from ipmiproxyd.console.browser_sessions import BrowserSessions
from ipmiproxyd.console.opening import Serve, Workshop, at_panel, start_job
from ipmiproxyd.console.reach import reach_of
from ipmiproxyd.console.session import ConsoleSession
from ipmiproxyd.console.web_sessions import WebSessions
from ipmiproxyd.errors import BmcUnsupported
from ipmiproxyd.tools.vendors import VendorDesk


class Html5Opening:
    """The stages: recognise the panel, sign in, ask for the page of its console, show it."""

    def __init__(
        self, workshop: Workshop, serve: Serve, desk: VendorDesk, web: WebSessions, browsers: BrowserSessions
    ) -> None:
        self._shop = workshop
        self._serve = serve
        self._desk = desk
        self._web = web
        self._browsers = browsers

    async def __call__(self, session: ConsoleSession) -> None:
        async with at_panel(session, self._shop, self._serve) as addresses:
            await self._open(session, addresses)

    async def _open(self, session: ConsoleSession, addresses: Mapping[str, str]) -> None:
        shop = self._shop
        agent = shop.agents[session.request.agent]
        device = session.request.device
        family = (await self._desk.family(agent, device)).family
        if "html5" not in family.consoles:
            raise BmcUnsupported(
                f"{family.label} has no HTML5 console.",
                hint="Use type=java or type=panel." if "java" in family.consoles else "Use type=panel.",
            )
        web = await self._web.sign_in(session, agent, family)
        session.stage("html5", "Asking the panel for its HTML5 console")
        page = await shop.panels.talk(agent, device, lambda site: family.html5(site, web))
        tls, pin = await shop.panels.known(agent, device)
        program, files = shop.browser.programs(agent, device.web_url, pin, page, family.html5_ports, tls=tls)
        reach = reach_of(device, addresses, family.html5_ports)
        window = ("browser", "Opening the console in a browser")
        await start_job(session, shop, (program,), files, window=window, reach=reach)
        if not page.cookies:
            # Then the page has signed in by itself, with what stands in its address.
            await self._browsers.record(session)
