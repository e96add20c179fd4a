"""What a request for a console asks for: which consoles it means or resembles, and request ⇄ stored document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ipmiproxyd.console.session import ConsoleSession, label_of
from ipmiproxyd.model import ConsoleState, Device, OpenRequest


def names(request: OpenRequest) -> tuple[str, ...]:
    device = request.device
    return (device.name, device.bmc, device.address, label_of(request))


def target(request: OpenRequest) -> tuple[str, ...]:
    """What a console leads to, and whose it is. Behind another agent the same address is another server."""

    device = request.device
    screen = device.vnc if request.type == "vnc" else device.web_url
    return (request.agent, device.bmc, screen, request.type, request.user)


def is_meant(session: ConsoleSession, request: OpenRequest) -> bool:
    """Whether a console leads where a request wants to go. Who demands a type is not content with another."""

    wanted = target(request)
    return wanted == target(session.request) or (bool(request.fall_back) and wanted == target(session.asked))


def may_be_shared(session: ConsoleSession, request: OpenRequest) -> bool:
    """Whether a console that is meant can be used for a request: who asks for less than it gives must not be given
    more, and who demands a type must not get one that may yet fall back."""

    undecided = session.state is ConsoleState.OPENING and session.request.fall_back
    alike = rules(request) in (rules(session.asked), rules(session.request))
    return alike and (bool(request.fall_back) or not undecided)


def kept_times(session: ConsoleSession, request: OpenRequest) -> list[str]:
    """What is to be told if a console is used again that was opened with other times."""

    if (session.request.idle, session.request.max_time) == (request.idle, request.max_time):
        return []
    return ["The console that was there already is used, and keeps its own idle time and limit."]


def rules(request: OpenRequest) -> tuple[object, ...]:
    """What a console's viewers may do, and what else was asked of it."""

    java = request.device.java if request.type == "java" else ""
    return (request.clipboard, request.login_buttons, request.encrypt, request.certificate, java)


def to_document(request: OpenRequest, opened_at: float) -> dict[str, Any]:
    return {
        "device": request.device.name,
        "address": request.device.address,
        "port": request.device.port,
        "vnc": request.device.vnc,
        "type": request.type,
        "user": request.user,
        "agent": request.agent,
        "proxy": request.proxy,
        "opened_at": opened_at,
    }


def from_document(document: Mapping[str, Any]) -> tuple[OpenRequest, float | None]:
    device = Device(
        name=document.get("device", ""),
        address=document.get("address", "unknown"),
        port=document.get("port", 623),
        vnc=document.get("vnc", ""),
    )
    request = OpenRequest(
        device=device,
        type=document.get("type", "panel"),
        user=document.get("user", ""),
        agent=document.get("agent", "local"),
        proxy=document.get("proxy", ""),
    )
    return request, document.get("opened_at")
