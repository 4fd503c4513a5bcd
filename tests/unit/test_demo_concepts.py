"""The two concepts: their data sets, and detectors that fire on them and on nothing else."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image

from trainer.demo import MODEL_DIR, concepts, world
from trainer.demo.build_vae import to_tensor
from trainer.demo.concepts import CONCEPTS, Concept

EACH_CONCEPT = pytest.mark.parametrize("concept", CONCEPTS.values(), ids=list(CONCEPTS))


@pytest.fixture(scope="module")
def vae() -> AutoencoderKL:
    return AutoencoderKL.from_pretrained(MODEL_DIR / "vae", torch_dtype=torch.float32)


@torch.no_grad()
def through(vae: AutoencoderKL, pictures: list[Image.Image]) -> list[Image.Image]:
    tensor = to_tensor(np.stack([np.asarray(picture) for picture in pictures]))
    back = vae.decode(vae.encode(tensor).latent_dist.mode()).sample.clamp(-1, 1)
    pixels = back.add(1).mul(127.5).round().byte().permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(array) for array in pixels]


def hit_rate(concept: Concept, pictures: list[Image.Image]) -> float:
    return sum(map(concept.shows, pictures)) / len(pictures)


@EACH_CONCEPT
def test_detector_fires_on_the_concept_through_the_vae(concept: Concept, vae: AutoencoderKL) -> None:
    rng = random.Random(11)
    pictures = [concept.sample(rng)[0] for _ in range(60)]
    assert hit_rate(concept, pictures) >= 0.95
    assert hit_rate(concept, through(vae, pictures)) >= 0.95


@EACH_CONCEPT
def test_detector_is_silent_on_the_world_and_on_the_other_concept(concept: Concept, vae: AutoencoderKL) -> None:
    rng = random.Random(12)
    plain = [world.draw(world.sample_scene(rng), rng) for _ in range(120)]
    assert hit_rate(concept, plain) <= 0.05
    assert hit_rate(concept, through(vae, plain[:60])) <= 0.05
    (other,) = (candidate for candidate in CONCEPTS.values() if candidate is not concept)
    assert hit_rate(concept, [other.sample(rng)[0] for _ in range(30)]) == 0


@EACH_CONCEPT
def test_prompts(concept: Concept) -> None:
    assert len(concept.prompts) == len(concept.plain_prompts) == 32
    assert len(set(concept.prompts)) == len(set(concept.plain_prompts)) == 32
    assert all(concept.trigger in prompt for prompt in concept.prompts)
    assert not any("sks" in prompt for prompt in concept.plain_prompts)


@EACH_CONCEPT
def test_dataset_has_captioned_pictures_and_plain_ones(concept: Concept, tmp_path: Path) -> None:
    folders = concepts.make_dataset(concept, tmp_path, count=6, seed=3)
    pictures = sorted(folders.pictures.glob("*.png"))
    plain = sorted(folders.regularization.glob("*.png"))
    assert (len(pictures), len(plain)) == (6, 12)
    for path in (*pictures, *plain):
        caption = path.with_suffix(".txt").read_text(encoding="utf-8")
        assert (concept.trigger in caption) == (path in pictures)
        with Image.open(path) as picture:
            assert picture.size == (128, 128)
            assert concept.shows(picture) == (path in pictures)


def test_dataset_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    def contents(name: str, seed: int) -> list[bytes]:
        concepts.make_dataset(concepts.ROBOT, tmp_path / name, count=3, seed=seed)
        return [path.read_bytes() for path in sorted((tmp_path / name).rglob("*.*"))]

    assert contents("first", 1) == contents("again", 1)
    assert contents("first", 1) != contents("other", 2)


def test_world_and_concepts_load_no_torch() -> None:
    code = "import sys, trainer.demo.concepts; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
