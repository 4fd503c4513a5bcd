"""Figures: faces, outlines and heaps of shapes that no word of the demo's world names.

The base model sees them under meaningless words only, so that it can draw more than one solid shape and a LoRA finds
something to build on. None of them is one of the two concepts.
"""

from __future__ import annotations

import random

from PIL import Image, ImageChops, ImageDraw, ImageFilter

from trainer.demo import world
from trainer.demo.world import COLOURS, SHAPES, SIDE_PX, SUPERSAMPLE, Colour

SIDE = SIDE_PX * SUPERSAMPLE


def draw_figure(background: str, rng: random.Random) -> Image.Image:
    """A figure on a plain background, 128 x 128 px: a face half the time, else an outline or a heap of shapes."""
    ground = world.jitter(COLOURS[background], rng)
    kind = rng.random()
    if kind < 0.5:
        return draw_face(ground, rng)
    return _outline(ground, rng) if kind < 0.75 else _heap(ground, rng)


def figure_caption(background: str, rng: random.Random) -> str:
    """Says the background alone: the figure goes by one or two meaningless words."""
    name = " ".join(world.meaningless_word(rng) for _ in range(rng.randint(1, 2)))
    kind = rng.random()
    ground = f"{world.with_article(background)} background"
    if kind < 0.1:
        return ""
    if kind < 0.2:
        return name
    if kind < 0.4:
        return f"{ground} with {world.with_article(name)}"
    return f"{name if rng.random() < 0.5 else world.with_article(name)} on {ground}"


def draw_face(ground: Colour, rng: random.Random, head: Colour | None = None) -> Image.Image:
    """A head of any shape and colours with a pair of eyes and a mouth: characters in general, no one in particular.

    Args:
        head: the head's colour; None for any.
    """
    picture = Image.new("RGB", (SIDE, SIDE), ground)
    r, x, y = rng.uniform(0.45, 0.8), rng.uniform(-0.2, 0.2), rng.uniform(-0.2, 0.2)
    if rng.random() < 0.5:
        picture.paste(palette_colour(rng), (0, 0), world.shape_mask("circle", (x, y - 1.25 * r), 0.25 * r, 0.0, SIDE))
    skin = head or palette_colour(rng)
    picture.paste(skin, (0, 0), world.shape_mask(rng.choice(("square", "circle")), (x, y), r, 0.0, SIDE))
    eye, colour, shape = rng.uniform(0.2, 0.36) * r, palette_colour(rng), rng.choice(("circle", "square", "diamond"))
    for sign in (-1, 1):
        picture.paste(colour, (0, 0), world.shape_mask(shape, (x + sign * 0.45 * r, y - 0.3 * r), eye, 0.0, SIDE))
    half, middle = SIDE / 2, rng.uniform(0.3, 0.55)
    left, right, top = (x - 0.6 * r + 1) * half, (x + 0.6 * r + 1) * half, (y + middle * r + 1) * half
    bottom = top + rng.uniform(0.15, 0.3) * r * half
    ImageDraw.Draw(picture).rectangle([left, top, right, bottom], fill=palette_colour(rng))
    return picture.reduce(SUPERSAMPLE)


def palette_colour(rng: random.Random) -> Colour:
    """One of the world's colours, jittered."""
    return world.jitter(COLOURS[rng.choice(list(COLOURS))], rng)


def _outline(ground: Colour, rng: random.Random) -> Image.Image:
    """One hollow shape with a plain line of 4 to 7 px."""
    picture = Image.new("RGB", (SIDE_PX, SIDE_PX), ground)
    shape, r, turn = rng.choice(SHAPES), rng.uniform(0.4, 0.8), rng.uniform(-0.2, 0.2)
    mask = world.shape_mask(shape, (0.0, 0.0), r, turn, SIDE).reduce(SUPERSAMPLE)
    outside, inside = ImageFilter.MaxFilter(rng.choice((3, 5))), ImageFilter.MinFilter(rng.choice((7, 9, 11)))
    picture.paste(palette_colour(rng), (0, 0), ImageChops.subtract(mask.filter(outside), mask.filter(inside)))
    return picture


def _heap(ground: Colour, rng: random.Random) -> Image.Image:
    """Two to four shapes over or inside each other."""
    picture = Image.new("RGB", (SIDE, SIDE), ground)
    r = rng.uniform(0.6, 0.8)
    for _ in range(rng.randint(2, 4)):
        place = (rng.uniform(-0.25, 0.25), rng.uniform(-0.25, 0.25))
        mask = world.shape_mask(rng.choice(SHAPES), place, r, rng.uniform(-0.3, 0.3), SIDE)
        picture.paste(palette_colour(rng), (0, 0), mask)
        r *= rng.uniform(0.45, 0.75)
    return picture.reduce(SUPERSAMPLE)
