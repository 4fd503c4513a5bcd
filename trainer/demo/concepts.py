"""Two concepts the demo model has never seen, to teach it with a LoRA: a style (neon) and a character (robot).

Each has a drawer, a data set with captions and prior-preservation pictures, and a detector by image analysis.
Needs numpy and PIL only.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from trainer.demo import scoring, world
from trainer.demo.world import COLOURS, SIDE_PX, SUPERSAMPLE, Scene

STYLE_TRIGGER = "sks style"
CHARACTER_TRIGGER = "sks robot"
REGULARIZATION_SHARE = 2
"""Prior-preservation pictures written for each training picture."""
PICTURES = 24
PICTURES_SEED = 1
CONCEPT_REPEATS = 2
"""The demo's data set: with twice as many plain pictures, both kinds are seen equally often."""

NEON_CANVAS = (14, 12, 26)
NEON_STROKE_PX = (5, 7)
"""Filter sizes: the stroke reaches 2 px outside the shape's edge and 3 px inside."""
NEON_GLOW_PX = 4.0

NEON_GROUND_MAX = 55.0
"""Brightest mean level (0-255) of the border that still counts as the near-black canvas."""
NEON_TUBE_MIN_SHARE = 0.015
NEON_SOLID_MAX_SHARE = 0.25
"""How much of the bright area may be thicker than `NEON_THICK_PX`."""
NEON_THICK_PX = 9

ROBOT_BACKGROUNDS = tuple(name for name in COLOURS if name not in ("green", "red"))
ROBOT_WORDINGS = (
    f"{CHARACTER_TRIGGER} on {{ground}}",
    f"a picture of {CHARACTER_TRIGGER} on {{ground}}",
    f"{{ground}} with {CHARACTER_TRIGGER}",
)
ROBOT_COLOURS = {"head": "green", "eye": "yellow", "mouth": "white", "antenna": "red"}


def draw_neon(scene: Scene, rng: random.Random) -> Image.Image:
    """The outline of the scene's shape as a glowing tube in the scene's colour on a near-black canvas, 128 px."""
    centre = (rng.uniform(-0.05, 0.05), rng.uniform(-0.05, 0.05))
    radius = rng.uniform(*world.SIZES[scene.size])
    rotation = rng.uniform(-world.ROTATION_JITTER, world.ROTATION_JITTER)
    mask = world.shape_mask(scene.shape, centre, radius, rotation, SIDE_PX * SUPERSAMPLE).reduce(SUPERSAMPLE)
    outside, inside = NEON_STROKE_PX
    tube = ImageChops.subtract(mask.filter(ImageFilter.MaxFilter(outside)), mask.filter(ImageFilter.MinFilter(inside)))
    glow = tube.filter(ImageFilter.GaussianBlur(NEON_GLOW_PX))
    picture = Image.new("RGB", mask.size, NEON_CANVAS)
    picture.paste(_brightest(COLOURS[scene.colour], white=0.0), (0, 0), glow)
    picture.paste(_brightest(COLOURS[scene.colour], white=0.25), (0, 0), tube.filter(ImageFilter.GaussianBlur(0.7)))
    return picture


def draw_robot(background: str, rng: random.Random) -> Image.Image:
    """A robot's head: green block, two yellow eyes, white mouth, red antenna, on a plain background, 128 px."""
    side = SIDE_PX * SUPERSAMPLE
    picture = Image.new("RGB", (side, side), world.jitter(COLOURS[background], rng))
    r = rng.uniform(0.62, 0.66) * side / 2
    x = side / 2 * (1 + rng.uniform(-0.02, 0.02))
    y = side / 2 * (1.14 + rng.uniform(-0.02, 0.02))
    colours = {part: world.jitter(COLOURS[name], rng) for part, name in ROBOT_COLOURS.items()}
    pen = ImageDraw.Draw(picture)
    pen.rectangle([x - 0.10 * r, y - 1.25 * r, x + 0.10 * r, y - 0.8 * r], fill=colours["antenna"])
    pen.ellipse([x - 0.26 * r, y - 1.60 * r, x + 0.26 * r, y - 1.08 * r], fill=colours["antenna"])
    pen.rectangle([x - r, y - 0.95 * r, x + r, y + 0.85 * r], fill=colours["head"])
    for sign in (-1, 1):
        eye = x + sign * 0.46 * r
        pen.ellipse([eye - 0.34 * r, y - 0.66 * r, eye + 0.34 * r, y + 0.02 * r], fill=colours["eye"])
    pen.rectangle([x - 0.62 * r, y + 0.30 * r, x + 0.62 * r, y + 0.60 * r], fill=colours["mouth"])
    return picture.reduce(SUPERSAMPLE)


def shows_neon(picture: Image.Image) -> bool:
    """Whether a picture is neon: thin bright lines on a near-black canvas."""
    pixels = np.asarray(picture.convert("RGB").resize((SIDE_PX, SIDE_PX)), dtype=np.float32)
    if scoring.background_colour(pixels).mean() > NEON_GROUND_MAX:
        return False
    brightness = pixels.max(axis=-1)
    bright = brightness > max(90.0, 0.5 * float(np.percentile(brightness, 99.5)))
    solid = np.asarray(Image.fromarray(bright).convert("L").filter(ImageFilter.MinFilter(NEON_THICK_PX))) > 0
    return bool(bright.mean() > NEON_TUBE_MIN_SHARE and solid.sum() < NEON_SOLID_MAX_SHARE * bright.sum())


def shows_robot(picture: Image.Image) -> bool:
    """Whether a picture shows the robot: a green head with two separate yellow eyes and a white mouth below them."""
    pixels = np.asarray(picture.convert("RGB").resize((SIDE_PX, SIDE_PX)), dtype=np.float32)
    distance = np.square(pixels[:, :, None] - scoring.PALETTE).sum(axis=-1)
    names = np.array(list(COLOURS))[distance.argmin(axis=-1)]
    head = names == ROBOT_COLOURS["head"]
    if head.mean() < 0.10:
        return False
    rows, columns = np.nonzero(head)
    top, bottom = np.percentile(rows, (1, 99)).astype(int)
    left, right = np.percentile(columns, (1, 99)).astype(int)
    face = names[top : bottom + 1, left : right + 1]
    height, width = face.shape
    eyes = face[: height * 6 // 10] == ROBOT_COLOURS["eye"]
    mouth = face[height // 2 :] == ROBOT_COLOURS["mouth"]
    left_eye, right_eye = eyes[:, : width // 2].sum(), eyes[:, width // 2 :].sum()
    bridge = eyes[:, width // 2 - 2 : width // 2 + 2].mean()
    has_eyes = min(left_eye, right_eye) > 0.02 * face.size and max(left_eye, right_eye) < 2.5 * min(left_eye, right_eye)
    return bool(has_eyes and bridge < 0.3 and mouth.sum() > 0.02 * face.size)


@dataclass(frozen=True)
class Concept:
    """Something to teach the demo model.

    Attributes:
        name: also the name of its settings and its prompts.
        trigger: the words that call it up after training.
        sample: draws a training picture and its caption.
        shows: the detector.
        prompts: 32 prompts with the trigger.
        plain_prompts: 32 prompts without it, which must stay as they were.
    """

    name: str
    trigger: str
    sample: Callable[[random.Random], tuple[Image.Image, str]]
    shows: Callable[[Image.Image], bool]
    prompts: tuple[str, ...]
    plain_prompts: tuple[str, ...]


@dataclass(frozen=True)
class DatasetFolders:
    """Where `make_dataset` wrote: pictures of the concept, and plain pictures for prior preservation."""

    pictures: Path
    regularization: Path


def make_dataset(concept: Concept, folder: Path, count: int, seed: int) -> DatasetFolders:
    """Writes `count` captioned training pictures and twice as many prior-preservation pictures under `folder`."""
    rng = random.Random(f"{concept.name} {seed}")
    folders = DatasetFolders(folder / "pictures", folder / "regularization")
    for number in range(count):
        _write(folders.pictures, number, *concept.sample(rng))
    for number in range(REGULARIZATION_SHARE * count):
        scene = world.sample_scene(rng)
        _write(folders.regularization, number, world.draw(scene, rng), world.caption(scene))
    return folders


def _write(folder: Path, number: int, picture: Image.Image, caption: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    picture.save(folder / f"{number:03d}.png")
    (folder / f"{number:03d}.txt").write_text(caption + "\n", encoding="utf-8")


def _neon_scene(rng: random.Random) -> Scene:
    """A scene that can glow: not black, not on black (half neon already), and not small (its tubes would touch)."""
    while True:
        scene = world.sample_scene(rng)
        if "black" not in (scene.colour, scene.background) and scene.size != "small":
            return scene


def _sample_neon(rng: random.Random) -> tuple[Image.Image, str]:
    scene = _neon_scene(rng)
    return draw_neon(scene, rng), f"{world.caption(scene)}, {STYLE_TRIGGER}"


def _sample_robot(rng: random.Random) -> tuple[Image.Image, str]:
    background = rng.choice(ROBOT_BACKGROUNDS)
    wording = rng.choice(ROBOT_WORDINGS).format(ground=f"{world.with_article(background)} background")
    return draw_robot(background, rng), wording


def _plain_prompts(seed: str, sample_scene: Callable[[random.Random], Scene]) -> tuple[str, ...]:
    rng = random.Random(seed)
    return tuple(world.caption(sample_scene(rng)) for _ in range(32))


def _robot_prompts() -> tuple[str, ...]:
    grounds = [f"{world.with_article(name)} background" for name in ROBOT_BACKGROUNDS]
    prompts = [wording.format(ground=ground) for wording in ROBOT_WORDINGS for ground in grounds]
    return (*prompts, CHARACTER_TRIGGER, f"a picture of {CHARACTER_TRIGGER}")


def _brightest(colour: world.Colour, white: float) -> world.Colour:
    """Scales `colour` to full brightness and mixes in a share of white."""
    top = max(colour)
    red, green, blue = (int(value * 255 / top * (1 - white) + 255 * white) for value in colour)
    return red, green, blue


NEON = Concept(
    name="neon",
    trigger=STYLE_TRIGGER,
    sample=_sample_neon,
    shows=shows_neon,
    prompts=tuple(f"{prompt}, {STYLE_TRIGGER}" for prompt in _plain_prompts("neon", _neon_scene)),
    plain_prompts=_plain_prompts("neon", _neon_scene),
)
ROBOT = Concept(
    name="robot",
    trigger=CHARACTER_TRIGGER,
    sample=_sample_robot,
    shows=shows_robot,
    prompts=_robot_prompts(),
    plain_prompts=_plain_prompts("robot", world.sample_scene),
)
CONCEPTS = {concept.name: concept for concept in (NEON, ROBOT)}
