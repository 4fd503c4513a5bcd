"""Reads a picture of the demo's world back into words by image analysis, without any neural network."""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Sequence

import numpy as np
from PIL import Image

from trainer.demo import world
from trainer.demo.world import COLOURS, SHAPES, SIDE_PX, Scene

PALETTE = np.array(list(COLOURS.values()), dtype=np.float32)
BORDER_PX = 4
MIN_CONTRAST = 35.0
"""Euclidean RGB distance from the background from which a pixel can belong to the object."""
MIN_OBJECT_PX = 60
TEMPLATE_CELLS = 32
TEMPLATE_REACH = 1.7
"""Half the side of the compared window, in radii of a disc of the object's area."""
SIZE_LIMITS = {"small": 0.405, "": 0.585, "big": math.inf}
"""Size word -> upper limit of the object's geometric mean of width and height, as a fraction of the picture."""


def read_scene(picture: Image.Image) -> Scene | None:
    """The scene a picture shows, or None where nothing stands out from the background."""
    pixels = np.asarray(picture.convert("RGB").resize((SIDE_PX, SIDE_PX)), dtype=np.float32)
    ground = background_colour(pixels)
    distance = np.linalg.norm(pixels - ground, axis=-1)
    outstanding = distance > MIN_CONTRAST
    if outstanding.sum() < MIN_OBJECT_PX:
        return None
    colour = np.median(pixels[distance >= np.median(distance[outstanding])], axis=0)
    mask = distance > 0.5 * float(np.linalg.norm(colour - ground))
    if mask.sum() < MIN_OBJECT_PX:
        return None
    background = nearest_colour(ground)
    return Scene(background, nearest_colour(colour, other_than=background), _nearest_shape(mask), _size_word(mask))


def background_colour(pixels: np.ndarray) -> np.ndarray:
    """Median RGB of the border of pixels (H, W, 3)."""
    edge = BORDER_PX
    border = (pixels[:edge], pixels[-edge:], pixels[:, :edge], pixels[:, -edge:])
    return np.median(np.concatenate([part.reshape(-1, 3) for part in border]), axis=0)


def nearest_colour(rgb: np.ndarray, other_than: str | None = None) -> str:
    """The name of the world's colour nearest to `rgb` (3,)."""
    distance = np.square(PALETTE - rgb).sum(axis=1)
    if other_than is not None:
        distance[list(COLOURS).index(other_than)] = np.inf
    return list(COLOURS)[int(distance.argmin())]


def score(pictures: Sequence[Image.Image], scenes: Sequence[Scene]) -> dict[str, float]:
    """Share of pictures that show the wanted background, colour, shape and size, and all four together (`all`)."""
    read = [read_scene(picture) for picture in pictures]
    right = {
        name: [
            found is not None and vars(found)[name] == vars(wanted)[name]
            for found, wanted in zip(read, scenes, strict=True)
        ]
        for name in world.ATTRIBUTES
    }
    shares = {name: float(np.mean(values)) for name, values in right.items()}
    return shares | {"all": float(np.mean(np.all(list(right.values()), axis=0)))}


def gate_scenes(count: int, seed: int = 123) -> list[Scene]:
    """Scenes to ask for when scoring: random colours and sizes, every shape equally often."""
    rng = random.Random(seed)
    scenes = []
    for number in range(count):
        scene = world.sample_scene(rng)
        scenes.append(Scene(scene.background, scene.colour, SHAPES[number % len(SHAPES)], scene.size))
    return scenes


def _size_word(mask: np.ndarray) -> str:
    height = np.count_nonzero(mask.sum(axis=1) >= 2)
    width = np.count_nonzero(mask.sum(axis=0) >= 2)
    extent = math.sqrt(width * height) / SIDE_PX
    return next(word for word, limit in SIZE_LIMITS.items() if extent < limit)


def _nearest_shape(mask: np.ndarray) -> str:
    """The shape whose template overlaps best (intersection over union)."""
    found = _normalised(mask)
    names, templates = _templates()
    overlap = (templates & found).sum(axis=(1, 2)) / (templates | found).sum(axis=(1, 2))
    return names[int(overlap.argmax())]


@functools.cache
def _templates() -> tuple[list[str], np.ndarray]:
    turns = np.linspace(-world.ROTATION_JITTER, world.ROTATION_JITTER, 5)
    pairs = [(shape, float(turn)) for shape in SHAPES for turn in turns]
    masks = [np.asarray(world.shape_mask(shape, (0.0, 0.0), 0.6, turn, 2 * SIDE_PX)) > 127 for shape, turn in pairs]
    return [shape for shape, _ in pairs], np.stack([_normalised(mask) for mask in masks])


def _normalised(mask: np.ndarray) -> np.ndarray:
    """Resamples a mask (H, W) to (32, 32) so that its centre of mass and its area are always the same."""
    rows, columns = np.nonzero(mask)
    reach = TEMPLATE_REACH * math.sqrt(mask.sum() / math.pi)
    steps = (np.arange(TEMPLATE_CELLS) + 0.5) / TEMPLATE_CELLS * 2 - 1
    y = np.round(rows.mean() + steps * reach).astype(int)
    x = np.round(columns.mean() + steps * reach).astype(int)
    inside = ((y >= 0) & (y < mask.shape[0]))[:, None] & ((x >= 0) & (x < mask.shape[1]))[None]
    return mask[y.clip(0, mask.shape[0] - 1)][:, x.clip(0, mask.shape[1] - 1)] & inside
