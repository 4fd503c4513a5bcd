"""A batch's whole loss, in every combination of settings that is allowed, against float64 in numpy to 1e-6."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from trainer.conditioning import ready_made
from trainer.config import Config, LossSettings
from trainer.data.training_set import Batch
from trainer.devices import seeded_generator
from trainer.families.base import Conditioning
from trainer.recipe import Ingredients, batch_inputs, batch_losses

SEED, INDEX, PICTURES = 3, 5, 3
BETAS = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
ALPHAS = np.cumprod(1 - BETAS).astype(np.float32)
LATENTS = torch.randn(PICTURES, 4, 8, 8, generator=torch.Generator().manual_seed(1)) + 0.5
LOSS_WEIGHTS = [1.0, 0.25, 1.0]  # the second is a regularization picture

ELEMENTS: list[dict[str, Any]] = [{"type": "l2"}, {"type": "l1"}] + [
    {"type": kind, "huber_schedule": schedule, "huber_c": 0.15}
    for kind, schedule in itertools.product(["huber", "smooth_l1"], ["constant", "exponential", "snr"])
]
WEIGHTINGS: list[dict[str, Any]] = [
    {},
    {"min_snr_gamma": 5.0},
    {"debiased_estimation": True},
    {"scale_v_pred_loss_like_noise_pred": True},
]
OFFSETS: list[dict[str, Any]] = [
    {},
    {"noise_offset": 0.1},
    {"noise_offset": 0.1, "noise_offset_random_strength": True},
    {"noise_offset": 0.1, "adaptive_noise_scale": 0.05},
    {"noise_offset": 0.1, "noise_offset_random_strength": True, "adaptive_noise_scale": -0.1},
]
PYRAMIDS: list[dict[str, Any]] = [{}, {"multires_noise": {"iterations": 4, "discount": 0.4}}]
PERTURBATIONS: list[dict[str, Any]] = [{}, {"input_perturbation": 0.1}]
SAMPLINGS: list[dict[str, Any]] = [
    {},
    {"timestep_sampling": "logit_normal", "logit_mean": 0.3, "logit_std": 1.2},
    {"timestep_sampling": "mode", "mode_scale": 0.9},
    {"min_timestep": 100, "max_timestep": 400},
]


def ours(prediction_type: str, settings: LossSettings) -> float:
    def predict(noisy: torch.Tensor, timesteps: torch.Tensor, condition: Conditioning, sizes: torch.Tensor) -> Any:
        return 0.3 * noisy + (timesteps / 1000).view(-1, 1, 1, 1)

    alphas = torch.from_numpy(ALPHAS)
    family: Any = SimpleNamespace(prediction_type=prediction_type, alphas_cumprod=alphas, predict=predict)
    config = Config(loss=settings)
    config.train.seed = SEED
    encode = ready_made(lambda captions: Conditioning(torch.zeros(len(captions), 1, 1), {}))
    ingredients = Ingredients(config, family, encode, torch.device("cpu"), torch.float32, alphas)
    batch = Batch(
        latents=LATENTS,
        captions=["a"] * PICTURES,
        loss_weights=torch.tensor(LOSS_WEIGHTS),
        paths=[],
        sizes=torch.zeros(PICTURES, 6),
    )
    return float(sum(batch_losses(ingredients, batch_inputs(ingredients, batch, INDEX))))


def drawn(purpose: str) -> torch.Generator:
    return seeded_generator(SEED, INDEX, purpose)


def reference_noise(settings: LossSettings) -> np.ndarray:
    generator = drawn("noise")
    noise = torch.randn(LATENTS.shape, generator=generator).double()
    if settings.noise_offset:
        strength = torch.full((PICTURES, 1, 1, 1), settings.noise_offset, dtype=torch.float64)
        if settings.noise_offset_random_strength:
            strength = strength * torch.rand(PICTURES, 1, 1, 1, generator=generator).double()
        strength = strength + settings.adaptive_noise_scale * LATENTS.double().mean((2, 3), keepdim=True).abs()
        noise = noise + strength.clamp(min=0) * torch.randn(PICTURES, 4, 1, 1, generator=generator).double()
    if settings.multires_noise:
        height = width = 8
        for level in range(settings.multires_noise.iterations):
            shrink = (2 + 2 * float(torch.rand((), generator=generator))) ** level
            height, width = max(1, int(height / shrink)), max(1, int(width / shrink))
            low = torch.randn(PICTURES, 4, height, width, generator=generator).double()
            noise = noise + settings.multires_noise.discount**level * F.interpolate(low, size=(8, 8), mode="bilinear")
            if 1 in (height, width):
                break
        noise = noise / noise.std()
    return noise.numpy()


def reference_timesteps(settings: LossSettings) -> np.ndarray:
    generator, width = drawn("timesteps"), settings.max_timestep - settings.min_timestep
    if settings.timestep_sampling == "uniform":
        low, high = settings.min_timestep, settings.max_timestep
        return torch.randint(low, high, (PICTURES,), generator=generator).numpy()
    if settings.timestep_sampling == "logit_normal":
        normal = torch.randn(PICTURES, generator=generator).double().numpy()
        share = 1 / (1 + np.exp(-(settings.logit_mean + settings.logit_std * normal)))
    else:
        u = torch.rand(PICTURES, generator=generator).double().numpy()
        share = 1 - u - settings.mode_scale * (np.cos(math.pi * u / 2) ** 2 - 1 + u)
    return settings.min_timestep + np.floor(share * width).astype(int)


def reference(prediction_type: str, settings: LossSettings) -> float:
    x, noise, t = LATENTS.double().numpy(), reference_noise(settings), reference_timesteps(settings)
    a = ALPHAS.astype(np.float64)[t]
    signal, spread = np.sqrt(a).reshape(-1, 1, 1, 1), np.sqrt(1 - a).reshape(-1, 1, 1, 1)
    extra = torch.randn(LATENTS.shape, generator=drawn("perturbation")).double().numpy()
    noisy = signal * x + spread * (noise + settings.input_perturbation * extra)
    target = noise if prediction_type == "epsilon" else signal * noise - spread * x
    d = 0.3 * noisy + (t / 1000).reshape(-1, 1, 1, 1) - target

    c = {
        "constant": np.full(PICTURES, settings.huber_c),
        "exponential": np.exp(np.log(settings.huber_c) * t / 1000),
        "snr": (1 - settings.huber_c) / (1 + np.sqrt((1 - a) / a)) ** 2 + settings.huber_c,
    }[settings.huber_schedule].reshape(-1, 1, 1, 1)
    elements = {
        "l2": d * d,
        "l1": np.abs(d),
        "huber": 2 * c * (np.sqrt(d * d + c * c) - c),
        "smooth_l1": 2 * (np.sqrt(d * d + c * c) - c),
    }[settings.type]

    snr, is_noise = a / (1 - a), prediction_type == "epsilon"
    weights = np.ones(PICTURES)
    if settings.min_snr_gamma is not None:
        weights = np.minimum(snr, settings.min_snr_gamma) / (snr if is_noise else snr + 1)
    if settings.debiased_estimation:
        weights = 1 / np.sqrt(np.minimum(snr, 1000)) if is_noise else 1 / (snr + 1)
    if settings.scale_v_pred_loss_like_noise_pred:
        weights = np.minimum(snr, 1000) / (np.minimum(snr, 1000) + 1)
    return float((elements.mean((1, 2, 3)) * weights * np.array(LOSS_WEIGHTS)).mean())


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("weighting", WEIGHTINGS, ids=str)
def test_every_loss_with_every_weighting(prediction_type: str, weighting: dict[str, Any]) -> None:
    if prediction_type == "epsilon" and "scale_v_pred_loss_like_noise_pred" in weighting:
        return  # refused: see test_losses.py
    seen = set()
    for elements in ELEMENTS:
        settings = LossSettings(**elements, **weighting)
        loss = ours(prediction_type, settings)
        assert loss == pytest.approx(reference(prediction_type, settings), rel=1e-6), settings
        seen.add(round(loss, 9))
    assert len(seen) == len(ELEMENTS), "each is another loss"


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("offset", OFFSETS, ids=str)
def test_every_noise_at_every_sampling(prediction_type: str, offset: dict[str, Any]) -> None:
    seen = set()
    for pyramid, perturbation, sampling in itertools.product(PYRAMIDS, PERTURBATIONS, SAMPLINGS):
        settings = LossSettings(**offset, **pyramid, **perturbation, **sampling)
        loss = ours(prediction_type, settings)
        assert loss == pytest.approx(reference(prediction_type, settings), rel=1e-6), settings
        seen.add(round(loss, 9))
    assert len(seen) == len(PYRAMIDS) * len(PERTURBATIONS) * len(SAMPLINGS), "each is another loss"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_snr_gamma": 5, "debiased_estimation": True}, "set only one"),
        ({"min_snr_gamma": 5, "scale_v_pred_loss_like_noise_pred": True}, "set only one"),
        ({"huber_schedule": "snr"}, "needs type huber"),
        ({"noise_offset_random_strength": True}, "change noise_offset"),
        ({"adaptive_noise_scale": 0.1}, "change noise_offset"),
        ({"logit_std": 2}, "needs? timestep_sampling logit_normal"),
        ({"timestep_sampling": "logit_normal", "mode_scale": 0.5}, "needs timestep_sampling mode"),
        ({"min_timestep": 9, "max_timestep": 9, "huber_schedule": "snr"}, "must be below.*needs type huber"),
    ],
)
def test_settings_that_have_no_effect_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        LossSettings(**settings)
