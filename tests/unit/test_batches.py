"""Batches become smaller where memory runs out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image

from trainer.captioners.batches import Batches
from trainer.errors import UserError

IMAGES = [Image.new("RGB", (side, 1)) for side in range(1, 9)]
PATHS = [Path(f"{number}.png") for number in range(8)]
FAILURES = [
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
    type("RuntimeException", (Exception,), {"__module__": "onnxruntime.capi.x"})(
        "Failed to allocate memory for buffer"
    ),
]


class Model:
    """Names widths and files, for as many pictures as fit."""

    def __init__(self, fits: int, failure: Exception) -> None:
        self.fits, self.failure, self.sizes = fits, failure, list[int]()

    def __call__(self, images: Sequence[Image.Image], paths: Sequence[Path]) -> list[str]:
        self.sizes.append(len(images))
        if len(images) > self.fits:
            raise self.failure
        return [f"{image.width} {path.name}" for image, path in zip(images, paths, strict=True)]


@pytest.mark.parametrize("failure", FAILURES, ids=["cuda", "cpu", "onnx"])
def test_what_was_too_much_is_halved_and_not_tried_again(failure: Exception) -> None:
    model = Model(3, failure)
    batches = Batches(model)
    expected = [f"{number + 1} {number}.png" for number in range(8)]
    assert batches.captions(IMAGES, PATHS) == expected
    assert model.sizes == [8, 4, 2, 2, 2, 2]
    assert batches.captions(IMAGES[:3], PATHS[:3]) == expected[:3]
    assert model.sizes[6:] == [2, 1]


def test_one_picture_that_does_not_fit_is_told() -> None:
    model = Model(0, FAILURES[0])
    with pytest.raises(UserError, match="even for one picture"):
        Batches(model).captions(IMAGES[:2], PATHS[:2])
    assert model.sizes == [2, 1]


def test_other_failures_pass_through() -> None:
    model = Model(1, ValueError("no"))
    with pytest.raises(ValueError, match="no"):
        Batches(model).captions(IMAGES, PATHS)
    assert model.sizes == [8]


def test_no_pictures_are_no_captions() -> None:
    assert Batches(Model(1, FAILURES[0])).captions([], []) == []
