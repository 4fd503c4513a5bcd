"""Samplers: one per name in the config, on the model's own schedule."""

from __future__ import annotations

import json

import pytest
import torch

from trainer.config import options
from trainer.demo import MODEL_DIR
from trainer.sampler_names import SAMPLER_NAMES, SCHEDULE_NAMES, NoiseSchedule, Sampler, read_sampler, schedules_of
from trainer.samplers import SAMPLERS, make_scheduler

BASE = json.loads((MODEL_DIR / "scheduler" / "scheduler_config.json").read_text())


PAIRS = [(sampler, schedule) for sampler in SAMPLERS for schedule in schedules_of(sampler)]
RANDOM = ("euler_a", "ddpm", "dpm2_a", "dpmpp_2m_sde", "dpmpp_3m_sde", "dpmpp_sde", "lcm", "tcd")


def test_every_name_has_a_sampler() -> None:
    assert tuple(SAMPLERS) == tuple(SAMPLER_NAMES) == options(Sampler)
    assert tuple(SCHEDULE_NAMES) == options(NoiseSchedule)


@pytest.mark.parametrize(("sampler", "schedule"), PAIRS)
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_samplers_keep_the_models_betas_and_end_at_a_perfect_prediction(
    sampler: Sampler, schedule: NoiseSchedule, prediction_type: str
) -> None:
    """A denoiser that always knows the picture must get that picture out of every sampler."""
    scheduler = make_scheduler(sampler, {**BASE, "prediction_type": prediction_type}, schedule)
    assert scheduler.config.prediction_type == prediction_type
    assert scheduler.config.beta_start == BASE["beta_start"] and scheduler.config.beta_schedule == "scaled_linear"
    assert _far_from_the_picture(scheduler, sampler, 20) < 0.2


def _far_from_the_picture(scheduler, sampler: Sampler, steps: int) -> float:
    """How far from a picture its perfect predictions lead."""
    generator = torch.Generator().manual_seed(0)
    picture = torch.randn(1, 4, 4, 4, generator=generator)
    scheduler.set_timesteps(steps)
    sample = torch.randn(1, 4, 4, 4, generator=generator) * scheduler.init_noise_sigma
    for timestep in scheduler.timesteps:
        scaled = scheduler.scale_model_input(sample, timestep)
        kept = _kept(scheduler, timestep)
        noise = (scaled - kept.sqrt() * picture) / (1 - kept).sqrt()
        velocity = kept.sqrt() * noise - (1 - kept).sqrt() * picture
        prediction = noise if scheduler.config.prediction_type == "epsilon" else velocity
        drawn = {"generator": generator} if sampler in RANDOM else {}
        sample = scheduler.step(prediction, timestep, sample, **drawn).prev_sample
    return float((sample - picture).abs().max())


def _kept(scheduler, timestep: torch.Tensor) -> torch.Tensor:
    """How much of the picture's variance is left: where a scheduler has levels between those trained on, by its own."""
    if getattr(scheduler, "sigmas", None) is None:
        return scheduler.alphas_cumprod[int(timestep)]
    sigma = scheduler.sigmas[scheduler.step_index or 0]
    return 1 / (1 + sigma**2) if scheduler.step_index is not None else scheduler.alphas_cumprod[int(timestep.round())]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_models_that_begin_at_pure_noise(sampler: Sampler) -> None:
    """Lin et al. 2023, 2305.08891: betas rescaled to no signal at the end, velocities, trailing steps."""
    pure = {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing"}
    scheduler = make_scheduler(sampler, {**BASE, **pure})
    assert scheduler.alphas_cumprod[-1] < 1e-6
    expected = make_scheduler("ddim", {**BASE, **pure}).alphas_cumprod
    assert torch.allclose(scheduler.alphas_cumprod[:-1], expected[:-1], atol=1e-5)
    assert _far_from_the_picture(scheduler, sampler, 20) < 0.2


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_each_schedule_is_another(sampler: Sampler) -> None:
    seen = []
    for schedule in schedules_of(sampler):
        scheduler = make_scheduler(sampler, {**BASE, "timestep_spacing": "leading"}, schedule)
        scheduler.set_timesteps(7)
        assert not any(torch.equal(scheduler.timesteps, other) for other in seen), schedule
        seen.append(scheduler.timesteps)


def test_karras_levels_are_those_of_the_paper() -> None:
    """Karras et al. 2022, 2206.00364, equation 5, with rho 7."""
    scheduler = make_scheduler("euler", {**BASE, "timestep_spacing": "linspace"}, "karras")
    scheduler.set_timesteps(10)
    kept = scheduler.alphas_cumprod.double()
    low, high = (((1 - kept) / kept) ** 0.5)[[0, -1]] ** (1 / 7)
    expected = (high + torch.linspace(0, 1, 10, dtype=torch.float64) * (low - high)) ** 7
    assert torch.allclose(scheduler.sigmas[:-1].double(), expected, rtol=1e-4)


@pytest.mark.parametrize("schedule", ["uniform", "karras", "exponential"])
def test_a_schedule_takes_the_place_of_the_models_own(schedule: NoiseSchedule) -> None:
    base = {**BASE, "use_beta_sigmas": True}
    assert make_scheduler("dpmpp_2m", base).config.use_beta_sigmas
    config = make_scheduler("dpmpp_2m", base, schedule).config
    assert [config.use_beta_sigmas, config.use_karras_sigmas, config.use_exponential_sigmas] == [
        False,
        schedule == "karras",
        schedule == "exponential",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("DPM++ 2M Karras", ("dpmpp_2m", "karras")),
        ("DPM++ 2M SDE Exponential", ("dpmpp_2m_sde", "exponential")),
        ("dpmpp-3m_sde", ("dpmpp_3m_sde", None)),
        (" Euler A ", ("euler_a", None)),
        ("euler_ancestral", ("euler_a", None)),
        ("k_dpm_2_a", ("dpm2_a", None)),
        ("euler_sgm_uniform", ("euler", "sgm_uniform")),
        ("DPM2 a Karras", ("dpm2_a", "karras")),
        ("uni_pc", ("unipc", None)),
        ("dpmpp_2m_karras", ("dpmpp_2m", "karras")),
        ("Restart", None),
        ("", None),
        ("karras", None),
    ],
)
def test_samplers_by_the_names_people_use(text: str, expected: tuple[str, str | None] | None) -> None:
    assert read_sampler(text) == expected
