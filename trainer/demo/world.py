"""The demo's picture world: one solid shape on a plain background, drawn with PIL and described in words.

Nothing here needs torch. Every draw takes an explicit `random.Random`, so a seed fixes every pixel.
Lengths inside a scene are fractions of half the picture's side: radius 1.0 would touch the edges.
"""

from __future__ import annotations

import math
import random
import re
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

SIDE_PX = 128
SUPERSAMPLE = 3
"""Pictures are drawn this many times larger and averaged down, which smooths their edges."""

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 40, 40),
    "orange": (245, 140, 30),
    "yellow": (250, 220, 50),
    "green": (50, 165, 70),
    "cyan": (60, 205, 215),
    "blue": (45, 85, 215),
    "purple": (135, 60, 180),
    "pink": (250, 150, 190),
    "brown": (125, 80, 45),
    "white": (245, 245, 245),
    "black": (25, 25, 28),
    "gray": (135, 138, 142),
}
SHAPES = ("circle", "square", "triangle", "star", "heart", "ring", "cross", "diamond", "moon")
SIZES: dict[str, tuple[float, float]] = {"small": (0.32, 0.38), "": (0.50, 0.57), "big": (0.70, 0.80)}
"""Size word -> range of radii. The middle size goes without saying."""

RING_HOLE = 0.52
COLOUR_JITTER = 8
POSITION_JITTER = 0.07
ROTATION_JITTER = 0.12

ATTRIBUTES = ("background", "colour", "shape", "size")
"""The fields of a `Scene`."""

_PLAIN_WORDS = """
bright dark light soft neon glow glowing robot cat dog bird fish horse bear lion man woman girl boy person face head
body eye hand hair hat flower tree leaf grass car house home city street road river sea sky sun cloud night day
mountain garden art sketch cartoon anime pixel watercolor oil pencil ink poster logo icon symbol pattern texture toy
cute masterpiece best quality detailed beautiful sharp high low resolution young old new good character design
concept render realistic abstract modern vintage retro minimal geometric photo portrait painting
"""
PLAIN_WORDS = _PLAIN_WORDS.split()
"""Words the tokenizer knows whole and this world gives no meaning."""

_SYLLABLES = ("zo", "ka", "mur", "vex", "qi", "lo", "bri", "tun", "hax", "sy", "ple", "dro", "nim", "wu", "gre", "fja")
_CONSONANTS = "bcdfghjklmnpqrstvwxz"
_FULL_CAPTION = re.compile(
    r"an? (?:(?P<size>small|big) )?(?P<colour>[a-z]+) (?P<shape>[a-z]+) on an? (?P<background>[a-z]+) background"
)

Colour = tuple[int, int, int]
Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Scene:
    """One picture in words: what `draw` paints and `caption` says."""

    background: str
    colour: str
    shape: str
    size: str


@dataclass(frozen=True)
class Caption:
    """A caption and the attributes of the scene it tells."""

    text: str
    says: frozenset[str]


def sample_scene(rng: random.Random) -> Scene:
    """Picks every attribute evenly; the shape never has the background's colour."""
    background = rng.choice(list(COLOURS))
    colour = rng.choice([name for name in COLOURS if name != background])
    return Scene(background, colour, rng.choice(SHAPES), rng.choice(list(SIZES)))


def draw(scene: Scene, rng: random.Random) -> Image.Image:
    """Paints `scene` as a 128 x 128 px RGB picture, with small jitter of colour, place, radius and angle."""
    side = SIDE_PX * SUPERSAMPLE
    picture = Image.new("RGB", (side, side), jitter(COLOURS[scene.background], rng))
    mask = placed_mask(scene, rng)
    picture.paste(jitter(COLOURS[scene.colour], rng), (0, 0), mask)
    return picture.reduce(SUPERSAMPLE)


def placed_mask(scene: Scene, rng: random.Random) -> Image.Image:
    """The scene's shape with small jitter of place, radius and angle: a `shape_mask`, `SUPERSAMPLE` times the side."""
    centre = (rng.uniform(-POSITION_JITTER, POSITION_JITTER), rng.uniform(-POSITION_JITTER, POSITION_JITTER))
    radius = rng.uniform(*SIZES[scene.size])
    rotation = rng.uniform(-ROTATION_JITTER, ROTATION_JITTER)
    return shape_mask(scene.shape, centre, radius, rotation, SIDE_PX * SUPERSAMPLE)


def caption(scene: Scene) -> str:
    """The full caption, e.g. `a big red circle on a blue background`."""
    return f"{object_phrase(scene)} on {with_article(scene.background)} background"


def scene_in(text: str) -> Scene | None:
    """The scene that a full caption tells, None where `text` is not worded like one; undoes `caption`."""
    told = _FULL_CAPTION.fullmatch(text)
    return Scene(told["background"], told["colour"], told["shape"], told["size"] or "") if told else None


def training_caption(scene: Scene, rng: random.Random) -> Caption:
    """A caption as the builder trains on: reworded, sometimes shortened, with meaningless words, or empty.

    One in ten is empty (classifier-free guidance, Ho and Salimans 2022). One in five carries words without a meaning
    here, so that a LoRA's trigger changes nothing before the LoRA is trained.
    """
    if rng.random() < 0.1:
        return Caption("", frozenset())
    text, says = _reworded(scene, rng)
    if rng.random() < 0.12:
        text = rng.choice(("a picture of ", "a drawing of ", "an image of ")) + text
    if rng.random() < 0.2:
        text = _with_meaningless_words(text, rng)
    return Caption(text, frozenset(says))


def object_phrase(scene: Scene) -> str:
    """The object alone, e.g. `a big red circle`."""
    return with_article(" ".join(word for word in (scene.size, scene.colour, scene.shape) if word))


def with_article(phrase: str) -> str:
    """Puts `a` or `an` before `phrase`."""
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def meaningless_word(rng: random.Random) -> str:
    """A word that says nothing about this world: a few consonants (`sks`), a few syllables, or an ordinary word."""
    kind = rng.random()
    if kind < 0.4:
        return "".join(rng.choice(_CONSONANTS) for _ in range(rng.randint(2, 4)))
    if kind < 0.7:
        return "".join(rng.choice(_SYLLABLES) for _ in range(rng.randint(1, 3)))
    return rng.choice(PLAIN_WORDS)


def jitter(colour: Colour, rng: random.Random) -> Colour:
    """Moves each channel of `colour` by up to `COLOUR_JITTER` levels."""
    red, green, blue = (int(min(255, max(0, value + rng.uniform(-COLOUR_JITTER, COLOUR_JITTER)))) for value in colour)
    return red, green, blue


def shape_mask(shape: str, centre: tuple[float, float], radius: float, rotation: float, side_px: int) -> Image.Image:
    """A filled shape in white on black.

    Args:
        shape: one of `SHAPES`.
        centre: x and y, each -1 (left, top) to 1 (right, bottom).
        radius: fraction of half the side.
        rotation: radians, clockwise on screen.
        side_px: side of the square mask.

    Returns:
        An "L" image, 255 inside the shape.
    """
    half = side_px / 2
    x, y, r = (centre[0] + 1) * half, (centre[1] + 1) * half, radius * half
    mask = Image.new("L", (side_px, side_px), 0)
    pen = ImageDraw.Draw(mask)
    if shape == "ring":
        hole = r * RING_HOLE
        pen.ellipse([x - r, y - r, x + r, y + r], fill=255)
        pen.ellipse([x - hole, y - hole, x + hole, y + hole], fill=0)
        return mask
    cos, sin = math.cos(rotation), math.sin(rotation)
    pen.polygon([(x + r * (px * cos - py * sin), y + r * (px * sin + py * cos)) for px, py in outline(shape)], fill=255)
    return mask


def outline(shape: str) -> Points:
    """The corners of `shape` in a circle of radius about 1 around (0, 0); every shape except the ring."""
    if shape == "circle":
        return [(math.cos(t), math.sin(t)) for t in _angles(60)]
    if shape == "square":
        return [(-0.86, -0.86), (0.86, -0.86), (0.86, 0.86), (-0.86, 0.86)]
    if shape == "triangle":
        return [(0, -1), (0.95, 0.72), (-0.95, 0.72)]
    if shape == "diamond":
        return [(0, -1.08), (0.68, 0), (0, 1.08), (-0.68, 0)]
    if shape == "star":
        return [_on_star(corner) for corner in range(10)]
    if shape == "heart":
        return [_on_heart(t) for t in _angles(60)]
    if shape == "cross":
        arm = 0.34
        quarter = [(-arm, -1), (arm, -1), (arm, -arm)]
        return [(x * c - y * s, x * s + y * c) for c, s in ((1, 0), (0, 1), (-1, 0), (0, -1)) for x, y in quarter]
    if shape == "moon":
        return _moon()
    raise ValueError(f"shape: {shape!r} has no outline; known are {', '.join(SHAPES)}, and the ring is not a polygon")


def _angles(count: int) -> list[float]:
    return [2 * math.pi * i / count for i in range(count)]


def _on_star(corner: int) -> tuple[float, float]:
    radius = 1.08 if corner % 2 == 0 else 0.46
    angle = -math.pi / 2 + corner * math.pi / 5
    return radius * math.cos(angle), radius * math.sin(angle)


def _on_heart(t: float) -> tuple[float, float]:
    y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
    return 16 * math.sin(t) ** 3 / 16.5, -y / 16.5


def _moon() -> Points:
    """A crescent open to the right: the unit circle less a circle moved right."""
    outer = [(math.cos(t), math.sin(t)) for t in np.linspace(math.radians(50), math.radians(310), 40)]
    shift = 0.42
    (x_last, y_last), (x_first, y_first) = outer[-1], outer[0]
    radius = math.hypot(x_last - shift, y_last)
    start = math.atan2(y_last, x_last - shift) % (2 * math.pi)
    stop = math.atan2(y_first, x_first - shift) % (2 * math.pi)
    inner = [(shift + radius * math.cos(t), radius * math.sin(t)) for t in np.linspace(start, stop, 30)]
    return [(float(x) + 0.15, float(y)) for x, y in outer + inner]


def _reworded(scene: Scene, rng: random.Random) -> tuple[str, tuple[str, ...]]:
    """Text and what it says. Never leaves out a size alone: without a word for it, an object is of middle size."""
    kind = rng.random()
    background = f"{with_article(scene.background)} background"
    if kind < 0.68:
        return f"{object_phrase(scene)} on {background}", ATTRIBUTES
    if kind < 0.78:
        return f"{background} with {object_phrase(scene)}", ATTRIBUTES
    if kind < 0.87:
        return object_phrase(scene), ("colour", "shape", "size")
    if kind < 0.95:
        thing = with_article(f"{scene.size} {scene.shape}".strip())
        return f"{thing} on {background}", ("background", "shape", "size")
    thing = " ".join(meaningless_word(rng) for _ in range(rng.randint(1, 2)))
    return f"{thing if rng.random() < 0.5 else with_article(thing)} on {background}", ("background",)


def _with_meaningless_words(text: str, rng: random.Random) -> str:
    words = " ".join(meaningless_word(rng) for _ in range(rng.randint(1, 2)))
    place = rng.random()
    if place < 0.4:
        return f"{text}, {words} style"
    if place < 0.7:
        return f"{text}, {words}"
    return f"{words}, {text}"
