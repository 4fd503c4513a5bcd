"""A script that runs before Gradio's own: what ``launch(head=...)`` is given is put on the page by those."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_PLACE = b"<head>"


class EarlyScript:
    """Pure ASGI. Puts a script first into the head of the page at ``/``; an answer without a head stays as it is."""

    def __init__(self, app: ASGIApp, script: str) -> None:
        self._app = app
        self._element = b"\n<script>\n" + script.encode() + b"\n</script>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_page = scope["type"] == "http" and (scope["method"], scope["path"]) == ("GET", "/")
        await self._app(scope, receive, self._adding(send) if is_page else send)

    def _adding(self, send: Send) -> Send:
        start: Message = {}
        parts: list[bytes] = []

        async def sender(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.update(message)  # its length is known when the body is
                return
            parts.append(message.get("body", b""))
            if message.get("more_body", False):
                return
            body = b"".join(parts).replace(_PLACE, _PLACE + self._element, 1)
            others = [(name, value) for name, value in start["headers"] if name.lower() != b"content-length"]
            await send({**start, "headers": [*others, (b"content-length", str(len(body)).encode())]})
            await send({"type": "http.response.body", "body": body})

        return sender
