"""Samplers: one per name in the config, on the model's own schedule."""

from __future__ import annotations

import json

import pytest
import torch

from trainer import config
from trainer.demo import MODEL_DIR
from trainer.samplers import SAMPLERS, make_scheduler

BASE = json.loads((MODEL_DIR / "scheduler" / "scheduler_config.json").read_text())


def test_every_name_has_a_sampler() -> None:
    assert tuple(SAMPLERS) == config.options(config.Sampler)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_samplers_keep_the_models_schedule_and_end_at_a_perfect_prediction(name, prediction_type: str) -> None:
    """A denoiser that always knows the picture must get that picture out of every sampler."""
    scheduler = make_scheduler(name, {**BASE, "prediction_type": prediction_type})
    assert scheduler.config.prediction_type == prediction_type
    assert scheduler.config.beta_start == BASE["beta_start"] and scheduler.config.beta_schedule == "scaled_linear"
    generator = torch.Generator().manual_seed(0)
    picture = torch.randn(1, 4, 4, 4, generator=generator)
    scheduler.set_timesteps(20)
    sample = torch.randn(1, 4, 4, 4, generator=generator) * scheduler.init_noise_sigma
    for timestep in scheduler.timesteps:
        scaled = scheduler.scale_model_input(sample, timestep)
        kept = scheduler.alphas_cumprod[int(timestep.round())]
        noise = (scaled - kept.sqrt() * picture) / (1 - kept).sqrt()
        velocity = kept.sqrt() * noise - (1 - kept).sqrt() * picture
        prediction = noise if prediction_type == "epsilon" else velocity
        options = {"generator": generator} if name in ("euler_a", "ddpm") else {}
        sample = scheduler.step(prediction, timestep, sample, **options).prev_sample
    assert (sample - picture).abs().max() < 0.2


def test_karras_differs() -> None:
    plain, karras = make_scheduler("dpmpp_2m", BASE), make_scheduler("dpmpp_2m_karras", BASE)
    plain.set_timesteps(10)
    karras.set_timesteps(10)
    assert not torch.equal(plain.timesteps, karras.timesteps)
