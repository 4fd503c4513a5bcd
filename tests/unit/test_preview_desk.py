"""What the live preview of the Merge tab asks the studio for, and what it tells of the answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.testclient import TestClient

from tests.unit.lora_samples import lora as sample_lora
from trainer.errors import UserError
from trainer.files import write_json
from trainer.lora.file import write_lora
from trainer.runs.store import Workspace
from trainer.studio import Answer, Studio
from ui.context import AppContext
from ui.lora_choices import RowUse
from ui.lora_tools.preview import settings_of
from ui.lora_tools.preview_desk import PreviewDesk

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
    answered(studio, request, state="running", what="drawing", step=6, steps=10, pictures=[str(picture)], live=live)
    running = desk.standing(request)
    assert (running["words"], running["share"]) == ("Drawing", 0.6)
    assert running["live"].startswith(f"/atelier/live/{request}.jpg?v=")
    assert running["pictures"][0].startswith(f"/atelier/previews/{picture.name}?v=")
    answered(studio, request, state="failed", error=[{"message": "<b>It broke.", "hint": "Mend it."}])
    failed = desk.standing(request)
    assert (failed["final"], failed["problems"]) == (True, ["<b>It broke. Mend it."])
    assert client.get("/atelier/merge/previews/unknown").status_code == 404
    assert client.get("/atelier/merge/previews/..%2f..%2fstudio").status_code == 404
