"""A disk that refuses while captions are written: no caption is lost, undo stays true, and the job can be gone on with.

Of a job's changes of files a few are refused, and all that follow; with ``LORA_ATELIER_FAULTS=all`` each in turn.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.file_operations import CAN_WATCH, Answer, Fail, Operation, Watched
from tests.recipe.tiny_runs import make_pictures
from trainer.captioners.drafts import DraftFile
from trainer.curation.edit_log import EditLog
from trainer.runs.store import Workspace

pytestmark = pytest.mark.skipif(not CAN_WATCH, reason="needs Linux' answers to system calls")

NEW = b"one text for all"
MAKES_FILES_LARGER = ("write", "pwrite64", "openat", "mkdir", "mkdirat")
REFUSALS = {"full": errno.ENOSPC, "read-only": errno.EROFS, "failing": errno.EIO}
TRIED = 3


class Folder:
    """Pictures with captions, one of them in another encoding, and a workspace beside them."""

    def __init__(self, place: Path) -> None:
        self.pictures = make_pictures(place / "pictures", 3)
        (self.pictures / "1.txt").write_bytes("grün, größer\r\nzwei".encode("utf-16"))
        (self.pictures / "2.txt").unlink()
        self.workspace = Workspace(place / "workspace")
        self.workspace.dir.mkdir()
        self.before = self.captions()

    def captions(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in sorted(self.pictures.glob("*.txt"))}

    def caption(
        self, answer: Callable[[Operation], Answer], *more: str
    ) -> tuple[int, dict[str, object], list[Operation]]:
        """The job on a disk that answers so: exit code, answer, and what was asked."""
        options = ["--captioner", "fixed", "--prompt", NEW.decode(), "--overwrite", *more]
        places = [str(self.pictures), *options, "--workspace", str(self.workspace.dir)]
        watched = Watched([self.pictures, self.workspace.dir], answer, "caption", *places)
        code = watched.wait()
        out, log = watched.command.communicate()
        assert "Traceback" not in log
        return code, json.loads(out), watched.operations

    def undo_all(self) -> None:
        log = EditLog.of(self.workspace, self.pictures)
        for each in log.go_to(0):
            assert not each.failed and not each.conflicts


def let(operation: Operation) -> Answer:
    return None


def refusing(first: int, number: int) -> Callable[[Operation], Answer]:
    def answer(operation: Operation) -> Answer:
        concerns = number != errno.ENOSPC or operation.call in MAKES_FILES_LARGER
        return Fail(number) if operation.number >= first and concerns and ".lock" not in operation.path.name else None

    return answer


@pytest.fixture(scope="module")
def changes(tmp_path_factory: pytest.TempPathFactory) -> int:
    """How many changes of files the job makes where nothing is refused."""
    folder = Folder(tmp_path_factory.mktemp("whole"))
    code, _, operations = folder.caption(let)
    assert code == 0 and set(folder.captions().values()) == {NEW}
    folder.undo_all()
    assert folder.captions() == folder.before
    return len(operations)


@pytest.mark.parametrize("refusal", REFUSALS)
def test_no_caption_is_lost_and_the_job_goes_on(refusal: str, changes: int, tmp_path: Path) -> None:
    every = 1 if os.environ.get("LORA_ATELIER_FAULTS") == "all" else changes // TRIED
    for first in sorted({*range(1, changes + 1, every), changes - 3}):
        folder = Folder(tmp_path / str(first))
        code, answer, operations = folder.caption(refusing(first, REFUSALS[refusal]))
        where = f"change {first}: {operations[first - 1].call} of {operations[first - 1].path}"
        if code == 0:  # what is left to do needs no room
            assert refusal == "full" and set(folder.captions().values()) == {NEW} and len(folder.captions()) == 3, where
            continue
        [problem] = answer["error"]  # type: ignore[misc]
        assert os.strerror(REFUSALS[refusal]) in problem["message"], where
        assert problem["code"] in ("caption.disk", "edit.unnoted"), where
        held = folder.captions()
        assert all(held[name] in (old, NEW) for name, old in folder.before.items()), where
        assert held.keys() <= {"0.txt", "1.txt", "2.txt"}, where
        copied = shutil.copytree(folder.workspace.dir, tmp_path / f"{first}-copy")
        folder.undo_all()
        assert folder.captions() == folder.before, where
        shutil.rmtree(folder.workspace.dir)
        copied.rename(folder.workspace.dir)
        for name, data in held.items():
            (folder.pictures / name).write_bytes(data)
        assert folder.caption(let)[0] == 0, where
        assert set(folder.captions().values()) == {NEW} and len(folder.captions()) == 3, where
        folder.undo_all()
        assert folder.captions() == folder.before, where


def test_drafts_that_find_no_room_are_told_and_made_later(changes: int, tmp_path: Path) -> None:
    folder = Folder(tmp_path)

    def answer(operation: Operation) -> Answer:
        return Fail(errno.ENOSPC) if operation.call == "write" and operation.path.name == "review.jsonl" else None

    code, told, _ = folder.caption(answer, "--review")
    [problem] = told["error"]  # type: ignore[misc]
    assert (code, problem["code"]) == (1, "caption.disk") and "0 of 3 are there" in problem["message"]
    assert folder.captions() == folder.before
    assert folder.caption(let, "--review")[0] == 0
    assert len(DraftFile.review(folder.workspace, folder.pictures).read()) == 3
