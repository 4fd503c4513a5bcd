"""The early script comes first into the page, and nothing else is touched."""

from __future__ import annotations

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from ui.early_script import EarlyScript

PAGE = "<!doctype html><html><head><meta charset='utf-8'></head><body>ünïcödé <head></body></html>"


def whole(request: Request) -> Response:
    return HTMLResponse(PAGE, headers={"x-kept": "yes"})


def in_parts(request: Request) -> Response:
    return StreamingResponse(iter([PAGE[:18], PAGE[18:30], PAGE[30:], ""]), media_type="text/html")


def client(answer: object) -> TestClient:
    routes = [Route(path, answer, methods=["GET", "POST"]) for path in ("/", "/other")]  # type: ignore[arg-type]
    return TestClient(Starlette(routes=routes, middleware=[Middleware(EarlyScript, script="let a = 1;")]))


@pytest.mark.parametrize("answer", [whole, in_parts])
def test_the_script_is_first_in_the_head(answer: object) -> None:
    response = client(answer).get("/")
    assert response.text == PAGE.replace("<head>", "<head>\n<script>\nlet a = 1;\n</script>", 1)
    assert int(response.headers["content-length"]) == len(response.content)


def test_all_else_stays_as_it_is() -> None:
    asked = client(whole)
    assert asked.get("/").headers["x-kept"] == "yes"
    for response in (asked.get("/other"), asked.post("/")):
        assert response.text == PAGE
    assert asked.head("/").headers["content-length"] == str(len(PAGE.encode()))
    plain = client(lambda request: Response(b"\x1f\x8b compressed", media_type="text/html")).get("/")
    assert plain.content == b"\x1f\x8b compressed"
