"""What the live preview of the Merge tab asks the studio for, and what it tells of the answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from threading import Timer
from typing import Any

import gradio as gr
import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.testclient import TestClient

from tests.unit.lora_samples import lora as sample_lora
from trainer.errors import UserError
from trainer.files import write_json
from trainer.lora.file import write_lora
from trainer.pictures import LoraUse
from trainer.runs.store import Workspace
from trainer.studio import Answer, Studio
from ui.context import AppContext
from ui.lora_choices import RowUse
from ui.lora_rows import LoraRows
from ui.lora_tools.merge_memory import MergeMemory
from ui.lora_tools.merge_orders import Merge
from ui.lora_tools.merging import merge_form
from ui.lora_tools.preview import Preview, look_fields, settings_of
from ui.lora_tools.preview_desk import LONGEST_WAIT_S, PreviewDesk
from ui.lora_tools.saved_preview import SavedPreview

LOOK = settings_of("demo", 7, "euler", 5, 3.5, None, "rain")


class QuietStudio(Studio):
    """Starts no process."""

    def ensure(self) -> None:
        return


@pytest.fixture
def context(tmp_path: Path) -> AppContext:
    workspace = Workspace(tmp_path / "workspace")
    workspace.models_dir.mkdir(parents=True)
    for name in ("ink", "line"):
        write_lora(workspace.models_dir / f"{name}.safetensors", sample_lora(2), precision="float")
    return AppContext(workspace)


@pytest.fixture
def studio(context: AppContext) -> Studio:
    return QuietStudio(context.workspace, 1)


@pytest.fixture
def desk(context: AppContext, studio: Studio) -> PreviewDesk:
    return PreviewDesk(context, studio)


def use(context: AppContext, name: str, weight: float = 1.0, parts: str = "") -> RowUse:
    return RowUse(str(context.workspace.models_dir / f"{name}.safetensors"), weight, parts)


def answered(studio: Studio, request: str, **fields: Any) -> None:
    write_json(studio.answers_dir / f"{request}.json", Answer(id=request, **fields).model_dump())


def test_the_studio_is_asked_for_what_the_fields_say(context: AppContext, studio: Studio, desk: PreviewDesk) -> None:
    uses = [use(context, "ink", 0.5), use(context, "line", -1.0, "text_encoder:0")]
    answer = desk.ask(uses, LOOK, ["a star", "a ring"])
    assert answer["sum"] == "ink × 0.5 + line × -1 (text_encoder:0)"
    (asked,) = studio.pending()
    assert (asked.id, asked.kind, asked.compare) == (answer["request"], "preview", True)
    given = asked.settings
    assert (given.prompt, given.negative, given.seed, given.steps, given.guidance) == ("a star", "rain", 7, 5, 3.5)
    assert (given.sampler, given.width, given.model) == ("euler", None, "demo")
    assert [(Path(each.path).stem, each.weight, each.parts) for each in given.loras] == [
        ("ink", 0.5, ""),
        ("line", -1.0, "text_encoder:0"),
    ]
    assert asked.prompts == ["a ring"]


def test_nothing_is_asked_without_a_lora_or_with_a_wrong_one(
    context: AppContext, studio: Studio, desk: PreviewDesk
) -> None:
    assert desk.ask([], LOOK, ["a star"]) == {}
    with pytest.raises(UserError) as error:
        desk.ask([use(context, "lost"), use(context, "ink", parts="nowhere:1")], LOOK, ["a star"])
    assert [problem.field for problem in error.value.problems] == ["loras.0.path", "loras.1.parts"]
    for wrong in ({"model": ""}, {"model": "/etc"}, {"steps": 0}, {"sampler": "best"}, {"width": 9}):
        with pytest.raises(UserError):
            desk.ask([use(context, "ink")], LOOK | wrong, ["a star"])
    assert studio.pending() == []


def test_how_a_request_stands(context: AppContext, studio: Studio, desk: PreviewDesk) -> None:
    client = TestClient(Starlette(routes=context.page.routes))
    request = desk.ask([use(context, "ink")], LOOK, ["a star"])["request"]
    waiting = client.get(f"/atelier/merge/previews/{request}").json()
    assert (waiting["state"], waiting["final"], waiting["pictures"]) == ("waiting", False, [])
    picture = studio.previews_dir / f"{request}-plain.png"
    picture.parent.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(picture)
    live = str(studio.live_path(request))
    answered(
        studio,
        request,
        state="running",
        what="drawing",
        step=6,
        steps=10,
        pictures=[str(picture)],
        live=live,
        notes=["In tiles."],
    )
    running = desk.standing(request)
    assert (running["words"], running["share"], running["notes"]) == ("Drawing", 0.6, ["In tiles."])
    assert running["live"].startswith(f"/atelier/live/{request}.jpg?v=")
    assert running["pictures"][0].startswith(f"/atelier/previews/{picture.name}?v=")
    begun = time.monotonic()
    address, seen = f"/atelier/merge/previews/{request}", {"seen": running["version"]}
    assert client.get(address, params=seen).json() == running
    assert time.monotonic() - begun >= LONGEST_WAIT_S  # held back: nothing was new
    Timer(0.2, lambda: answered(studio, request, state="done")).start()
    assert client.get(address, params=seen).json()["state"] == "done"
    answered(studio, request, state="failed", error=[{"message": "<b>It broke.", "hint": "Mend it."}])
    failed = desk.standing(request)
    assert (failed["final"], failed["problems"]) == (True, ["<b>It broke. Mend it."])
    assert client.get("/atelier/merge/previews/unknown").status_code == 404
    assert client.get("/atelier/merge/previews/..%2f..%2fstudio").status_code == 404


@pytest.fixture
def stage(context: AppContext, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """``stage(field=value)`` asks as the page does, with the values of the tab's components but for those given."""
    monkeypatch.setattr(Studio, "ensure", lambda studio: None)
    with gr.Blocks():
        rows = LoraRows(context, "merge", "Ratio")
        look, form = look_fields(context), merge_form()
        preview = Preview(context, rows, look, form, MergeMemory(context.workspace))
        for part in dict.fromkeys(part for poller in context.page.pollers for part in poller.inputs):
            part.render()

    def ask(**changed: Any) -> dict[str, Any]:
        named = {component.elem_id: component.value for component in preview.ask["inputs"][1:]}
        named |= {f"merge-{name.replace('_', '-')}": value for name, value in changed.items()}
        return preview.stage.ask({"values": list(named.values()), "prompts": ["a star"]})

    return ask


def test_the_page_asks_for_what_its_components_say(
    context: AppContext, studio: Studio, stage: Callable[..., dict[str, Any]]
) -> None:
    ink, line = (use(context, name).file for name in ("ink", "line"))
    assert stage() == {}
    parts = {"text": "unet.mid_block:2", "file": ink}
    told = stage(lora_1=ink, weight_1=-0.5, parts_1=parts, lora_4=line, seed=9, negative="rain")
    assert told["sum"] == "ink × -0.5 (unet.mid_block:2) + line × 1"
    asked = studio.pending()[-1].settings
    assert (asked.seed, asked.negative, asked.sampler, asked.steps, asked.model) == (9, "rain", "dpmpp_2m", 12, "demo")
    assert stage(lora_0=ink, as_saved=True)["sum"] == "ink × 1"  # the exact sum is what is saved
    assert stage(lora_0=ink, as_saved=True, mode="svd", target="file")["sum"] == "ink × 1"
    assert stage(lora_0=ink, as_saved=True, mode="svd") == {"preparing": True}
    assert "Rank is empty" in stage(lora_0=ink, as_saved=True, mode="svd", rank=None)["problems"][0]
    assert "not open to the page" in stage(lora_0="/etc/passwd")["problems"][0]


def test_what_would_be_saved_is_drawn_under_its_sources_names(
    context: AppContext, studio: Studio, desk: PreviewDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    ink = LoraUse(path=use(context, "ink").file, weight=0.5)
    merge = Merge(loras=[ink], target="lora", model="demo", mode="svd", rank=1, name="m")
    merged = context.workspace.cache_dir / "merge-previews" / "x.safetensors"
    write_lora(merged, sample_lora(1), precision="float")
    monkeypatch.setattr(SavedPreview, "lora", lambda self, merge: merged)
    assert desk.ask_as_saved(merge, LOOK, ["a star", "a ring"])["sum"] == "ink × 0.5, as saved (svd)"
    (asked,) = studio.pending()
    assert (asked.settings.loras, asked.prompts) == ([LoraUse(path=str(merged))], ["a ring"])
