"""The doctor's findings as the page shows and mends them, without a browser."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from dataset_samples import Recorded
from doctor_samples import sharp, write

from trainer.curation.doctor import examine
from trainer.errors import UserError
from trainer.jobs import jobs
from trainer.runs.store import Workspace
from ui.context import AppContext
from ui.dataset import check
from ui.dataset.desk import DatasetDesk
from ui.dataset.diagnosis import Diagnosis, panel

RESOLUTION = 64


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = (tmp_path / "workspace" / "datasets" / "mine").resolve()
    for number in range(3):
        write(folder, f"{number}.png", sharp(number), f"blue eyes, number {number}")
    write(folder, "odd.png", sharp(3), "Blue_Eyes, odd")
    write(folder, "twin.png", sharp(0), "the twin with blue eyes")
    return folder


@pytest.fixture
def desk(tmp_path: Path) -> DatasetDesk:
    desk = DatasetDesk(AppContext(Workspace((tmp_path / "workspace").resolve())))
    desk.tells("dataset", check.report)
    desk.tells("fix", check.fix_report)
    return desk


def checked(desk: DatasetDesk, folder: Path) -> Diagnosis:
    examine(folder, RESOLUTION, Recorded(), records=desk.diagnoses.records(folder))
    return desk.diagnoses.read(folder)


def key_of(diagnosis: Diagnosis, code: str) -> str:
    return next(finding.key for finding in diagnosis.findings if finding.code == code)


def codes(desk: DatasetDesk, folder: Path) -> set[str]:
    return {finding.code for finding in desk.diagnoses.read(folder).findings}


def asked(diagnosis: Diagnosis, code: str, fix: str, **more: str) -> dict[str, Any]:
    return {"key": key_of(diagnosis, code), "fix": fix, "keep": "", "background": "", **more}


def wait_for_job(desk: DatasetDesk) -> dict[str, Any]:
    deadline = time.monotonic() + 120
    while (info := jobs(desk.workspace)[0].read()).state == "running":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert info.result is not None, info.error
    return info.result


def test_what_the_panel_shows(desk: DatasetDesk, folder: Path) -> None:
    assert panel(desk.diagnoses.read(folder), list) == {}
    shown = panel(checked(desk, folder), lambda names: [f"/{name}" for name in names])
    json.dumps(shown)
    assert (shown["stale"], shown["left"], shown["safe"]["count"]) == (False, 0, 1)
    twins = next(each for each in shown["findings"] if each["code"] == "picture.duplicate")
    assert (twins["keep"], twins["choices"], twins["count"]) == ("0.png", ["0.png", "twin.png"], 2)
    assert twins["pictures"][0] == {"name": "0.png", "address": "/0.png"}
    assert twins["fixes"][0]["promise"].startswith("1 file will go to the set-aside folder")


def test_captions_are_mended_at_once_and_undo_brings_the_finding_back(desk: DatasetDesk, folder: Path) -> None:
    page, found = desk.open(str(folder)).view, checked(desk, folder)
    before = codes(desk, folder)
    shown = check.order_fix(desk, page, asked(found, "tag.spelling", "merge_tag"), RESOLUTION, 1)
    assert shown is not None
    assert (folder / "odd.txt").read_text(encoding="utf-8") == "blue eyes, odd"
    assert codes(desk, folder) == before - {"tag.spelling"}
    assert not desk.diagnoses.read(folder).stale
    desk.undo(page)
    assert codes(desk, folder) == before
    assert not desk.diagnoses.read(folder).stale


def test_pictures_are_mended_by_a_job_that_keeps_the_one_chosen(desk: DatasetDesk, folder: Path) -> None:
    page, found = desk.open(str(folder)).view, checked(desk, folder)
    before = codes(desk, folder)
    order = asked(found, "picture.duplicate", "set_aside", keep="twin.png")
    assert check.order_fix(desk, page, order, RESOLUTION, 1) is None
    result = wait_for_job(desk)
    assert result["fixed"] == ["0.png"]
    assert check.fix_report(result).startswith("1 file fixed.")
    assert not (folder / "0.png").exists()
    assert (folder / "twin.png").is_file()
    assert codes(desk, folder) == before - {"picture.duplicate"}
    desk.undo(page)
    assert codes(desk, folder) == before


def test_findings_left_as_they_are(desk: DatasetDesk, folder: Path) -> None:
    found = checked(desk, folder)
    _, twins = found.named(key_of(found, "picture.duplicate"))
    records = desk.diagnoses.records(folder)
    records.leave_as_is(twins.code, ["twin.png"])
    assert "picture.duplicate" not in codes(desk, folder)
    assert desk.diagnoses.read(folder).left == 2
    with pytest.raises(UserError, match="have changed"):
        desk.diagnoses.read(folder).named(twins.key)
    records.tell_again()
    assert "picture.duplicate" in codes(desk, folder)


def test_files_changed_since(desk: DatasetDesk, folder: Path) -> None:
    assert not checked(desk, folder).stale
    write(folder, "new.png", sharp(9))
    assert DatasetDesk(desk.context).diagnoses.read(folder).stale
    desk.open(str(folder))
    assert desk.diagnoses.read(folder).stale
    assert not checked(desk, folder).stale


def test_wrong_orders(desk: DatasetDesk, folder: Path) -> None:
    page, found = desk.open(str(folder)).view, checked(desk, folder)
    with pytest.raises(UserError, match="no such fix"):
        check.order_fix(desk, page, asked(found, "picture.duplicate", "shrink"), RESOLUTION, 1)
    with pytest.raises(UserError, match="Batch size"):
        check.order_safe_fixes(desk, page, RESOLUTION, 0)
    assert jobs(desk.workspace) == []
