"""The checks in front of the page: where a request comes from, and the password."""

from __future__ import annotations

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from ui import security
from ui.exposure import page_hosts
from ui.passwords import MOST_WRONG, Door
from ui.security import LocalOnlyMiddleware

NAVIGATION = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}


def client(users: dict[str, str] | None = None, share: bool = False, allowed: tuple[str, ...] = ()) -> TestClient:
    async def answer(request: object) -> PlainTextResponse:
        return PlainTextResponse("hello")

    paths = ["/", "/config", "/gradio_api/upload", security.STARTUP_CHECK]
    app = Starlette(routes=[Route(path, answer, methods=["GET", "POST"]) for path in paths])
    door = Door(users) if users else None
    guarded = LocalOnlyMiddleware(app, page_hosts("127.0.0.1", 7860), allowed, door, share)
    return TestClient(guarded, base_url="http://127.0.0.1:7860")


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost:7860", "LOCALHOST:7860", "[::1]:7860"])
def test_this_machine_is_answered(host: str) -> None:
    assert client().get("/config", headers={"host": host}).text == "hello"


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:7860", "127.0.0.1", "127.0.0.1:80", "localhost:7861", "localhost.evil:7860", ""],
)
def test_another_host_name_is_refused(host: str) -> None:
    """DNS rebinding: a foreign name that points at this machine."""
    assert client().get("/config", headers={"host": host}).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "http://127.0.0.1:9999"},
        {"origin": "http://localhost:7860"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"referer": "http://evil.example/page"},
        {"referer": "http://127.0.0.1:7860.evil.example/"},
        {"origin": "http://[", "referer": ""},
        {"origin": "http://127.0.0.1:7860", "referer": "https://evil.example/"},
    ],
)
def test_requests_sent_by_other_pages_are_refused(headers: dict[str, str]) -> None:
    assert client().post("/gradio_api/upload", headers=headers).status_code == 403


@pytest.mark.parametrize("host", ["evil.example", "192.168.1.7:7860", "[fe80::1]:9000"])
def test_a_refused_name_is_told_with_what_to_do(host: str) -> None:
    assert f"--allowed-host {host}." in client().get("/", headers={"host": host}).text


def test_what_is_no_name_is_not_repeated() -> None:
    assert "script" not in client().get("/", headers={"host": "<script>"}).text


def test_a_proxy_may_ask_by_either_name() -> None:
    behind = client(allowed=("atelier.example",))
    own = {"origin": "https://atelier.example", "sec-fetch-site": "same-origin"}
    for host in ("atelier.example", "127.0.0.1:7860"):  # as the browser wrote it, or rewritten by the proxy
        assert behind.post("/gradio_api/upload", headers={**own, "host": host}).status_code == 200
        assert client().post("/gradio_api/upload", headers={**own, "host": host}).status_code == 403
    for headers in ({"sec-fetch-site": "cross-site"}, {"origin": "https://evil.example"}, {"host": "evil.example"}):
        assert behind.post("/gradio_api/upload", headers={**own, **headers}).status_code == 403


def test_the_page_may_talk_to_itself() -> None:
    headers = {
        "origin": "http://127.0.0.1:7860",
        "referer": "http://127.0.0.1:7860/?__theme=dark",
        "sec-fetch-site": "same-origin",
    }
    assert client().post("/gradio_api/upload", headers=headers).status_code == 200


def test_a_link_elsewhere_may_open_the_page_and_nothing_else() -> None:
    assert client().get("/", headers=NAVIGATION).status_code == 200
    assert client().get("/", headers={**NAVIGATION, "referer": "https://forum.example/"}).status_code == 200
    assert client().get("/config", headers=NAVIGATION).status_code == 403
    assert client().post("/", headers=NAVIGATION).status_code == 403
    assert client().get("/", headers={**NAVIGATION, "sec-fetch-dest": "iframe"}).status_code == 403


def test_answers_carry_the_headers() -> None:
    headers = client().get("/").headers
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "default-src 'self'" in headers["content-security-policy"]
    assert headers["x-frame-options"] == "DENY"
    assert headers["x-content-type-options"] == "nosniff"


def test_share_links_are_answered_only_when_shared() -> None:
    headers = {"host": "abc.gradio.live"}
    assert client(share=False).get("/", headers=headers).status_code == 403
    assert client(share=True).get("/", headers=headers).status_code == 200
    assert client(share=True).get("/", headers={"host": "gradio.live.evil.example"}).status_code == 403


def test_the_password_guards_every_route() -> None:
    guarded = client(users={"anna": "päss:word"})
    assert guarded.get("/config").status_code == 401
    assert guarded.get("/config").headers["www-authenticate"].startswith("Basic")
    assert guarded.get("/config", auth=("anna", "päss:word")).text == "hello"
    assert guarded.get("/config", auth=("anna", "x")).status_code == 401
    assert guarded.get(security.STARTUP_CHECK).status_code == 200


def test_many_wrong_passwords_have_to_wait() -> None:
    guarded = client(users={"anna": "right"})
    for number in range(MOST_WRONG):
        assert guarded.get("/config", auth=("anna", f"wrong {number}")).status_code == 401
    waits = guarded.get("/config", auth=("anna", "right"))
    assert (waits.status_code, waits.headers["retry-after"]) == (429, "60")


def test_websockets_are_refused() -> None:
    from starlette.websockets import WebSocketDisconnect

    with pytest.raises(WebSocketDisconnect), client().websocket_connect("/"):
        pass
