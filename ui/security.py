"""What keeps other web pages, and people without the password, from driving this one."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

import psutil
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from trainer.errors import UserError
from ui.passwords import WINDOW_S, Door

SHARE_SUFFIX = ".gradio.live"
CONTENT_SECURITY_POLICY = "; ".join(
    [
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",  # Gradio's own page needs both
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "media-src 'self' blob:",
        "font-src 'self' data:",
        "connect-src 'self' blob: data:",
        "worker-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-src 'none'",
        "frame-ancestors 'none'",
    ]
)
HEADERS = [
    (b"content-security-policy", CONTENT_SECURITY_POLICY.encode()),
    (b"x-frame-options", b"DENY"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
STARTUP_CHECK = "/gradio_api/startup-events"
"""What Gradio asks of itself when it starts, without a password; it answers true or false and nothing else."""


class LocalOnlyMiddleware:
    """Pure ASGI. Refuses foreign Host headers (DNS rebinding), foreign origins and requests sent by other sites.

    Args:
        app: what comes behind.
        port: the port of the page.
        hosts: host names without port under which the page may be asked for.
        users: name to password; None where no password is asked for. Checked here and not by Gradio, whose own
            check leaves some of its routes, and all of ours, open.
        share: also accept the host names of Gradio's share links.
    """

    def __init__(
        self, app: ASGIApp, port: int, hosts: Iterable[str], users: dict[str, str] | None = None, share: bool = False
    ) -> None:
        self._app = app
        self._hosts = {f"{host}:{port}" for host in hosts} | (set(hosts) if port == 80 else set())
        self._door = None if users is None else Door(users)
        self._share = share

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # the page uses no websockets
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = {name.decode("latin1"): value.decode("latin1") for name, value in scope["headers"]}
        if not self._is_from_here(scope, headers):
            await _refuse(send, 403, b"This page only answers requests from itself.")
            return
        answer = self._answer_at_the_door(scope, headers)
        if answer == "in":
            await self._app(scope, receive, _with_headers(send))
        elif answer == "wait":
            again = (b"retry-after", str(round(WINDOW_S)).encode())
            await _refuse(send, 429, b"Too many wrong passwords from this address: wait a minute.", [again])
        else:
            asks = (b"www-authenticate", b'Basic realm="LoRA Atelier"')
            await _refuse(send, 401, b"Name and password, please.", [asks])

    def _is_from_here(self, scope: Scope, headers: dict[str, str]) -> bool:
        host = headers.get("host", "").lower()
        known = host in self._hosts or (self._share and host.endswith(SHARE_SUFFIX))
        site = headers.get("sec-fetch-site", "none")
        named = [_host_of(headers[name]) for name in ("origin", "referer") if headers.get(name)]
        own = all(name == host for name in named) and site in ("same-origin", "none")
        return known and (own or _is_a_link_to_the_page(scope, headers))

    def _answer_at_the_door(self, scope: Scope, headers: dict[str, str]) -> str:
        if self._door is None or scope["path"] == STARTUP_CHECK:
            return "in"
        address, _ = scope.get("client") or ("", 0)
        return self._door.answer(address, headers.get("authorization", ""))


def _host_of(url: str) -> str:
    """Host and port that an address names; empty where it names none, as ``null`` does."""
    try:
        return urlsplit(url).netloc.lower()
    except ValueError:
        return ""


def _is_a_link_to_the_page(scope: Scope, headers: dict[str, str]) -> bool:
    """Somebody clicked a link elsewhere that opens the page itself: harmless, since it sends nothing along."""
    return (
        scope["method"] == "GET"
        and scope["path"] == "/"
        and headers.get("sec-fetch-mode") == "navigate"
        and headers.get("sec-fetch-dest") == "document"
    )


def _with_headers(send: Send) -> Send:
    async def sender(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", []), *HEADERS]
        await send(message)

    return sender


async def _refuse(send: Send, status: int, text: bytes, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    plain = (b"content-type", b"text/plain; charset=utf-8")
    await send({"type": "http.response.start", "status": status, "headers": [plain, *(headers or [])]})
    await send({"type": "http.response.body", "body": text})


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def host_names(host: str) -> list[str]:
    """The names under which a page bound to ``host`` may be asked for: its addresses, never a name from elsewhere."""
    names = ["127.0.0.1", "localhost", "[::1]"]
    if is_loopback(host):
        return names
    if host not in ("0.0.0.0", "::"):
        return [*names, host.lower()]
    addresses = [address for found in psutil.net_if_addrs().values() for address in found]
    ipv4 = [address.address for address in addresses if address.family == socket.AF_INET]
    ipv6 = [f"[{address.address.partition('%')[0]}]" for address in addresses if address.family == socket.AF_INET6]
    return [*names, socket.gethostname().lower(), *ipv4, *ipv6]


def check_exposure(host: str, share: bool, users: dict[str, str] | None) -> None:
    """Refuse to be reachable from other machines without a password. Raises UserError."""
    if users is not None or (is_loopback(host) and not share):
        return
    given = "--share" if share else f"--host {host}"
    raise UserError(
        "security.no_password",
        f"{given} lets others reach this page, and it can read and write files: it needs a password.",
        "Add --auth-file FILE with one name:password a line, or leave it out to stay on this machine.",
    )
