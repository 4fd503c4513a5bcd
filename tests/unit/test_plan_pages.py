"""Pictures of a plan, page by page: asked of real jobs, by what the browser may say."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from tests.unit.dataset_samples import config_for, cut_off, write_picture
from trainer.files import write_json
from trainer.jobs import Job
from trainer.planner import plan
from trainer.runs.store import Workspace
from ui.context import AppContext
from ui.plan.pictures import PER_PAGE, PlanPictures


@pytest.fixture
def context(tmp_path: Path) -> AppContext:
    return AppContext(Workspace(tmp_path / "workspace"))


@pytest.fixture
def shown(context: AppContext) -> PlanPictures:
    """Pages of a finished check called ``check``: 30 squares, a wide picture and a broken one."""
    folder = context.workspace.datasets_dir / "set"
    for number in range(30):
        write_picture(folder / f"{number:02}.png", 64, 64, number, "a dog")
    write_picture(folder / "wide <i>.png", 256, 64)
    cut_off(write_picture(folder / "broken.png", 64, 64))
    dataset = {"resolution": 64, "buckets": {"enabled": False}}
    found = plan(config_for(folder, dataset=dataset, validation={"split": 0.1}), pictures=True)
    job = Job(context.workspace.jobs_dir / "check")
    job.dir.mkdir(parents=True)
    write_json(job.dir / "job.json", {"title": "Check", "command": ["plan"], "started": 0})
    job.finish("finished", result=dataclasses.asdict(found))
    return PlanPictures(context)


def asked(pages: PlanPictures, shows: str, start: int = 0) -> dict[str, Any]:
    return pages.answer({"job": "check", "shows": shows, "start": start})


def test_a_bucket_page_by_page(shown: PlanPictures, context: AppContext) -> None:
    first, second = asked(shown, "bucket:64x64"), asked(shown, "bucket:64x64", PER_PAGE)
    assert first["total"] == 28 and len(first["items"]) == PER_PAGE and len(second["items"]) == 28 - PER_PAGE
    names = [each["name"] for each in first["items"] + second["items"]]
    assert len(set(names)) == 28
    held_back = asked(shown, "held_back")
    assert held_back["total"] == 3 and not {each["name"] for each in held_back["items"]} & set(names)
    context.thumbnails.add_routes(context.page)
    client = TestClient(Starlette(routes=context.page.routes))
    for item in (first["items"][0], second["items"][-1]):
        answer = client.get(item["thumb"])
        assert answer.status_code == 200 and answer.headers["content-type"] == "image/webp"


def test_crops_and_notes(shown: PlanPictures) -> None:
    wide = next(each for each in asked(shown, "note:cropped")["items"])
    assert wide["name"] == "wide <i>.png" and wide["box"] == [0.375, 0, 0.625, 1]
    assert wide["note"].startswith("75% cut off")
    (broken,) = asked(shown, "note:skipped")["items"]
    assert broken["name"] == "broken.png" and "cut off before its end" in broken["note"] and "box" not in broken


@pytest.mark.parametrize(
    "request_",
    [
        None, [], {}, {"job": "check"}, {"job": "../check", "shows": "held_back", "start": 0},
        {"job": "none", "shows": "held_back", "start": 0}, {"job": "check", "shows": "held_back", "start": "x"},
    ],
)  # fmt: skip
def test_nothing_else_is_answered(shown: PlanPictures, request_: Any) -> None:
    assert set(shown.answer(request_)) == {"problem"}


def test_a_group_that_is_not_there_is_empty(shown: PlanPictures) -> None:
    assert asked(shown, "bucket:1x1")["items"] == [] and asked(shown, "held_back", 1000)["items"] == []
    assert len(asked(shown, "held_back", -5)["items"]) == 3
