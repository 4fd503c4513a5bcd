"""The validation loss against a float64 computation by hand, and what it must not depend on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainer.config import Config, LossSettings
from trainer.data.training_set import Batch
from trainer.devices import seeded_generator
from trainer.families.base import Conditioning
from trainer.validation import timestep_bands, validation_loss

CPU = torch.device("cpu")


class HalfNoise(nn.Module):
    """Answers half of what it is shown; with dropout, unless it is in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.5)

    def forward(self, noisy: Tensor) -> Tensor:
        return self.dropout(noisy / 2)


class TinyFamily:
    """As much of a family as validation asks for."""

    prediction_type = "epsilon"

    def __init__(self) -> None:
        self.denoiser = HalfNoise()
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
        self.alphas_cumprod = (1 - betas).cumprod(0).float()

    def train(self, mode: bool) -> None:
        self.denoiser.train(mode)

    def predict(self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning, sizes: Tensor) -> Tensor:
        return self.denoiser(noisy)


def config_of(**sections: Any) -> Config:
    return Config.model_validate({"train": {"seed": 5}, **sections})


def batches_of(pictures: Tensor, size: int) -> list[Batch]:
    return [
        Batch(
            latents=part,
            captions=[""] * len(part),
            loss_weights=torch.ones(len(part)),
            sizes=torch.zeros(len(part), 6, dtype=torch.int64),
            paths=[Path("x.png")] * len(part),
        )
        for part in pictures.split(size)
    ]


def measured(config: Config, batches: list[Batch], family: TinyFamily | None = None) -> tuple[float, list[float]]:
    def encode(captions: list[str]) -> Conditioning:
        return Conditioning(torch.zeros(len(captions), 1, 1), {})

    loss = validation_loss(family or TinyFamily(), config, batches, encode, CPU)  # type: ignore[arg-type]
    return loss.total, loss.bands


PICTURES = torch.randn(3, 4, 6, 8, generator=torch.Generator().manual_seed(1))


def test_bands_share_the_trained_timesteps() -> None:
    bands = timestep_bands(LossSettings(), 4)
    assert [(band.low, band.high, band.timestep) for band in bands] == [
        (0, 250, 125),
        (250, 500, 375),
        (500, 750, 625),
        (750, 1000, 875),
    ]
    part = timestep_bands(LossSettings(min_timestep=100, max_timestep=300), 2)
    assert [(band.low, band.high, band.timestep) for band in part] == [(100, 200, 150), (200, 300, 250)]
    assert [band.timestep for band in timestep_bands(LossSettings(), 1)] == [500]


def test_the_loss_is_the_mean_squared_error_over_pictures_timesteps_and_noises() -> None:
    config = config_of(validation={"timesteps": 2, "noises": 3})
    total, bands = measured(config, batches_of(PICTURES, 2))
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    kept = (1 - betas).cumprod(0)
    expected = []
    for timestep in (250, 750):
        errors = []
        for place, picture in enumerate(PICTURES.double()):
            for number in range(3):
                noise = torch.randn(4, 6, 8, generator=seeded_generator(5, "validation", place, number)).double()
                noisy = kept[timestep].sqrt() * picture + (1 - kept[timestep]).sqrt() * noise
                errors.append(float(((noisy / 2 - noise) ** 2).mean()))
        expected.append(sum(errors) / len(errors))
    assert bands == pytest.approx(expected, rel=1e-6)
    assert total == pytest.approx(sum(expected) / 2, rel=1e-6)


def test_it_is_the_same_every_time_and_for_every_batch_size() -> None:
    config = config_of()
    first = measured(config, batches_of(PICTURES, 1))
    torch.manual_seed(3)
    assert measured(config, batches_of(PICTURES, 1)) == first
    assert measured(config, batches_of(PICTURES, 3))[1] == pytest.approx(first[1], rel=1e-6)
    assert measured(config_of(train={"seed": 6}), batches_of(PICTURES, 1)) != first


def test_what_is_trained_does_not_change_what_is_measured() -> None:
    """Other losses, weights and noises of training: runs stay comparable."""
    first = measured(config_of(), batches_of(PICTURES, 1))
    other = config_of(loss={"type": "l1", "min_snr_gamma": 5, "noise_offset": 0.1, "input_perturbation": 0.1})
    assert measured(other, batches_of(PICTURES, 1)) == first


def test_dropout_is_off_meanwhile_and_on_again_after() -> None:
    family = TinyFamily()
    family.denoiser.train()
    first = measured(config_of(), batches_of(PICTURES, 1), family)
    assert measured(config_of(), batches_of(PICTURES, 1), family) == first
    assert family.denoiser.training


@pytest.mark.parametrize("name", ["timesteps", "noises"])
def test_more_of_either_is_another_mean(name: str) -> None:
    few, many = (measured(config_of(validation={name: n}), batches_of(PICTURES, 1)) for n in (1, 5))
    assert few[0] != many[0] and len(many[1]) == (5 if name == "timesteps" else 4)


def test_with_masks_only_what_they_show_is_measured() -> None:
    masks = torch.zeros(3, 1, 6, 8)
    masks[:, :, 1:4, 2:5] = 1
    batches = [replace(batch, masks=part) for batch, part in zip(batches_of(PICTURES, 2), masks.split(2), strict=True)]
    total, _ = measured(config_of(), batches)
    plain, _ = measured(config_of(), batches_of(PICTURES, 2))
    assert total != pytest.approx(plain, rel=1e-3)
    whole = [replace(batch, masks=torch.ones(len(batch.paths), 1, 6, 8)) for batch in batches_of(PICTURES, 2)]
    assert measured(config_of(), whole)[0] == pytest.approx(plain, rel=1e-6)
    weighted = config_of(loss={"masked": "alpha", "unmasked_weight": 1})
    assert measured(weighted, batches)[0] == pytest.approx(plain, rel=1e-6)
