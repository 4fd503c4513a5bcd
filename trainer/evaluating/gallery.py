"""The training pictures, as what pictures drawn are compared with."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from trainer.curation.similar import Fingerprint, fingerprint
from trainer.data.image_files import read_rgb
from trainer.data.training_set import TrainingSet
from trainer.evaluating.looks import Looks, mean_cosine
from trainer.evaluating.nearest import nearest
from trainer.evaluating.results import Nearest
from trainer.files import atomic_path
from trainer.runs.events import EventSink

MOST_LOOKED_AT = 256
"""Training pictures that a model looks at, evenly spread; copies are looked for among all."""
_AT_ONCE = 16
_COPY_PX = 384


class Gallery:
    """Every training picture as a fingerprint, some of them as vectors of a model that looks at pictures."""

    def __init__(self, data: TrainingSet, looks: Looks | None, events: EventSink) -> None:
        """Look at the pictures; raises UserError for one that is gone. ``events`` get the progress."""
        self._paths: list[Path] = []
        self._fingerprints: list[Fingerprint] = []
        self._vectors: Tensor | None = None
        vectors: list[Tensor] = []
        some: list[Image.Image] = []
        every = -(-data.pictures // MOST_LOOKED_AT)
        for number, (path, pixels) in enumerate(data.pictures_as_trained()):
            image = as_image(pixels)
            self._paths.append(path)
            self._fingerprints.append(fingerprint(image))
            if looks is not None and number % every == 0:
                some.append(image)
                if len(some) == _AT_ONCE:
                    vectors.append(looks.pictures(some))
                    some = []
            events.emit("progress", what="looking at the training pictures", done=number + 1, total=data.pictures)
        if looks is not None and some:
            vectors.append(looks.pictures(some))
        if vectors:
            self._vectors = torch.cat(vectors)

    def similarity(self, vectors: Tensor) -> float | None:
        """Mean cosine of (N, D) vectors of pictures with the training pictures; None without a model."""
        return None if self._vectors is None else mean_cosine(vectors, self._vectors)

    def nearest(self, picture: Image.Image, folder: Path) -> Nearest:
        """The nearest training picture, with a small copy of it in ``folder``."""
        match = nearest(fingerprint(picture), self._fingerprints)
        source = self._paths[match.index]
        name = f"train-{hashlib.sha256(str(source).encode()).hexdigest()[:16]}.png"
        image = read_rgb(source.read_bytes())
        image.thumbnail((_COPY_PX, _COPY_PX))
        with atomic_path(folder / name) as temporary:
            image.save(temporary, format="PNG")
        return Nearest(picture=name, source=str(source), similarity=round(match.similarity, 4), copied=match.copied)


def as_pixels(image: Image.Image) -> Tensor:
    """An RGB image as (3, H, W) float32 in [-1, 1]."""
    return torch.from_numpy(np.asarray(image.convert("RGB"), np.float32).transpose(2, 0, 1) / 127.5 - 1)


def as_image(pixels: Tensor) -> Image.Image:
    """The reverse of ``as_pixels``."""
    levels = ((pixels + 1) * 127.5).round().clamp(0, 255).byte()
    return Image.fromarray(levels.permute(1, 2, 0).cpu().numpy())
