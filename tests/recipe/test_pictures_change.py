"""Pictures and captions that change, are cut off or go while they are trained on: no run mixes old and new unsaid."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.recipe.tiny_runs import Watcher, losses_of, make_pictures, of_type, stop_at, train_here
from trainer.checkpoint_folders import is_valid
from trainer.config import Config
from trainer.errors import UserError
from trainer.runs.store import Run, Workspace


def replace(folder: Path) -> None:
    shutil.copyfile(folder / "2.png", folder / "1.png")


def cut_off(folder: Path) -> None:
    (folder / "1.png").write_bytes((folder / "1.png").read_bytes()[:200])


def remove(folder: Path) -> None:
    (folder / "1.png").unlink()


def unmount(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))


CHANGES = {
    replace: ("dataset.picture_changed", "1.png was changed while it was trained on"),
    cut_off: ("dataset.picture_changed", "1.png was changed while it was trained on"),
    remove: ("dataset.picture_lost", "1.png was usable when the run began, now it is gone"),
    unmount: ("dataset.picture_lost", "was usable when the run began, now it is gone"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_pictures(tmp_path / "pictures")


@pytest.fixture
def configured(folder: Path, tiny: Any) -> Callable[..., Config]:
    def make(*, latents: bool, to_disk: bool = False) -> Config:
        augment = {} if latents else {"augment": {"color": True, "random_crop": True}}
        cache = {"latents": latents, "text": True, "to_disk": to_disk}
        dataset = {"sources": [{"path": str(folder)}], "resolution": 64, "cache": cache, **augment}
        return tiny(dataset=dataset, output__save_every_steps=0)

    return make


@pytest.fixture
def undisturbed(configured: Any, workspace: Workspace) -> Callable[[Config], Run]:
    def train(config: Config) -> Run:
        run = workspace.create_run(config)
        train_here(run)
        return run

    return train


@pytest.mark.parametrize(("to_disk", "change"), [(True, replace), (False, unmount)])
def test_with_latents_in_the_cache_nothing_changes(
    to_disk: bool, change: Callable[[Path], None], folder: Path, configured: Any, undisturbed: Any, workspace: Workspace
) -> None:
    """Captions are read once, too."""
    expected = undisturbed(configured(latents=True, to_disk=to_disk))
    run = workspace.create_run(expected.config())

    def meanwhile() -> None:
        (folder / "0.txt").write_text("something else")
        change(folder)

    train_here(run, Watcher({("metric", 2): meanwhile}))
    assert run.read().state == "finished" and of_type(run, "warning") == []
    assert losses_of(run) == losses_of(expected)
    assert run.output_path.read_bytes() == expected.output_path.read_bytes()


@pytest.mark.parametrize("change", CHANGES)
def test_without_a_cache_the_run_ends_with_all_that_it_learned(
    change: Callable[[Path], None],
    folder: Path,
    configured: Any,
    undisturbed: Any,
    workspace: Workspace,
    tmp_path: Path,
) -> None:
    """Put back what was there, it goes on as if nothing had happened."""
    expected = undisturbed(configured(latents=False))
    kept = shutil.copytree(folder, tmp_path / "kept")
    run = workspace.create_run(expected.config())
    with pytest.raises(UserError) as caught:
        train_here(run, Watcher({("metric", 2): lambda: change(folder)}))
    code, words = CHANGES[change]
    info, done = run.read(), max(losses_of(run))
    assert (caught.value.problems[0].code, info.state, info.exit_code) == (code, "failed", 2)
    assert words in (info.error or "") and "resume the run" in (info.error or "")
    assert 2 <= done == info.step < 6 and is_valid(run.checkpoints_dir / f"step-{done:06d}")
    assert list(run.output_dir.iterdir()) == []
    shutil.rmtree(folder, ignore_errors=True)
    kept.rename(folder)
    train_here(run)
    assert run.read().state == "finished" and of_type(run, "warning") == []
    assert losses_of(run) == losses_of(expected)
    assert run.output_path.read_bytes() == expected.output_path.read_bytes()


@pytest.mark.parametrize("latents", [True, False])
def test_a_run_that_goes_on_with_other_pictures_says_so(
    latents: bool, folder: Path, configured: Any, workspace: Workspace
) -> None:
    run = workspace.create_run(configured(latents=latents))
    stop_at(run, ("metric", 2))
    replace(folder)
    (folder / "2.txt").write_text("something else")
    (folder / "0.png").rename(folder / "3.png")
    train_here(run)
    [warning] = of_type(run, "warning")
    changed = "1 changed picture (1.png), 1 changed caption (2.png), 1 new picture (3.png), 1 missing picture (0.png)"
    assert warning["code"] == "dataset.changed"
    assert warning["message"] == f"The data set is not what it was at step-000002: {changed}."
    assert run.read().state == "finished"
