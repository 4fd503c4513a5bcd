"""Splitting validation pictures off: nothing leaks, nothing is lost, and all of it can be undone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.unit.dataset_samples import Recorded, config_for, write_picture
from trainer.__main__ import main
from trainer.curation.edit_log import EditLog
from trainer.curation.picture_sets import path_within, read_set
from trainer.curation.splitting import Split, bring_back, choose, split_off, validation_folder
from trainer.data.epoch import lay_out
from trainer.errors import UserError
from trainer.runs.store import Workspace


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """20 + 10 pictures in two subfolders; some look alike, some share a caption, some have theirs from a table."""
    root = tmp_path / "mine"
    for number in range(20):
        write_picture(root / "5_cat" / f"{number:02}.png", 40, 40, number, f"cat {number}")
    for number in range(10):
        write_picture(root / "dogs" / f"{number:02}.png", 40, 40, 100 + number)
    rows = [{"file_name": f"dogs/{number:02}.png", "text": f"dog {number}\nline two"} for number in range(10)]
    (root / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return root


def log_of(folder: Path) -> EditLog:
    return EditLog.of(Workspace(folder.parent / "workspace"), folder)


def split(folder: Path, share: float | None = None, count: int | None = None, seed: int = 0) -> Split:
    return split_off(folder, share=share, count=count, seed=seed, log=log_of(folder), events=Recorded())


def state(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def captions(folder: Path) -> dict[str, str]:
    return {path_within(picture).as_posix(): picture.caption for picture in read_set(folder).pictures}


def test_pictures_move_with_their_captions_and_come_back(folder: Path) -> None:
    before, told = state(folder), captions(folder)
    done = split(folder, share=0.2)
    assert (done.moved, done.left) == (6, 24)
    held = captions(done.validation)
    assert sorted(name.partition("/")[0] for name in held) == ["5_cat"] * 4 + ["dogs"] * 2
    assert held.items() <= told.items(), "every caption, of files and of the table, came along"
    assert captions(folder) == {name: text for name, text in told.items() if name not in held}
    log = log_of(folder)
    assert log.titles()[0] == "split off 6 validation pictures"
    assert log.undo().conflicts == ()
    assert state(folder) == before
    log.redo()
    assert captions(done.validation) == held
    assert bring_back(folder, log).conflicts == ()
    assert captions(folder) == told
    assert validation_folder(folder) is None


def test_the_trainer_reads_both_sides(folder: Path) -> None:
    done = split(folder, count=3)
    layout = lay_out(config_for(folder, validation={"path": str(done.validation)}))
    assert len({entry.picture.path for entry in layout.validation}) == 3
    assert len({entry.picture.path for entry in layout.training}) == 27
    assert not {e.picture.path for e in layout.validation} & {e.picture.path for e in layout.training}


def test_the_seed_decides_and_other_pictures_do_not(folder: Path) -> None:
    def held(seed: int) -> set[str]:
        copy = folder.parent / "copy" / folder.name
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(folder, copy)
        return set(captions(split(copy, count=5, seed=seed).validation))

    first = held(1)
    assert held(1) == first
    assert held(2) != first
    write_picture(folder / "5_cat" / "new.png", 40, 40, 300, "a new one")
    assert len(held(1) & first) >= 4


def test_copies_and_equal_captions_stay_on_one_side(folder: Path) -> None:
    """Each picture has a recompressed copy, or one with the same caption: that goes along."""
    rng = np.random.default_rng(0)
    for number in range(10):
        blocks = Image.fromarray(rng.integers(0, 256, (5, 5, 3), np.uint8)).resize((40, 40), Image.Resampling.NEAREST)
        blocks.save(folder / "dogs" / f"{number:02}.png")
        copy = blocks.resize((80, 80), Image.Resampling.BICUBIC)
        copy.save(folder / "dogs" / f"{number:02}-copy.jpg", quality=90)
    for number in range(0, 20, 2):
        (folder / "5_cat" / f"{number:02}.txt").write_text(f"pair {number}", encoding="utf-8")
        (folder / "5_cat" / f"{number + 1:02}.txt").write_text(f"pair {number}\n", encoding="utf-8")
    for seed in range(4):
        done = split(folder, share=0.25, seed=seed)
        assert done.moved == 10
        assert done.together == 20
        cats = {name for name in captions(done.validation) if name.startswith("5_cat")}
        assert {int(Path(name).stem) ^ 1 for name in cats} == {int(Path(name).stem) for name in cats}
        dogs = [name for name in captions(done.validation) if name.startswith("dogs")]
        assert len(dogs) == 2 * len({Path(name).stem.removesuffix("-copy") for name in dogs})
        assert cats
        assert dogs
        bring_back(folder, log_of(folder))


def test_a_caption_that_all_have_binds_nothing(tmp_path: Path) -> None:
    for number in range(10):
        write_picture(tmp_path / "mine" / f"{number}.png", 40, 40, number, "ohwx")
    assert split(tmp_path / "mine", share=0.2).moved == 2


def test_pictures_with_one_caption_file_stay_together(tmp_path: Path) -> None:
    for number in range(6):
        write_picture(
            tmp_path / "mine" / f"{number // 2}.{('png', 'bmp')[number % 2]}", 40, 40, number, str(number // 2)
        )
    done = split(tmp_path / "mine", count=2)
    assert (done.moved, done.outcome.conflicts) == (2, ())
    [stem] = {Path(name).stem for name in captions(done.validation)}
    assert set(captions(done.validation).values()) == {stem}


def test_no_subfolder_gives_all(folder: Path) -> None:
    groups = [[picture] for picture in read_set(folder).pictures]
    for wanted in (1, 7, 15, 28):
        chosen = [path_within(group[0]).parts[0] for group in choose(groups, wanted, 0)]
        assert len(chosen) == wanted
        assert chosen.count("dogs") == pytest.approx(wanted / 3, abs=1)


def problem(folder: Path, share: float | None = None, count: int | None = None) -> str:
    before = state(folder)
    with pytest.raises(UserError) as caught:
        split(folder, share, count)
    assert state(folder) == before
    return caught.value.problems[0].code


def test_what_cannot_be_is_told_and_nothing_is_moved(folder: Path) -> None:
    for share in (0, -1, 0.6, float("nan"), None):
        assert problem(folder, share) == "split.share"
    for count in (0, 30, 99):
        assert problem(folder, count=count) == "split.count"
    with pytest.raises(UserError) as caught:
        bring_back(folder, log_of(folder))
    assert caught.value.problems[0].code == "split.none"
    split(folder, count=2)
    assert problem(folder, count=2) == "split.exists"
    same = folder.parent / "same"
    for name in "abcd":
        write_picture(same / f"{name}.png", 40, 40, 1)
    assert problem(same, 0.25) == "split.alike"


def test_the_command(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def run(*options: str) -> tuple[int, dict[str, object]]:
        code = main(["split", str(folder), *options, "--json", f"--workspace={folder.parent / 'workspace'}"])
        return code, json.loads(capfd.readouterr().out)

    code, answer = run("--share", "0.1")
    assert (code, answer["moved"], answer["left"]) == (0, 3, 27)
    assert answer["validation"] == str(validation_folder(folder))
    code, answer = run("--back")
    assert (code, answer["brought_back"], answer["conflicts"]) == (0, 6, [])
