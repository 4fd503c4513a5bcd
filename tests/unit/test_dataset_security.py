"""Nothing outside the workspace is read, listed or written through any event of the Dataset tab, whatever is sent.

Every event of the tab is called through the page's own HTTP interface, as anybody who reaches its port could, and
every file that Python touches meanwhile is looked at. New panels are covered without a line here.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from dataset_samples import write_picture
from fastapi import FastAPI
from gradio.blocks import Block, BlockFunction
from starlette.testclient import TestClient

from tests.security.sent_names import names_sent
from tests.security.watch import Watch
from trainer.runs.store import Workspace
from ui.context import AppContext
from ui.dataset.view import as_ticked
from ui.shell import build_page

SECRET = "TOP-SECRET"
TOUCHED: list[str] = []
WATCH = Watch(None, TOUCHED.append)
sys.addaudithook(WATCH)


@dataclass
class Scene:
    """The page over a workspace with one good dataset, one full of links, and secrets beside the workspace."""

    root: Path
    blocks: gr.Blocks
    client: TestClient
    events: list[BlockFunction]
    asked: list[Block]

    @property
    def outside(self) -> Path:
        return self.root / "outside"

    @property
    def good(self) -> Path:
        return self.root / "workspace" / "datasets" / "good"

    @property
    def linked(self) -> Path:
        return self.good.with_name("linked")

    def state_outside(self) -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in sorted(self.outside.rglob("*")) if path.is_file()}

    def restore(self) -> None:
        """The datasets as they were: an event may have done what it is there for."""
        for folder in (self.good, self.linked):
            shutil.rmtree(folder, ignore_errors=True)
            for name in ("a.png", "b.png"):
                write_picture(folder / name, 8, 8, caption="a cat, sitting")
        (self.linked / ".atelier").symlink_to(self.outside)
        (self.linked / "way-out").symlink_to(self.outside)
        (self.linked / "link.png").symlink_to(self.outside / "secret.png")
        (self.linked / "b.txt").unlink()
        (self.linked / "b.txt").symlink_to(self.outside / "secret.txt")
        (self.linked / "metadata.jsonl").symlink_to(self.outside / "metadata.jsonl")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    root = tmp_path_factory.mktemp("security").resolve()
    write_picture(root / "outside" / "secret.png", 8, 8, caption=SECRET)
    (root / "outside" / "metadata.jsonl").write_text(f'{{"file_name": "a.png", "text": "{SECRET}"}}\n')
    context = AppContext(Workspace(root / "workspace"))
    blocks = build_page(context)
    events = events_of_tab(blocks)  # found before the first call: Gradio replaces components that are updated
    asked = [block for block in blocks.blocks.values() if getattr(block, "server_fns", None) and within_tab(block)]
    blocks.queue(api_open=True)
    app = gr.mount_gradio_app(FastAPI(routes=context.page.routes), blocks, path="/")
    blocks.has_launched = True  # as ``launch`` leaves it: else Gradio takes files that were never uploaded
    with TestClient(app, raise_server_exceptions=False) as client:
        scene = Scene(root, blocks, client, events, asked)
        scene.restore()
        yield scene
    WATCH.outside = None


def within_tab(block: Block) -> bool:
    """Whether a component belongs to the Dataset tab."""
    parent: Any = block
    while parent is not None:
        if getattr(parent, "elem_id", None) == "tab-dataset":
            return True
        parent = parent.parent
    return False


def events_of_tab(blocks: gr.Blocks) -> list[BlockFunction]:
    """Functions that a component of the tab starts, gives values to or is changed by; not the page's one timer."""
    events = []
    for function in blocks.fns.values():
        starters = [blocks.blocks[number] for number, _ in function.targets if number in blocks.blocks]
        if function.fn is not None and any(map(within_tab, starters)):
            events.append(function)
    return events


def view(folder: str, name: str) -> dict[str, Any]:
    """What the grid sends with every event."""
    return {
        "folder": folder,
        "page": 0,
        "query": {"text": "", "folder": ""},
        "ticked": as_ticked([name, "a.png"]),
        "asked": 1,
    }


def value_for(block: Block, folder: str, text: str) -> Any:
    """A value for one component: ``text`` wherever somebody could type it."""
    kind = block.get_block_name()
    if kind == "html":
        return view(folder, text)
    if kind == "textbox" or (kind == "dropdown" and getattr(block, "allow_custom_value", False)):
        return text
    if kind == "file":
        return [{"path": text, "meta": {"_type": "gradio.FileData"}}]
    return getattr(block, "value", None)


def call(scene: Scene, function: BlockFunction, data: list[Any], text: str) -> str:
    """Call an event as the browser would; what the answer says."""
    body = {
        "data": data,
        "fn_index": function._id,
        "session_hash": "security",
        "event_data": dict.fromkeys(names_sent(), text),
        "trigger_id": function.targets[0][0],
    }
    answer = scene.client.post("/gradio_api/run/predict", json=body).text
    shutil.rmtree(scene.root / "workspace" / "jobs", ignore_errors=True)  # none could start, but they look as if
    return answer


def watch(scene: Scene) -> None:
    TOUCHED.clear()
    WATCH.outside = scene.outside


def check_all(scene: Scene, folder: str, text: str, *, one_by_one: bool = False) -> list[str]:
    """Call every event with ``text`` in all places, or in one at a time; what was touched that must not be."""
    before, wrong = scene.state_outside(), []
    for function in scene.events:
        hostile = [value_for(block, folder, text) for block in function.inputs]
        calls = [hostile]
        if one_by_one:
            plain = [value_for(block, str(scene.good), "a.png") for block in function.inputs]
            calls = [[*plain[:place], hostile[place], *plain[place + 1 :]] for place in range(min(len(plain), 13))]
            calls = [data for data in calls if data != plain]
        for data in calls:
            watch(scene)
            answer = call(scene, function, data, text)
            WATCH.outside = None
            if TOUCHED or SECRET in answer:
                wrong.append(f"{function.fn.__qualname__}: {TOUCHED[:3] or 'the secret was told'}")
        scene.restore()
    if scene.state_outside() != before:
        wrong.append("files outside were changed")
    return wrong


HOSTILE = ["{outside}", "../../../outside/secret.png", "{good}/../linked/way-out"]


@pytest.mark.parametrize("text", [*HOSTILE, "a\0b.png"])
def test_hostile_values_in_every_event(text: str, scene: Scene) -> None:
    text = text.format(outside=scene.outside, good=scene.good)
    assert check_all(scene, text, text) == []


def test_one_hostile_value_among_good_ones(scene: Scene) -> None:
    assert check_all(scene, str(scene.outside), str(scene.outside), one_by_one=True) == []


@pytest.mark.parametrize("name", ["a.png", "link.png"])
def test_a_dataset_full_of_links(name: str, scene: Scene) -> None:
    assert check_all(scene, str(scene.linked), name) == []


def test_the_events_really_run(scene: Scene) -> None:
    """Else the tests above could not fail."""
    events = {function.fn.__qualname__.rpartition(".")[2]: function for function in scene.events}
    assert {"turn", "save", "open_folder", "undo", "add_files"} <= events.keys()
    opened = events["open_folder"]
    assert "cards" in call(scene, opened, [str(scene.good)], "x")
    turned = scene.client.post(
        "/gradio_api/run/predict",
        json={
            "data": [view(str(scene.good), "a.png")],
            "fn_index": events["turn"]._id,
            "session_hash": "security",
            "event_data": {"page": 0, "query": {}, "asked": 1},
        },
    ).json()
    assert [card["name"] for card in turned["data"][0]["cards"]] == ["a.png", "b.png"]
    watch(scene)
    (scene.outside / "secret.txt").read_text(encoding="utf-8")
    WATCH.outside = None
    assert len(TOUCHED) == 1


def test_questions_that_scripts_ask(scene: Scene) -> None:
    """Functions that a component's script calls directly, past the events."""
    asked = 0
    for block in scene.asked:
        for name in block.server_fns:
            for text in [*HOSTILE, "link.png", "b.png"]:
                text = text.format(outside=scene.outside, good=scene.good)
                for folder in (text, str(scene.good), str(scene.linked)):
                    data = {**dict.fromkeys(names_sent(), text), "folder": folder}
                    whom = {"component_id": block._id, "fn_name": name.__name__, "session_hash": "security"}
                    watch(scene)
                    answer = scene.client.post("/gradio_api/component_server", json={"data": data, **whom})
                    WATCH.outside = None
                    asked += 1
                    assert (TOUCHED, SECRET in answer.text) == ([], False), f"{name.__name__} {folder} {text}"
    assert asked


def test_routes_of_pictures(scene: Scene) -> None:
    """Forged tokens and numbers, and a file that became a link after it was listed."""
    opened = next(each for each in scene.events if each.fn.__qualname__.endswith("open_folder"))
    told = call(scene, opened, [str(scene.good)], "x")
    thumb = told.partition('"thumb":"')[2].partition('"')[0]
    assert scene.client.get(thumb).status_code == 200
    token = thumb.split("/")[3]
    (scene.good / "a.png").unlink()
    (scene.good / "a.png").symlink_to(scene.outside / "secret.png")
    watch(scene)
    for path in (f"{token}/0", f"{token}/99", f"{token}/-1", "forged/0", f"{token}/..%2f..%2foutside", "../0"):
        for kind in ("thumb", "picture"):
            assert scene.client.get(f"/atelier/{kind}/{path}").status_code in (400, 404), path
    WATCH.outside = None
    scene.restore()
    assert TOUCHED == []
