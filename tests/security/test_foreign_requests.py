"""Pages elsewhere, names that were bound anew, and people without the password: no route answers any of them.

The routes are those that the running app serves, Gradio's own among them: a new one is attacked without a line here.
"""

from __future__ import annotations

import base64
import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.security.conftest import Attacked, Starter
from ui.passwords import MOST_WRONG
from ui.security import STARTUP_CHECK

REFUSAL = "This page only answers requests from itself."
OTHER_NAMES = ("This page does not go by the name ", "This page only answers to its own names.")
EVIL = "https://attacker.example"
FOREIGN = {
    "a name that was bound to this machine anew": {"host": "attacker.example:{port}"},
    "the same with the page's own marks": {
        "host": "attacker.example:{port}",
        "origin": "http://attacker.example:{port}",
        "sec-fetch-site": "same-origin",
    },
    "a name that begins like ours": {"host": "127.0.0.1:{port}.attacker.example"},
    "a page elsewhere": {"origin": EVIL},
    "a page on another port": {"origin": "http://localhost:9999", "sec-fetch-site": "same-site"},
    "a page without an origin": {"origin": "null"},
    "a picture or form elsewhere": {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"},
    "a frame elsewhere": {
        "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe",
    },
    "an old browser on a page elsewhere": {"referer": f"{EVIL}/page"},
    "an origin that is none": {"origin": "http://["},
}  # fmt: skip
BODY = json.dumps({"data": [], "fn_index": 0, "session_hash": "x", "component_id": 1, "fn_name": "ask"})
PLAIN = {"content-type": "text/plain"}
"""What a page elsewhere may send without asking first."""


def headers_of(attack: dict[str, str], app: Attacked) -> dict[str, str]:
    return {**PLAIN, **{name: value.format(port=app.port) for name, value in attack.items()}}


@pytest.mark.parametrize("attack", FOREIGN)
def test_no_route_answers_a_foreign_request(attack: str, attacked: Attacked, client: httpx.Client) -> None:
    before = attacked.state_inside()
    for path, methods in attacked.routes():
        for method in methods:
            answer = client.request(method, path, headers=headers_of(FOREIGN[attack], attacked), content=BODY)
            assert answer.status_code == 403, (method, path)
            assert answer.text.startswith((REFUSAL, *OTHER_NAMES)) or answer.text == "", (method, path)
    assert attacked.state_inside() == before
    assert (attacked.started(), attacked.touched()) == ([], [])


@pytest.mark.parametrize("method", ["OPTIONS", "HEAD", "PUT", "DELETE", "PATCH", "TRACE"])
def test_no_method_helps_a_page_elsewhere(method: str, attacked: Attacked, client: httpx.Client) -> None:
    asks = {"origin": EVIL, "access-control-request-method": "POST", "access-control-request-headers": "content-type"}
    for path, _ in attacked.routes():
        answer = client.request(method, path, headers=asks)
        assert "access-control-allow-origin" not in answer.headers, path  # so the browser sends nothing after asking
        if method == "OPTIONS":  # answered by Gradio, in front of our check
            assert answer.text in ("OK", REFUSAL), path
        else:
            assert answer.status_code == 403, path


def test_files_of_pages_elsewhere_do_not_arrive(attacked: Attacked, client: httpx.Client) -> None:
    before = attacked.state_inside()
    for attack in FOREIGN.values():
        headers = {name: value.format(port=attacked.port) for name, value in attack.items()}
        for path in ("/gradio_api/upload", "/upload", "/gradio_api/upload?upload_id=1"):
            assert client.post(path, files={"files": ("a.png", b"x" * 5000)}, headers=headers).status_code == 403
    assert attacked.state_inside() == before


def test_the_page_itself_is_answered_on_these_routes(attacked: Attacked, client: httpx.Client) -> None:
    """Else the tests above could not fail."""
    routes = attacked.routes()
    own = {"origin": attacked.url, "referer": f"{attacked.url}/", "sec-fetch-site": "same-origin"}
    for path, methods in routes:
        if "GET" in methods:
            with client.stream("GET", path, headers=own) as answer:
                refused = answer.status_code == 403 and answer.read().decode() == REFUSAL
            assert not refused, path
    assert "LoRA Atelier" in client.get("/", headers=own).text
    assert {"/", "/config", "/gradio_api/upload", "/gradio_api/queue/join", "/atelier/compare"} <= dict(routes).keys()
    assert len(routes) > 60


def test_a_link_elsewhere_opens_the_page(client: httpx.Client) -> None:
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    answer = client.get("/", headers=link)
    assert answer.status_code == 200
    assert answer.headers["x-frame-options"] == "DENY"
    assert client.get("/config", headers=link).status_code == 403


@pytest.mark.parametrize("origin", [EVIL, "own"])
def test_no_websocket_opens(origin: str, attacked: Attacked) -> None:
    for path in ("/", "/gradio_api/queue/join", "/queue/join", "/gradio_api/dev/reload"):
        request = (
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{attacked.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Origin: {attacked.url if origin == 'own' else origin}\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert " 101 " not in answer_to(attacked.port, request.encode())


@pytest.mark.parametrize(
    "request_lines",
    [
        "GET /config HTTP/1.0\r\n\r\n",
        "GET /config HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nHost: attacker.example\r\n\r\n",
        "GET /config HTTP/1.1\r\nHost: attacker.example\r\nX-Forwarded-Host: 127.0.0.1:{port}\r\n\r\n",
        "GET http://127.0.0.1:{port}/config HTTP/1.1\r\nHost: attacker.example:{port}\r\n\r\n",
        "GET /config HTTP/1.1\r\nHost: \r\n\r\n",
        "GET /config HTTP/1.1\r\nHost: 127.0.0.1:{port}@attacker.example\r\n\r\n",
    ],
)
def test_odd_hosts_are_refused(request_lines: str, attacked: Attacked) -> None:
    answer = answer_to(attacked.port, request_lines.format(port=attacked.port).encode())
    assert answer.split(" ")[1] in ("400", "403"), answer[:200]


def answer_to(port: int, request: bytes) -> str:
    """The beginning of what a raw request is answered."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(request)
        return connection.recv(4096).decode("latin1")


# ---- with a password ----------------------------------------------------------------------------------------------

RIGHT = ("anna", "right: päss")


@pytest.fixture(scope="module")
def guarded(start: Starter, tmp_path_factory: pytest.TempPathFactory) -> Attacked:
    """The app with a password."""
    users = tmp_path_factory.mktemp("users") / "users.txt"
    users.write_text(":".join(RIGHT), encoding="utf-8")
    users.chmod(0o600)
    return start("--auth-file", str(users))


@pytest.fixture
def visitor(guarded: Attacked) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=guarded.url, timeout=60) as client:
        yield client


def test_nothing_is_answered_without_the_password(guarded: Attacked, visitor: httpx.Client) -> None:
    before = guarded.state_inside()
    for path, methods in guarded.routes():
        for method in {*methods, "OPTIONS", "PUT"}:
            answer = visitor.request(method, path, content=BODY, headers=PLAIN)
            assert answer.status_code == 401 or path == STARTUP_CHECK, (method, path)
    assert visitor.get(STARTUP_CHECK).text in ("true", "false")
    assert guarded.state_inside() == before
    assert (guarded.started(), guarded.touched()) == ([], [])


def basic(text: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(text.encode()).decode()}


@pytest.mark.parametrize(
    "headers",
    [
        {"cookie": "access-token=x; access-token-unsecure=x; session=x"},
        {"cookie": "Authorization=Basic YW5uYTpyaWdodDogcMOkc3M="},
        {"authorization": "Bearer YW5uYTpyaWdodDogcMOkc3M="},
        {"authorization": "Basic"},
        {"proxy-authorization": "Basic YW5uYTpyaWdodDogcMOkc3M="},
        {"x-forwarded-user": "anna", "remote-user": "anna"},
        basic("anna:"),
        basic("anna"),
        basic(":right: päss"),
        basic("Anna:right: päss"),
        basic("anna:right: päss\0"),
    ],
)
def test_nothing_but_the_password_opens_it(headers: dict[str, str], guarded: Attacked) -> None:
    with from_address(guarded, "127.0.0.2") as client:
        assert client.get("/config", headers=headers).status_code == 401
        assert client.post("/login", data={"username": "anna", "password": "x"}, headers=headers).status_code == 401


def test_the_password_opens_it(visitor: httpx.Client) -> None:
    answer = visitor.get("/", auth=RIGHT)
    assert answer.status_code == 200 and "LoRA Atelier" in answer.text
    assert "set-cookie" not in answer.headers  # nothing to steal or to fix


def test_a_page_elsewhere_gains_nothing_from_a_browser_that_knows_the_password(visitor: httpx.Client) -> None:
    assert visitor.get("/config", auth=RIGHT, headers={"origin": EVIL}).status_code == 403
    assert visitor.get("/config", auth=RIGHT, headers={"referer": EVIL}).status_code == 403


def test_guessing_ends_and_only_for_the_one_who_guesses(guarded: Attacked, visitor: httpx.Client) -> None:
    with from_address(guarded, "127.0.0.3") as guesser:
        answers = [guesser.get("/config", auth=("anna", f"guess {number}")) for number in range(MOST_WRONG + 5)]
        assert [answer.status_code for answer in answers] == [401] * MOST_WRONG + [429] * 5
        assert int(answers[-1].headers["retry-after"]) <= 60
        assert guesser.get("/config", auth=RIGHT).status_code == 429
        for name in ("x-forwarded-for", "forwarded", "x-real-ip", "client-ip"):
            elsewhere = {name: "for=10.0.0.1" if name == "forwarded" else "10.0.0.1"}
            assert guesser.get("/config", auth=RIGHT, headers=elsewhere).status_code == 429
    assert visitor.get("/config", auth=RIGHT).status_code == 200


def from_address(app: Attacked, address: str) -> httpx.Client:
    """Another machine, as far as the app can tell."""
    with socket.socket() as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            pytest.skip(f"{address} is no address of this machine")
    return httpx.Client(base_url=app.url, timeout=60, transport=httpx.HTTPTransport(local_address=address))


def test_the_start_says_who_can_open_it(attacked: Attacked, guarded: Attacked) -> None:
    assert "Every account of this machine can open it; with --auth-file F it asks for a password." in attacked.log
    assert "It asks for a password" in guarded.log
    assert RIGHT[1] not in guarded.log


def test_the_password_is_in_no_file_of_the_workspace(guarded: Attacked) -> None:
    words = [RIGHT[1].encode(), base64.b64encode(":".join(RIGHT).encode())]
    files = [path for path in guarded.workspace.rglob("*") if path.is_file()]
    assert not [path for path in files for word in words if word in path.read_bytes()]
    assert not re.search("p(ä|a)ss", " ".join(Path(f"/proc/{guarded.process.pid}/cmdline").read_text().split("\0")))
