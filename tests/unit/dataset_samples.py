"""Small datasets made of real picture files, for the tests of everything that reads them."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from trainer.config import Config


class Recorded:
    """An event sink that remembers."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def emit(self, kind: str, step: int = 0, **fields: Any) -> None:
        self.events.append({"type": kind, "step": step, **fields})

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["type"] == kind]


def never_stop() -> None:
    """A ``check_stop`` without a request."""


def noise_picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """A picture that resembles no other: every mistake in reading it shows."""
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def write_picture(path: Path, width: int = 64, height: int = 64, seed: int = 0, caption: str | None = None) -> Path:
    """Save a picture, and a caption file beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise_picture(width, height, seed).save(path)
    if caption is not None:
        path.with_suffix(".txt").write_text(caption, encoding="utf-8")
    return path


def write_pictures(folder: Path, sizes: list[tuple[int, int]], caption: Callable[[int], str] = "tag {}".format) -> None:
    """Numbered pictures of these sizes, each with its caption."""
    for number, (width, height) in enumerate(sizes):
        write_picture(folder / f"{number:02}.png", width, height, number, caption(number))


def cut_off(path: Path, kept: float = 0.5) -> Path:
    """Keep only the first part of a file, as a broken download does."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    return path


def config_for(*folders: Path, **sections: Any) -> Config:
    """A config of the demo model at 64 pixels on these folders."""
    dataset = {"sources": [{"path": str(folder)} for folder in folders], "resolution": 64}
    return Config.model_validate({**sections, "dataset": {**dataset, **sections.get("dataset", {})}})


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Run as a user without rights where the tests run as root, whom read-only folders do not stop."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@contextlib.contextmanager
def folder_for_everyone() -> Iterator[Path]:
    """An empty folder that any user may write to; pytest's own are closed to others."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        yield Path(name)
