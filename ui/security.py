"""What keeps other web pages, and people without the password, from driving this one."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ui.exposure import is_host
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
        hosts: names under which the page may be asked for, as browsers write them: ``page_hosts``.
        allowed: those among them that lead here through something else, which may ask by one and tell another.
        door: asks for the password; None where none is asked for. Checked here and not by Gradio, whose own check
            leaves some of its routes, and all of ours, open.
        share: also accept the host names of Gradio's share links.
    """

    def __init__(
        self,
        app: ASGIApp,
        hosts: Iterable[str],
        allowed: Iterable[str] = (),
        door: Door | None = None,
        share: bool = False,
    ) -> None:
        self._app = app
        self._allowed = frozenset(allowed)
        self._hosts = self._allowed.union(hosts)
        self._door = door
        self._share = share

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # the page uses no websockets
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = {name.decode("latin1"): value.decode("latin1") for name, value in scope["headers"]}
        host = headers.get("host", "").lower()
        if not self._is_known(host):
            await _refuse(send, 403, _unknown(host).encode())
            return
        if not self._is_from_here(host, scope, headers):
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

    def _is_known(self, host: str) -> bool:
        return host in self._hosts or (self._share and host.endswith(SHARE_SUFFIX))

    def _is_from_here(self, host: str, scope: Scope, headers: dict[str, str]) -> bool:
        site = headers.get("sec-fetch-site", "none")
        named = {_host_of(headers[name]) for name in ("origin", "referer") if headers.get(name)}
        own = named <= {host, *self._allowed} and site in ("same-origin", "none")
        return own or _is_a_link_to_the_page(scope, headers)

    def _answer_at_the_door(self, scope: Scope, headers: dict[str, str]) -> str:
        if self._door is None or scope["path"] == STARTUP_CHECK:
            return "in"
        address, _ = scope.get("client") or ("", 0)
        return self._door.answer(address, headers.get("authorization", ""))


def _unknown(host: str) -> str:
    """The refusal of a name; it is told only where it can be one."""
    if not is_host(host):
        return "This page only answers to its own names."
    return (
        f"This page does not go by the name {host}. If that is its name behind a proxy, a tunnel or a container, "
        f"start it with --allowed-host {host}."
    )


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
