"""The demo's picture world: same seed same pixels, and captions that say what is drawn."""

from __future__ import annotations

import random

import numpy as np
import pytest

from trainer.demo import scoring, world
from trainer.demo.world import Scene


def test_the_same_seed_draws_the_same_pixels() -> None:
    scene = Scene("blue", "red", "star", "big")
    first, again, other = (np.asarray(world.draw(scene, random.Random(seed))) for seed in (4, 4, 5))
    assert first.shape == (128, 128, 3)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_caption_words() -> None:
    assert world.caption(Scene("orange", "red", "circle", "")) == "a red circle on an orange background"
    assert world.caption(Scene("blue", "orange", "moon", "")) == "an orange moon on a blue background"
    assert world.caption(Scene("blue", "gray", "cross", "small")) == "a small gray cross on a blue background"


def test_a_caption_is_read_back_as_its_scene() -> None:
    for seed in range(200):
        scene = world.sample_scene(random.Random(seed))
        assert world.scene_in(world.caption(scene)) == scene
    for other in (
        "",
        "a red circle",
        "a tiny red circle on a blue background",
        "a red circle on a blue background, sks",
    ):
        assert world.scene_in(other) is None


def test_scenes_are_visible_and_cover_every_option() -> None:
    scenes = [world.sample_scene(random.Random(seed)) for seed in range(600)]
    assert all(scene.colour != scene.background for scene in scenes)
    assert {scene.shape for scene in scenes} == set(world.SHAPES)
    assert {scene.size for scene in scenes} == set(world.SIZES)
    assert {scene.background for scene in scenes} == {scene.colour for scene in scenes} == set(world.COLOURS)


def test_a_training_caption_says_what_it_claims_to_say() -> None:
    rng = random.Random(0)
    for _ in range(500):
        scene = world.sample_scene(rng)
        caption = world.training_caption(scene, rng)
        words = caption.text.replace(",", "").split()
        assert ("background" in caption.says) == (f"{scene.background} background" in caption.text)
        assert ("shape" in caption.says) == (scene.shape in words)
        assert ("colour" in caption.says) == (f"{scene.colour} {scene.shape}" in caption.text)
        assert ("size" in caption.says) == ("shape" in caption.says)
        if scene.size and "size" in caption.says:
            assert scene.size in words


def test_shares_of_empty_captions_and_of_meaningless_words() -> None:
    rng = random.Random(1)
    captions = [world.training_caption(world.sample_scene(rng), rng).text for _ in range(4000)]
    known = {"a", "an", "on", "with", "of", "picture", "drawing", "image", "background"}
    known |= {*world.COLOURS, *world.SHAPES, *world.SIZES}
    strange = [text for text in captions if set(text.replace(",", "").split()) - known]
    assert captions.count("") / 4000 == pytest.approx(0.10, abs=0.02)
    assert len(strange) / 4000 == pytest.approx(0.9 * (0.2 + 0.8 * 0.05), abs=0.03)


def test_the_scorer_reads_real_pictures_right() -> None:
    rng = random.Random(7)
    scenes = [world.sample_scene(rng) for _ in range(300)]
    shares = scoring.score([world.draw(scene, rng) for scene in scenes], scenes)
    assert min(shares.values()) >= 0.97, shares


def test_the_scorer_sees_what_is_wrong() -> None:
    asked = Scene("blue", "red", "star", "big")
    drawn = Scene("blue", "green", "ring", "big")
    shares = scoring.score([world.draw(drawn, random.Random(0))], [asked])
    assert shares == {"background": 1.0, "colour": 0.0, "shape": 0.0, "size": 1.0, "all": 0.0}


def test_the_scorer_reads_nothing_in_an_empty_picture() -> None:
    empty = world.draw(Scene("blue", "red", "star", "small"), random.Random(0)).resize((1, 1)).resize((128, 128))
    assert scoring.read_scene(empty) is None


def test_an_unknown_outline_is_refused() -> None:
    with pytest.raises(ValueError, match="ring"):
        world.outline("ring")
