"""Come to a console as a browser does, without one: by its URL, its key and its WebSocket."""

from __future__ import annotations

import json
from io import BytesIO
from typing import Any
from urllib.parse import urlsplit

from twisted.internet import reactor as global_reactor
from twisted.web.client import Agent, FileBodyProducer, readBody
from twisted.web.http_headers import Headers

from tests.support.ws_client import WsClient, open_socket


async def key_for(url: str, reactor: Any = global_reactor) -> tuple[int, str]:
    """Trade a console's one-time URL: its port, and the key."""

    parts = urlsplit(url)
    token = parts.fragment.removeprefix("t=")
    agent = Agent(reactor)
    body = FileBodyProducer(BytesIO(json.dumps({"token": token}).encode()))
    address = f"http://{parts.netloc}/api/session".encode()
    answer: Any = await agent.request(b"POST", address, Headers({b"Content-Type": [b"application/json"]}), body)
    return parts.port or 80, json.loads(await readBody(answer))["key"]


async def visit(url: str, reactor: Any = global_reactor) -> WsClient:
    """A viewer on the console of a one-time URL; nothing is said yet."""

    port, key = await key_for(url, reactor)
    return await open_socket(reactor, port, f"binary, key.{key}")


async def enter(viewer: WsClient) -> tuple[int, int]:
    """The RFB handshake (RFC 6143 §7.1, §7.3) with security type None; the screen's width and height."""

    await viewer.hears(12)
    viewer.say(b"RFB 003.008\n")
    await viewer.hears((await viewer.hears(1))[0])
    viewer.say(b"\x01")
    await viewer.hears(4)
    viewer.say(b"\x01")
    head = await viewer.hears(24)
    await viewer.hears(int.from_bytes(head[20:], "big"))
    return int.from_bytes(head[:2], "big"), int.from_bytes(head[2:4], "big")
