"""The picture before it is done: whatever the sampler, it is already about what the last step gives."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from tests.tiny_models import tiny_model
from trainer.denoising import Step
from trainer.devices import seeded_generator
from trainer.drawing import Progress
from trainer.families.latent_colours import fit_colours, with_constant
from trainer.generate import Painter
from trainer.live_picture import denoised, live_picture, save_live_picture
from trainer.pictures import PictureSettings

CPU = torch.device("cpu")
STAR = PictureSettings(prompt="a red star on a blue background", steps=6, guidance=4.0, seed=7, width=96, height=64)


@pytest.fixture(scope="module")
def painter() -> Painter:
    return Painter("demo", CPU)


@pytest.fixture(scope="module")
def tiny_sdxl(tmp_path_factory: pytest.TempPathFactory) -> Painter:
    return Painter(str(tiny_model("sdxl", tmp_path_factory.mktemp("sdxl"))), CPU)


def shown(painter: Painter, settings: PictureSettings) -> tuple[Image.Image, list[Image.Image]]:
    """The picture, and what was shown of it after each step."""
    seen: list[Image.Image] = []

    def show(progress: Progress) -> None:
        seen.append(live_picture(painter.family, progress.step, settings.guidance))

    return painter.draw(settings, settings.seed, show), seen


def distance(one: Image.Image, other: Image.Image) -> float:
    """Mean difference of the pictures' coarse colours, of 255."""
    cells = [np.asarray(image.resize((12, 8), Image.Resampling.BOX), dtype=float) for image in (one, other)]
    return float(np.abs(cells[0] - cells[1]).mean())


@pytest.mark.parametrize(
    "changes", [{"sampler": "dpmpp_2m"}, {"sampler": "euler_a"}, {"sampler": "heun"}, {"guidance": 1.0}]
)
def test_it_is_nearly_the_picture_halfway(painter: Painter, changes: dict[str, object]) -> None:
    picture, seen = shown(painter, STAR.model_copy(update=changes))
    grey = Image.new("RGB", picture.size, (128, 128, 128))
    assert {image.size for image in seen} == {picture.size}
    assert distance(seen[-1], picture) < 15 < distance(grey, picture)
    assert distance(seen[len(seen) // 2], picture) < 25


def test_it_changes_nothing_of_the_picture(painter: Painter) -> None:
    picture, _ = shown(painter, STAR)
    assert np.array_equal(np.asarray(picture), np.asarray(painter.draw(STAR, STAR.seed)))


def test_it_costs_next_to_nothing(painter: Painter, tmp_path: Path) -> None:
    """It is made twice a second at most; here after every step, of the smallest model there is."""
    spent = 0.0

    def save(progress: Progress) -> None:
        nonlocal spent
        begun = time.thread_time()
        save_live_picture(tmp_path / "live.jpg", painter.family, progress.step, native.guidance)
        spent += time.thread_time() - begun

    painter.family.rough_pixels(torch.zeros(1, 4, 2, 2))  # the map is fitted once a model
    native = STAR.model_copy(update={"width": None, "height": None, "steps": 10})
    begun = time.thread_time()
    painter.draw(native, native.seed, save)
    assert spent < 0.1 * (time.thread_time() - begun - spent)
    assert Image.open(tmp_path / "live.jpg").size == (128, 128)


def test_the_noise_goes_out_exactly(painter: Painter, tiny_sdxl: Painter) -> None:
    """By the definitions of noise and velocity, with guidance between the two halves of the batch."""
    for family, velocity in ((painter.family, True), (tiny_sdxl.family, False)):
        clean, noise = (torch.randn(1, 4, 2, 3, generator=seeded_generator(i)) for i in (1, 2))
        a = float(family.alphas_cumprod[400])
        noisy = a**0.5 * clean + (1 - a) ** 0.5 * noise
        output = a**0.5 * noise - (1 - a) ** 0.5 * clean if velocity else noise
        assert (family.prediction_type == "v_prediction") == velocity
        found = denoised(family, noisy, torch.tensor(400.2), output, guidance=1.0)
        assert torch.allclose(found, clean, atol=1e-5)
        halves = torch.cat([output + 0.3, output + 0.1])  # 0.3 + 1.5 * (0.1 - 0.3) = 0
        found = denoised(family, torch.cat([noisy, noisy]), torch.tensor([400, 400]), halves, guidance=1.5)
        assert torch.allclose(found, clean, atol=1e-5)


def test_sdxl_and_several_at_once_are_shown_too(tiny_sdxl: Painter) -> None:
    picture, seen = shown(tiny_sdxl, STAR.model_copy(update={"steps": 2}))
    assert [image.size for image in seen] == [picture.size] * 2
    three = torch.zeros(3, 4, 4, 2)
    row = live_picture(tiny_sdxl.family, Step(three, three, torch.tensor(5), three), 1.0)
    assert row.size == (2 * 3 * tiny_sdxl.family.latent_scale, 4 * tiny_sdxl.family.latent_scale)


def test_the_colours_of_latents_are_those_of_the_decoder(painter: Painter) -> None:
    """Against what the VAE's decoder makes of a picture's latents, a cell's pixels averaged."""
    family = painter.family
    pixels = torch.rand(1, 3, 4, 4, generator=seeded_generator(5)).repeat_interleave(16, 2).repeat_interleave(16, 3)
    latents = family.encode_pixels(pixels * 2 - 1)
    decoded = functional.avg_pool2d(family.decode_latents(latents), family.latent_scale)
    assert (family.rough_pixels(latents) - decoded).abs().mean() < 0.1


def test_a_linear_encoder_is_inverted_exactly() -> None:
    mixing = torch.randn(4, 3, generator=seeded_generator(9))

    def encode(pixels: torch.Tensor) -> torch.Tensor:
        return torch.einsum("bchw,kc->bkhw", functional.avg_pool2d(pixels, 8), mixing) + 0.25

    pixels = torch.rand(1, 3, 16, 16, generator=seeded_generator(10))
    back = torch.einsum("bchw,ck->bkhw", with_constant(encode(pixels)), fit_colours(encode, 8))
    assert torch.allclose(back, functional.avg_pool2d(pixels, 8), atol=1e-4)
