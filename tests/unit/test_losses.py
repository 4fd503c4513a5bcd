"""Losses and weights against tables worked out by hand, and against diffusers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_snr

from trainer import config
from trainer.config import LossSettings
from trainer.errors import UserError
from trainer.losses import (
    _ELEMENTS,
    _THRESHOLDS,
    check_prediction_type,
    huber_thresholds,
    loss_per_picture,
    noise_level_weights,
)
from trainer.noise import signal_to_noise

# difference 0.3 and -0.4, c = 0.1: sqrt(0.09 + 0.01) = 0.316228, sqrt(0.16 + 0.01) = 0.412311
BY_HAND = {
    "l2": (0.09 + 0.16) / 2,
    "l1": (0.3 + 0.4) / 2,
    "huber": 2 * 0.1 * ((0.316228 - 0.1) + (0.412311 - 0.1)) / 2,
    "smooth_l1": 2 * ((0.316228 - 0.1) + (0.412311 - 0.1)) / 2,
}


def test_every_name_has_a_loss() -> None:
    assert tuple(_ELEMENTS) == config.options(config.LossType)
    assert tuple(_THRESHOLDS) == config.options(config.HuberSchedule)


# c = 0.1, a_t = 0.8 (sigma 1/2), 0.2 (sigma 2) and 0 (sigma infinite) at t = 0, 500, 999 of 1000
SCHEDULES = {
    "constant": [0.1, 0.1, 0.1],
    "exponential": [1.0, 0.1**0.5, 0.1**0.999],
    "snr": [0.9 / 1.5**2 + 0.1, 0.9 / 9 + 0.1, 0.1],
}


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_huber_thresholds_by_hand(schedule) -> None:
    alphas = torch.full((1000,), 0.2)
    alphas[0], alphas[999] = 0.8, 0.0
    settings = LossSettings(type="huber", huber_c=0.1, huber_schedule=schedule)
    thresholds = huber_thresholds(settings, alphas, torch.tensor([0, 500, 999]))
    assert thresholds.tolist() == pytest.approx(SCHEDULES[schedule], rel=1e-6)


@pytest.mark.parametrize(
    ("schedule", "expected"), [("constant", 0.3), ("exponential", 0.5477225575), ("snr", 0.3777778)]
)
def test_a_threshold_other_than_the_default(schedule: Any, expected: float) -> None:
    """0.3; 0.3 ** 0.5; and 0.7 / (1 + sigma)^2 + 0.3 with sigma = sqrt(0.8 / 0.2) = 2."""
    settings = LossSettings(type="huber", huber_c=0.3, huber_schedule=schedule)
    thresholds = huber_thresholds(settings, torch.full((1000,), 0.2), torch.tensor([500]))
    assert thresholds.tolist() == pytest.approx([expected], rel=1e-6)


def test_what_only_v_prediction_knows_is_refused_for_noise_prediction() -> None:
    settings = LossSettings(scale_v_pred_loss_like_noise_pred=True)
    check_prediction_type(settings, "v_prediction")
    with pytest.raises(UserError, match="v-prediction") as caught:
        check_prediction_type(settings, "epsilon")
    assert caught.value.problems[0].field == "loss.scale_v_pred_loss_like_noise_pred"


@pytest.mark.parametrize("kind", BY_HAND)
def test_losses_by_hand(kind) -> None:
    prediction = torch.tensor([1.3, 0.0]).view(1, 1, 1, 2)
    target = torch.tensor([1.0, 0.4]).view(1, 1, 1, 2)
    both = torch.cat([prediction, target]), torch.cat([target, target])
    losses = loss_per_picture(*both, kind, torch.tensor([0.1, 0.1]))
    assert losses.shape == (2,) and losses[1] == 0
    assert float(losses[0]) == pytest.approx(BY_HAND[kind], rel=1e-5)


def test_losses_are_float32_also_for_half_precision_predictions() -> None:
    prediction = torch.full((1, 4, 8, 8), 3e4, dtype=torch.float16)
    loss = loss_per_picture(prediction, torch.zeros(1, 4, 8, 8), "l2", torch.tensor([0.1]))
    assert loss.dtype == torch.float32 and float(loss) == pytest.approx(9e8, rel=1e-3)


def masked_by_hand(errors: list[list[float]], mask: list[float], rest: float) -> float:
    """One picture's channels x cells, in float64: what a cell counts, over what all of them count."""
    weights = [rest + (1 - rest) * share for share in mask]
    total = sum(weight * error for channel in errors for weight, error in zip(weights, channel, strict=True))
    return total / (len(errors) * sum(weights))


@pytest.mark.parametrize("rest", [0.0, 0.1, 1.0])
def test_masked_loss_by_hand(rest: float) -> None:
    generator = torch.Generator().manual_seed(3)
    prediction, target = (torch.randn(3, 4, 2, 3, generator=generator) for _ in range(2))
    masks = torch.tensor([[0, 1, 0.25, 0, 0, 1], [1] * 6, [0, 0, 0, 0, 0, 1e-3]], dtype=torch.float32)
    found = loss_per_picture(prediction, target, "l2", torch.ones(3), masks.view(3, 1, 2, 3), rest)
    errors = (prediction.double() - target.double()).square().flatten(2).tolist()
    shares = masks.double().tolist()
    expected = [masked_by_hand(*each, rest) for each in zip(errors, shares, strict=True)]
    assert found.tolist() == pytest.approx(expected, rel=1e-6)
    plain = loss_per_picture(prediction, target, "l2", torch.ones(3))
    assert float(found[1]) == pytest.approx(float(plain[1]), rel=1e-6)
    assert (rest == 1) == torch.allclose(found, plain)


def test_outside_of_the_mask_there_is_no_gradient() -> None:
    prediction = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(1), requires_grad=True)
    masks = torch.zeros(2, 1, 4, 4)
    masks[0, :, :2, 1:] = 1  # the second picture's mask shows nothing
    losses = loss_per_picture(prediction, torch.zeros(2, 4, 4, 4), "huber", torch.full((2,), 0.1), masks)
    losses.sum().backward()
    assert prediction.grad is not None and float(losses[1].detach()) == 0
    inside = masks.expand(-1, 4, -1, -1) > 0
    assert (prediction.grad[inside] != 0).all() and (prediction.grad[~inside] == 0).all()


# snr = 0.25, 5, 100 with gamma 5
WEIGHTS = [
    ("epsilon", {"min_snr_gamma": 5.0}, [1.0, 1.0, 0.05]),
    ("v_prediction", {"min_snr_gamma": 5.0}, [0.25 / 1.25, 5 / 6, 5 / 101]),
    ("epsilon", {"debiased_estimation": True}, [2.0, 1 / math.sqrt(5), 0.1]),
    ("v_prediction", {"debiased_estimation": True}, [0.8, 1 / 6, 1 / 101]),
    ("v_prediction", {"scale_v_pred_loss_like_noise_pred": True}, [0.2, 5 / 6, 100 / 101]),
    ("epsilon", {}, [1.0, 1.0, 1.0]),
]


@pytest.mark.parametrize(("prediction_type", "settings", "expected"), WEIGHTS)
def test_noise_level_weights_by_hand(prediction_type: str, settings: dict, expected: list[float]) -> None:
    weights = noise_level_weights(torch.tensor([0.25, 5.0, 100.0]), prediction_type, LossSettings(**settings))
    torch.testing.assert_close(weights, torch.tensor(expected))


def test_debiased_weights_are_bounded_for_almost_clean_pictures() -> None:
    weights = noise_level_weights(torch.tensor([1e6]), "epsilon", LossSettings(debiased_estimation=True))
    assert float(weights) == pytest.approx(1 / math.sqrt(1000))


def test_snr_is_diffusers_snr() -> None:
    scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    timesteps = torch.tensor([0, 1, 500, 999])
    torch.testing.assert_close(
        signal_to_noise(scheduler.alphas_cumprod, timesteps), compute_snr(scheduler, timesteps), rtol=1e-4, atol=0
    )
