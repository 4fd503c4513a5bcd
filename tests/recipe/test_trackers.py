"""Real runs with real trackers: what they recorded is read back from their own files."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.recipe.tiny_runs import Watcher, losses_of, of_type, stop_at, train_here
from trainer.runs.store import Run, Workspace

SECRET = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def make_run(config_of, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    monkeypatch.setenv("WANDB_API_KEY", SECRET)
    monkeypatch.setenv("HF_TOKEN", SECRET[::-1])

    def make(*trackers: str, **changes: Any) -> Run:
        values: dict[str, Any] = {
            "lora__target": "attention",
            "train__max_steps": 4,
            "output__save_every_steps": 2,
            "validation__split": 0.34,
            "validation__every_steps": 2,
            "validation__timesteps": 1,
            "samples__every_steps": 2,
            "samples__at_start": True,
            "samples__prompts": ["a <b>red</b> circle --s 1"],
        }
        return workspace.create_run(config_of(trackers=list(trackers), **{**values, **changes}))

    return make


def tensorboard_of(run: Run) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    sizes = {"scalars": 0, "images": 0, "tensors": 0}
    return EventAccumulator(str(run.dir / "trackers" / "tensorboard"), size_guidance=sizes).Reload()


def assert_nothing_secret(*folders: Path) -> None:
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 5
    for path in files:
        data = path.read_bytes()
        for secret in (SECRET, SECRET[::-1]):
            assert secret.encode() not in data, path


def test_tensorboard_has_every_number_and_picture_also_over_a_stop(make_run, workspace: Workspace) -> None:
    pytest.importorskip("tensorboard")
    run, plain = make_run("tensorboard"), make_run()
    train_here(plain)
    stop_at(run, ("checkpoint", 2))
    identity = (run.dir / "trackers" / "identity.json").read_bytes()
    train_here(run)
    assert (run.dir / "trackers" / "identity.json").read_bytes() == identity

    events = tensorboard_of(run)
    losses = {event.step: event.value for event in events.Scalars("train/loss")}
    assert losses == pytest.approx(losses_of(run)) and list(losses) == [1, 2, 3, 4]
    validations = {event.step: event.value for event in events.Scalars("validation/loss")}
    assert validations == pytest.approx({event["step"]: event["loss"] for event in of_type(run, "validation")})
    pictures = {image.step: image.encoded_image_string for image in events.Images("preview 1")}
    assert list(pictures) == [0, 2, 4]
    for step, data in pictures.items():
        saved = np.asarray(Image.open(run.samples_dir / f"step-{step:06d}-p00-s42.png"))
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), saved)
    text = events.Tensors("settings/text_summary")[0].tensor_proto.string_val[0].decode()
    assert '"train.max_steps": 4' in text and str(workspace.dir.parent) not in text

    assert run.output_path.read_bytes() == plain.output_path.read_bytes(), "who watches changes nothing"
    assert [event for event in of_type(run, "warning") if event["code"].startswith("tracker")] == []
    assert not (plain.dir / "trackers").exists()
    assert_nothing_secret(run.dir)


def test_a_tracker_that_is_missing_or_fails_is_warned_of_once(make_run, monkeypatch: pytest.MonkeyPatch) -> None:
    from trainer.tracking import backends, tracking

    def fails(start: backends.Start) -> Any:
        raise ConnectionError(f"refused {SECRET}")

    monkeypatch.setitem(backends.BACKENDS, "wandb", backends.Backend("torch", fails, lambda *arguments: None))
    monkeypatch.setattr(tracking, "find_spec", lambda name: None if name == "trackio" else name)
    run = make_run("wandb", "trackio", validation__split=0, samples__prompts=[])
    train_here(run, Watcher())
    told = {event["code"]: event["message"] for event in of_type(run, "warning")}
    codes = [event["code"] for event in of_type(run, "warning") if event["code"].startswith("tracker")]
    assert sorted(codes) == ["tracker.failed", "tracker.missing"]
    assert "refused ***" in told["tracker.failed"] and "trackio" in told["tracker.missing"]
    assert run.read().state == "finished" and len(losses_of(run)) == 4
    assert_nothing_secret(run.dir)


def test_wandb_offline_keeps_the_run_in_its_folder(make_run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    run = make_run("wandb")
    stop_at(run, ("checkpoint", 2))
    train_here(run)
    assert wandb.__version__ and run.read().state == "finished"
    assert [event["message"] for event in of_type(run, "warning") if event["code"].startswith("tracker")] == []
    folders = sorted((run.dir / "trackers" / "wandb").glob("offline-run-*"))
    identity = json.loads((run.dir / "trackers" / "identity.json").read_text())
    assert len(folders) == 2 and all(folder.name.endswith(identity["id"]) for folder in folders)
    written = b"".join(path.read_bytes() for folder in folders for path in folder.rglob("*.wandb"))
    assert b"train/loss" in written and b"train.learning_rate" in written
    assert str(tmp_path).encode() not in written
    assert len(list((run.dir / "trackers" / "wandb").rglob("*.png"))) == 3
    assert_nothing_secret(run.dir, tmp_path)


def test_trackio_has_the_curve_also_over_a_stop(make_run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read when it is first imported
    storage = pytest.importorskip("trackio.sqlite_storage")
    run = make_run("trackio")
    stop_at(run, ("checkpoint", 2))
    train_here(run)
    assert [event["message"] for event in of_type(run, "warning") if event["code"].startswith("tracker")] == []
    (name,) = storage.SQLiteStorage.get_runs("lora-atelier")
    rows = storage.SQLiteStorage.get_logs("lora-atelier", name)
    losses = {row["step"]: row["train/loss"] for row in rows if "train/loss" in row}
    assert losses == pytest.approx(losses_of(run))
    assert sum("preview 1" in row for row in rows) == 3
    assert_nothing_secret(run.dir, tmp_path)
