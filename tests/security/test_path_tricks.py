"""Names that lead out of the workspace: no route, field or script's question reads, lists or writes what they name.

Routes, fields and questions are those of the running app, so that a new one is tried without a line here. Each event
gets some of the tricks, another choice for each; with LORA_ATELIER_FUZZ=1 all of them.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from PIL import Image

from tests.security.conftest import SECRET, Attacked
from tests.security.sent_names import names_sent
from trainer.config import Config
from trainer.runs.store import Run, Workspace

TRICKS = [
    "{outside}", "{outside}/secret.txt", "{outside}/secret.yaml", "{outside}/secret.safetensors",
    "../../outside/secret.png", "../outside/secret.txt", "../" * 40 + "etc/passwd",
    "{workspace}/../outside/secret.json", "{workspace}/datasets/good/./.././../../outside/secret.png",
    "{workspace}/datasets/linked/way-out", "{workspace}/datasets/linked/way-out/secret.txt",
    "{workspace}/datasets/linked/link.png", "{workspace}/datasets/linked", "{workspace}/models/link.safetensors",
    "{workspace}/circle", "{workspace}/pipe.yaml",
    "%2e%2e%2foutside%2fsecret.txt", "%252e%252e%252foutside", "..%c0%af..%c0%afoutside", "..%5coutside",
    "..\\..\\outside\\secret.txt", "C:\\Windows\\win.ini", "\\\\server\\share\\a.png", "//server/share/a.png",
    "CON", "nul.txt", "a.png::$DATA",
    "{outside}/secret.txt\0.png", "a\0{outside}", "{outside}/secret.txt.", "{outside}/secret.txt ", "{OUTSIDE}",
    "{outside}/new\nline.png", "{outside}/\x1b[2J.png", "{outside}/\u202egnp.exe",
    "/etc/passwd", "/etc/shadow", "/proc/self/environ", "/proc/self/root{outside}/secret.txt", "/proc/self/fd/0",
    "/dev/stdin", "/dev/zero", "file://{outside}/secret.txt", "file:{outside}/secret.yaml", "~root/.bashrc",
    "~/../../../../..{outside}/secret.txt", "http://127.0.0.1:{port}/config", "hf://../../outside", "../outside@main",
    "--out={outside}/new.safetensors", "-rf", "$(touch {outside}/new)", "`touch {outside}/new`",
    "; touch {outside}/new",     "x" * 5000, "/" * 300 + "{outside}", "..", ".", "",
]  # fmt: skip
ALL = "LORA_ATELIER_FUZZ" in os.environ
AT_ONCE = 3
"""How many tricks an event gets in the normal suite."""
SYSTEM = ("root:x:0:", "PYTEST_CURRENT_TEST")
"""In the accounts of this machine, and in the environment of the app."""


def test_there_are_enough_of_them() -> None:
    assert len(set(TRICKS)) == len(TRICKS) >= 40


@pytest.fixture(scope="module", autouse=True)
def scene(attacked: Attacked) -> None:
    """A data set, one full of links, a run whose files are links, a pipe, and links in a circle."""
    make_scene(attacked)


def make_scene(attacked: Attacked) -> None:
    datasets = attacked.workspace / "datasets"
    for name in ("good", "linked"):
        (datasets / name).mkdir(parents=True, exist_ok=True)
        for picture in ("a.png", "b.png"):
            Image.new("RGB", (8, 8)).save(datasets / name / picture)
    link(datasets / "linked" / "way-out", attacked.outside)
    link(datasets / "linked" / "link.png", attacked.outside / "secret.png")
    link(datasets / "linked" / "b.txt", attacked.outside / "secret.txt")
    link(attacked.workspace / "models" / "link.safetensors", attacked.outside / "secret.safetensors")
    link(attacked.workspace / "pictures" / "link.png", attacked.outside / "secret.png")
    link(attacked.workspace / "circle", attacked.workspace / "circle")
    if not (attacked.workspace / "pipe.yaml").exists():
        os.mkfifo(attacked.workspace / "pipe.yaml")


def link(place: Path, target: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    if not place.is_symlink():
        place.symlink_to(target)


@pytest.fixture
def tricks(attacked: Attacked) -> list[str]:
    names = {"outside": attacked.outside, "OUTSIDE": str(attacked.outside).upper(), "workspace": attacked.workspace}
    return [trick.format(port=attacked.port, **names) for trick in TRICKS]


@pytest.fixture(autouse=True)
def nothing_is_touched(attacked: Attacked) -> Iterator[None]:
    before, touched, started = attacked.state_outside(), len(attacked.touched()), len(attacked.started())
    yield
    assert attacked.touched()[touched:] == []
    assert attacked.state_outside() == before
    assert sorted(path.name for path in attacked.outside.iterdir()) == sorted(Path(path).name for path in before)
    wanted = attacked.started()[started:]
    assert not [command for command in wanted if "-m trainer" not in command]
    assert not [command for command in wanted if str(attacked.outside) in command]


def tells(text: str) -> bool:
    """Whether an answer holds what must not be told."""
    return any(word in text for word in (SECRET, *SYSTEM))


# ---- addresses ----------------------------------------------------------------------------------------------------


def test_addresses(attacked: Attacked, tricks: list[str], linked_run: Run) -> None:
    """In place of each parameter, as they are and percent-encoded, those that go up also twice."""
    templates = json.loads((attacked.root / "told" / "routes.json").read_text(encoding="utf-8"))
    for template in sorted({path for path, methods in templates if "{" in path and "GET" in methods}):
        if "heartbeat" in template:  # goes on for ever, and reads nothing
            continue
        for trick in [*tricks, linked_run.id, "link.png"]:
            plain, encoded = quote(trick, safe="/:\\$();=-~`"), quote(trick, safe="")
            for told in (plain, encoded, quote(encoded)) if ".." in trick else (plain, encoded):
                status, text = get(attacked.port, filled(template, linked_run.id, told))
                assert not tells(text), (template, trick)
                assert status < 500 or not template.startswith("/atelier"), (template, trick)


@pytest.fixture
def linked_run(attacked: Attacked) -> Iterator[Run]:
    """A run whose pictures and LoRA are links that lead out."""
    run = Workspace(attacked.workspace).create_run(Config(name="linked"))
    for name in ("samples/link.png", "evaluation/link.png"):
        link(run.dir / name, attacked.outside / "secret.png")
    link(run.output_path, attacked.outside / "secret.safetensors")
    yield run
    shutil.rmtree(run.dir)


def filled(template: str, run_id: str, told: str) -> str:
    """An address with a trick for each parameter; the run is a real one where it has others."""
    first, brace, rest = template.partition("{run_id}")
    address = first + (run_id if "{" in rest else told) + rest if brace else template
    while "{" in address:
        before, _, after = address.partition("{")
        address = before + told + after.partition("}")[2]
    return address


def get(port: int, address: str) -> tuple[int, str]:
    """Asks for exactly this address; httpx would tidy it up."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    connection.request("GET", address, headers={"connection": "close"})
    answer = connection.getresponse()
    try:
        text = answer.read()
    except http.client.IncompleteRead as broken_off:  # Gradio's streams end so where there is no such event
        text = broken_off.partial
    connection.close()
    return answer.status, text.decode("latin1")


def test_a_runs_own_files_are_served(attacked: Attacked, client: httpx.Client) -> None:
    """Else the test above could not fail."""
    run = Workspace(attacked.workspace).create_run(Config(name="real"))
    run.log_path.write_text("the log", encoding="utf-8")
    assert client.get(f"/atelier/runs/{run.id}/log").text == "the log"
    shutil.rmtree(run.dir)


# ---- fields -------------------------------------------------------------------------------------------------------


def test_fields(attacked: Attacked, client: httpx.Client, tricks: list[str]) -> None:
    """Every event of every tab, with a trick in each of its fields."""
    config = client.get("/config").json()
    blocks = {block["id"]: block for block in config["components"]}
    events = [each for each in config["dependencies"] if each["backend_fn"]]
    settings = attacked.workspace / "settings.json"
    for place, event in enumerate(events):
        kinds = [blocks[number] for number in event["inputs"]]
        if not event["collects_event_data"] and not any(map(is_typed, kinds)):
            continue
        for count in range(len(tricks) if ALL else AT_ONCE):
            start = place * AT_ONCE + count
            text = [tricks[(start + number) % len(tricks)] for number in range(max(1, len(kinds)))]
            data = [value_for(block, trick) for block, trick in zip(kinds, text, strict=False)]
            answer = call(client, event, data, text[0])
            assert not tells(answer), (event["api_name"], text[0])
            settings.unlink(missing_ok=True)  # a folder may have been allowed there
    make_scene(attacked)


def is_typed(block: dict[str, Any]) -> bool:
    """Whether somebody can write into it, or its script sends text."""
    return block["type"] in ("textbox", "html", "file", "uploadbutton") or block["props"].get("allow_custom_value")


def value_for(block: dict[str, Any], trick: str) -> Any:
    """What a component holds, with the trick wherever somebody could write."""
    if block["type"] in ("file", "uploadbutton"):
        return [{"path": trick, "meta": {"_type": "gradio.FileData"}}]
    value = block["props"].get("value")
    return poisoned(value, trick) if is_typed(block) else value


def poisoned(value: Any, trick: str) -> Any:
    """A value with the trick in place of each text in it."""
    if isinstance(value, dict):
        return {name: poisoned(each, trick) for name, each in value.items()}
    if isinstance(value, list):
        return [poisoned(each, trick) for each in value] or [trick]
    return trick if isinstance(value, str) or value is None else value


def call(client: httpx.Client, event: dict[str, Any], data: list[Any], trick: str) -> str:
    body = {
        "data": data,
        "fn_index": event["id"],
        "session_hash": "tricks",
        "event_data": dict.fromkeys(names_sent(), trick),
        "trigger_id": event["targets"][0][0] if event["targets"] else None,
    }
    return client.post("/gradio_api/run/predict", content=json.dumps(body), headers=JSON).text


JSON = {"content-type": "application/json"}


def test_uploaded_files_cannot_be_named_freely(client: httpx.Client, tricks: list[str]) -> None:
    """Where an event takes a file, only one that was uploaded."""
    config = client.get("/config").json()
    takers = {block["id"] for block in config["components"] if block["type"] in ("file", "uploadbutton")}
    events = [each for each in config["dependencies"] if takers & set(each["inputs"])]
    assert len(events) >= 5
    for event in events:
        for trick in tricks[:: 1 if ALL else 4]:
            file = {"path": trick, "url": trick, "orig_name": "a.png", "meta": {"_type": "gradio.FileData"}}
            for given in (file, [file]):
                data = [given if number in takers else None for number in event["inputs"]]
                assert not tells(call(client, event, data, trick)), (event["api_name"], trick)


# ---- questions of scripts -----------------------------------------------------------------------------------------


def test_questions_of_scripts(client: httpx.Client, tricks: list[str]) -> None:
    """Functions that a component's script calls past the events."""
    asked = 0
    for block in client.get("/config").json()["components"]:
        for place, name in enumerate(block["props"].get("server_fns") or []):
            for trick in tricks if ALL else tricks[(block["id"] + place) % 5 :: 5]:
                for data in (trick, [trick], {**dict.fromkeys(names_sent(), trick), "path": trick, "kept": {}}):
                    whom = {"component_id": block["id"], "fn_name": name, "session_hash": "tricks"}
                    body = json.dumps({"data": data, **whom})
                    answer = client.post("/gradio_api/component_server", content=body, headers=JSON)
                    asked += 1
                    assert not tells(answer.text), (name, trick)
    assert asked > 100
