"""``trainer bench --pictures``: ours and plain diffusers by turns, and on a GPU the speed that was promised."""

from __future__ import annotations

import sys
from dataclasses import fields
from typing import Any

import pytest
import torch

from trainer import picture_bench
from trainer.__main__ import command_parser
from trainer.commands import bench
from trainer.errors import UserError
from trainer.picture_bench import PictureMeasurement, measure_pictures
from trainer.runs.events import Events


def test_it_measures_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_bench, "ROUNDS", 1)
    args = command_parser("bench", bench).parse_args(
        ["--pictures", "--resolution", "64", "--batch", "2", "--steps", "2"]
    )
    answer = bench.run(args, Events())
    assert list(answer) == [field.name for field in fields(PictureMeasurement)]
    assert answer["images_per_s"] > 0 and answer["plain_images_per_s"] > 0
    assert answer["ratio"] == pytest.approx(answer["images_per_s"] / answer["plain_images_per_s"], rel=0.1)
    assert (answer["steps"], answer["batch"], answer["resolution"], answer["family"]) == (2, 2, 64, "sd1")
    assert "plain_images_per_s" in bench.describe(answer)


def test_settings_of_training_have_no_place() -> None:
    args = command_parser("bench", bench).parse_args(["--pictures", "--set", "train.seed=1"])
    with pytest.raises(UserError, match="set"):
        bench.run(args, Events())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize(("family", "resolution"), [("sd1", 512), ("sdxl", 1024)])
def test_the_speed_on_a_gpu(family: str, resolution: int, batch: int, capsys: pytest.CaptureFixture[str]) -> None:
    asked: dict[str, Any] = {"size": "full", "resolution": resolution, "batch": batch, "steps": 20}
    answer = measure_pictures(family, **asked, precision="auto", events=Events())
    with capsys.disabled():
        sys.stdout.write(f"\n{bench.describe(vars(answer))}\n")
    assert "captured for" in answer.replays
    assert answer.ratio >= (1.5 if batch == 1 else 1.0)
