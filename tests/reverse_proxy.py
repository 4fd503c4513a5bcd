"""A reverse proxy with TLS, as people put it in front of the page: it passes on the name that it was asked for."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

_SECONDS = 60


@contextmanager
def tls_proxy(port: int, target: str, folder: Path) -> Iterator[None]:
    """Serve ``target``, such as ``http://127.0.0.1:7860``, on a port of this machine with a certificate of its own.

    Skips the test where there is no OpenSSL to make one.
    """
    key, certificate = _certificate(folder)
    client = httpx.AsyncClient(base_url=target, timeout=None)

    async def passed_on(request: Request) -> StreamingResponse:
        headers = [(name, value) for name, value in request.headers.raw if name != b"connection"]
        path = httpx.URL(path=request.url.path, query=request.url.query.encode())
        asked = client.build_request(
            request.method, path, headers=[*headers, (b"x-forwarded-proto", b"https")], content=await request.body()
        )
        answer = await client.send(asked, stream=True)
        rest = BackgroundTask(answer.aclose)
        return StreamingResponse(_as_it_comes(answer), answer.status_code, dict(answer.headers), background=rest)

    app = Starlette(routes=[Route("/{path:path}", passed_on, methods=["GET", "POST"])])
    server = uvicorn.Server(
        uvicorn.Config(
            app, port=port, log_level="error", ssl_keyfile=key, ssl_certfile=certificate, timeout_graceful_shutdown=1
        )
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + _SECONDS
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.05)
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(_SECONDS)


async def _as_it_comes(answer: httpx.Response) -> AsyncIterator[bytes]:
    async for piece in answer.aiter_raw():
        yield piece


def _certificate(folder: Path) -> tuple[Path, Path]:
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("no OpenSSL on this machine")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    asked = ["-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=atelier.test"]
    made = [program, "req", "-x509", *asked, "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(made, check=True, capture_output=True)
    return key, certificate
