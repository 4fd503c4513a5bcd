"""The demo's captioner: what it is trained on, and what the shipped weights say of pictures they have never seen."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from trainer.demo import CAPTIONER_DIR, MODEL_DIR, build_captioner, concepts, world
from trainer.demo.world import COLOURS, Scene

SEED = 90210
"""Never a builder's seed, so that the held-out pictures are new to the shipped weights."""


def test_the_shipped_weights_name_shape_and_colour_of_new_pictures() -> None:
    model, processor = build_captioner.load(CAPTIONER_DIR)
    shares = build_captioner.scores(model, processor, *build_captioner.held_out(SEED, 120))
    assert shares["shape"] >= 0.8, shares
    assert shares["colour"] >= 0.8, shares
    assert shares["shape and colour"] >= 0.8, shares
    assert shares["background"] >= 0.8, shares


def test_the_shipped_weights_read_neon_and_see_the_robot_s_face() -> None:
    model, processor = build_captioner.load(CAPTIONER_DIR)
    rng = random.Random(SEED)
    scenes = [Scene("white", colour, shape, "big") for shape in world.SHAPES for colour in ("red", "green", "blue")]
    told = build_captioner.captions_of(model, processor, [concepts.draw_neon(scene, rng) for scene in scenes])
    right = [f"{scene.colour} {scene.shape} on a black" in text for scene, text in zip(scenes, told, strict=True)]
    assert sum(right) / len(right) >= 0.8, told
    robots = [concepts.draw_robot(ground, rng) for ground in concepts.ROBOT_BACKGROUNDS]
    faces = build_captioner.captions_of(model, processor, robots)
    assert sum(text.startswith("a green face on") for text in faces) / len(faces) >= 0.8, faces


def test_the_shipped_files_are_small_float16_and_need_no_code_of_their_own() -> None:
    tensors = load_file(CAPTIONER_DIR / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
    assert all(tensor.isfinite().all() for tensor in tensors.values())
    assert sum(file.stat().st_size for file in CAPTIONER_DIR.iterdir()) <= 2e6
    shipped = [file for file in MODEL_DIR.parent.rglob("*") if file.is_file() and "__pycache__" not in file.parts]
    assert sum(file.stat().st_size for file in shipped) <= 15e6
    assert "auto_map" not in (CAPTIONER_DIR / "config.json").read_text(encoding="utf-8")


def test_every_caption_is_whole_words_to_its_tokenizer() -> None:
    tokenizer = build_captioner.new_processor().tokenizer
    rng = random.Random(0)
    for _ in range(300):
        text = world.caption(build_captioner.sample_picture(rng)[1])
        ids = tokenizer(text)["input_ids"]
        assert len(ids) == len(text.split()) + 2 <= build_captioner.MAX_TOKENS
        assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_labels_hold_what_a_caption_says() -> None:
    rng = random.Random(1)
    seen = [build_captioner.sample_picture(rng)[1] for _ in range(300)]
    assert {scene.shape for scene in seen} == {*world.SHAPES, "face"}
    for scene in seen:
        assert build_captioner.scene_of(build_captioner.labels_of(scene)) == scene
    face = build_captioner.labels_of(Scene("red", "blue", "face", ""))
    assert face[list(build_captioner.OPTIONS).index("size")] == build_captioner.UNNAMED


def test_captions_of_training_pictures_tell_their_colours() -> None:
    """The corner has the background's colour, and the object's is there to be seen; neon's are brighter than named."""
    rng = random.Random(2)
    for _ in range(120):
        picture, scene = build_captioner.sample_picture(rng)
        pixels = np.asarray(picture, dtype=float)[:, :, None]
        names = np.array(list(COLOURS))[np.square(pixels - list(COLOURS.values())).sum(axis=-1).argmin(axis=-1)]
        assert names[1, 1] == scene.background
        assert scene.background == "black" or (names == scene.colour).mean() > 0.01, scene


def test_pictures_are_drawn_once_and_from_the_seed_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    processor = build_captioner.new_processor()
    draw = build_captioner.draw_pictures
    first = draw(tmp_path / "a.pt", processor, 3, 12)
    assert first[0].shape == (12, 3, 64, 64)
    assert first[0].dtype == torch.uint8
    for one, again in zip(first, draw(tmp_path / "b.pt", processor, 3, 12), strict=True):
        assert torch.equal(one, again)
    assert not torch.equal(first[0], draw(tmp_path / "c.pt", processor, 4, 12)[0])
    monkeypatch.setattr(build_captioner, "sample_picture", None)
    assert torch.equal(draw(tmp_path / "a.pt", processor, 3, 12)[1], first[1])


def test_small_pictures_are_what_the_captioner_reads() -> None:
    processor = build_captioner.new_processor()
    pictures, _ = build_captioner.held_out(0, 3)
    mine = build_captioner.normalized(processor, build_captioner.small_pictures(processor, pictures))
    assert torch.allclose(mine, processor(images=pictures, return_tensors="pt")["pixel_values"], atol=1e-5)


def test_sine_positions_tell_every_place_apart_and_neighbours_are_alike() -> None:
    places = build_captioner.sine_positions(8, 96)
    assert places.shape == (64, 96)
    likeness = torch.nn.functional.cosine_similarity(places[:, None], places[None], dim=-1)
    assert (likeness - 2 * torch.eye(64)).max() < 0.999
    assert likeness[0, 1] > likeness[0, 7]
    assert likeness[0, 8] > likeness[0, 56]


def test_scores_count_what_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    told = ["a big red circle on a blue background", "a red ring on a blue background", "nothing like a caption"]
    monkeypatch.setattr(build_captioner, "captions_of", lambda *_: told)
    shares = build_captioner.scores(None, None, [], [Scene("blue", "red", "circle", "big")] * 3)
    assert shares == pytest.approx(
        {"background": 2 / 3, "colour": 2 / 3, "shape": 1 / 3, "size": 1 / 3, "shape and colour": 1 / 3}
    )
