"""Noise, noise levels and targets: against diffusers, float64 and statistics that would show a slip."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler
from torch import Tensor

from trainer import config
from trainer.config import LossSettings, Multires
from trainer.noise import (
    add_noise,
    draw_noise,
    draw_timesteps,
    offset_strengths,
    prediction_target,
    pyramid_noise,
    velocity,
)

SCHEDULER = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
TIMESTEPS = torch.tensor([0, 17, 500, 999])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=seeded(seed))


def test_adding_noise_and_velocity_are_diffusers_own() -> None:
    latents, noise = normal(1, 4, 4, 8, 8), normal(2, 4, 4, 8, 8)
    alphas = SCHEDULER.alphas_cumprod
    torch.testing.assert_close(
        add_noise(latents, noise, alphas, TIMESTEPS), SCHEDULER.add_noise(latents, noise, TIMESTEPS)
    )
    torch.testing.assert_close(
        velocity(latents, noise, alphas, TIMESTEPS), SCHEDULER.get_velocity(latents, noise, TIMESTEPS)
    )


def test_adding_noise_in_float64() -> None:
    latents, noise = normal(1, 4, 4, 8, 8).double(), normal(2, 4, 4, 8, 8).double()
    kept = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64)
    kept = (1 - kept**2).cumprod(0)[TIMESTEPS].view(-1, 1, 1, 1)
    ours = add_noise(latents.float(), noise.float(), SCHEDULER.alphas_cumprod, TIMESTEPS)
    torch.testing.assert_close(ours.double(), kept.sqrt() * latents + (1 - kept).sqrt() * noise, rtol=1e-4, atol=1e-5)


def test_the_target_is_what_the_model_predicts() -> None:
    latents, noise = normal(1, 4, 4, 8, 8), normal(2, 4, 4, 8, 8)
    arguments = (latents, noise, SCHEDULER.alphas_cumprod, TIMESTEPS)
    assert prediction_target("epsilon", *arguments) is noise
    assert torch.equal(prediction_target("v_prediction", *arguments), velocity(*arguments))
    with pytest.raises(ValueError, match="sample"):
        prediction_target("sample", *arguments)


def test_plain_noise_is_torchs_own() -> None:
    shape = torch.Size((2, 4, 8, 8))
    assert torch.equal(draw_noise(torch.zeros(shape), LossSettings(), seeded(3)), normal(3, *shape))


def test_offset_noise_shifts_whole_channels() -> None:
    shape = torch.Size((64, 4, 16, 16))
    shift = draw_noise(torch.zeros(shape), LossSettings(noise_offset=0.5), seeded(3)) - normal(3, *shape)
    per_channel = shift.mean((2, 3))
    torch.testing.assert_close(shift, per_channel[..., None, None].expand_as(shift), atol=1e-5, rtol=0)
    assert float(per_channel.std()) == pytest.approx(0.5, abs=0.07)


def test_an_adaptive_offset_follows_the_channels_level() -> None:
    """Channel means 0, 1, -2, 0.5: strengths 0.1 + 0.2 * |mean|; a negative scale ends at 0."""
    latents = torch.tensor([0.0, 1.0, -2.0, 0.5]).view(1, 4, 1, 1).expand(1, 4, 8, 8)
    settings = LossSettings(noise_offset=0.1, adaptive_noise_scale=0.2)
    assert offset_strengths(latents, settings, seeded()).flatten().tolist() == pytest.approx([0.1, 0.3, 0.5, 0.2])
    settings = LossSettings(noise_offset=0.1, adaptive_noise_scale=-0.1)
    assert offset_strengths(latents, settings, seeded()).flatten().tolist() == pytest.approx([0.1, 0, 0, 0.05])


def test_a_random_offset_is_drawn_for_each_picture() -> None:
    settings = LossSettings(noise_offset=0.2, noise_offset_random_strength=True)
    strengths = offset_strengths(torch.zeros(5000, 4, 1, 1), settings, seeded(2)).flatten()
    assert len(strengths.unique()) > 4900 and float(strengths.min()) >= 0 and float(strengths.max()) < 0.2
    assert float(strengths.mean()) == pytest.approx(0.1, abs=0.003)


def test_pyramid_noise_has_unit_variance_and_more_low_frequencies() -> None:
    plain = normal(4, 16, 4, 32, 32)
    pyramid = pyramid_noise(plain, Multires(iterations=6, discount=0.8), seeded(5))
    assert float(pyramid.std()) == pytest.approx(1.0, abs=1e-5)
    coarse = [noise.unfold(2, 8, 8).unfold(3, 8, 8).mean((-1, -2)).std() for noise in (plain, pyramid)]
    assert coarse[1] > 2 * coarse[0]


def test_a_pyramid_of_one_level_is_plain_noise() -> None:
    plain = normal(4, 8, 4, 32, 32)
    pyramid = pyramid_noise(plain, Multires(iterations=1, discount=0.5), seeded(5))
    drawn_inside = pyramid * (plain + 0).std() * 2**0.5 - plain  # two noises of equal strength, rescaled
    assert abs(float(drawn_inside.std()) - 1) < 0.05
    assert abs(float((drawn_inside * plain).mean())) < 0.05


def test_pyramids_end_at_a_single_cell() -> None:
    pyramid = pyramid_noise(normal(4, 1, 4, 4, 4), Multires(iterations=16, discount=0.9), seeded(5))
    assert torch.isfinite(pyramid).all()


@pytest.mark.parametrize("sampling", config.options(config.TimestepSampling))
def test_timesteps_keep_their_limits(sampling) -> None:
    settings = LossSettings(timestep_sampling=sampling, min_timestep=200, max_timestep=203)
    drawn = draw_timesteps(5000, settings, seeded(6))
    assert drawn.dtype == torch.int64
    assert set(drawn.tolist()) == {200, 201, 202}


def test_uniform_timesteps_are_uniform_and_logit_normal_ones_prefer_the_middle() -> None:
    uniform = draw_timesteps(20000, LossSettings(), seeded(7)).double()
    middle = draw_timesteps(20000, LossSettings(timestep_sampling="logit_normal"), seeded(7)).double()
    assert float(uniform.mean()) == pytest.approx(499.5, abs=8) and float(uniform.std()) == pytest.approx(288.7, abs=5)
    # sigmoid of a standard normal: mean 0.5, standard deviation 0.2083
    assert float(middle.mean()) == pytest.approx(499.5, abs=6) and float(middle.std()) == pytest.approx(208.3, abs=4)


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (-1.0, 0.5), (0.7, 2.0)])
def test_logit_normal_timesteps_have_their_quantiles(mean: float, std: float) -> None:
    """The share below sigmoid(m + s z) is the share of normal numbers below z."""
    settings = LossSettings(timestep_sampling="logit_normal", logit_mean=mean, logit_std=std)
    drawn = draw_timesteps(40000, settings, seeded(3)).double() / 1000
    for z, share in ((-1.0, 0.158655), (0.0, 0.5), (1.0, 0.841345)):
        limit = 1 / (1 + math.exp(-(mean + std * z)))
        assert float((drawn < limit).double().mean()) == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize("scale", [1.29, -0.8])
def test_mode_timesteps_have_their_quantiles(scale: float) -> None:
    """f(u) = 1 - u - s (cos^2(pi u / 2) - 1 + u) falls: the share below f(u) is 1 - u."""
    settings = LossSettings(timestep_sampling="mode", mode_scale=scale)
    drawn = draw_timesteps(40000, settings, seeded(4)).double() / 1000
    for u in (0.1, 0.25, 0.5, 0.8):
        limit = 1 - u - scale * (math.cos(math.pi * u / 2) ** 2 - 1 + u)
        assert float((drawn < limit).double().mean()) == pytest.approx(1 - u, abs=0.01)
    middle = float(((drawn > 0.4) & (drawn < 0.6)).double().mean())
    assert middle > 0.25 if scale > 0 else middle < 0.18


def test_every_draw_depends_on_its_generator_alone() -> None:
    settings = LossSettings(noise_offset=0.1, multires_noise=Multires(), timestep_sampling="logit_normal")
    shape = torch.Size((2, 4, 8, 8))
    torch.manual_seed(1)
    first = draw_noise(torch.zeros(shape), settings, seeded(8)), draw_timesteps(4, settings, seeded(9))
    torch.manual_seed(2)
    second = draw_noise(torch.zeros(shape), settings, seeded(8)), draw_timesteps(4, settings, seeded(9))
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])


def test_each_level_of_a_pyramid_is_smaller_than_the_latents_by_a_power_of_two_to_four(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """sd-scripts' ``pyramid_noise_like``: ``int(w / r ** i)`` of the latents' own width, r anew in each level."""
    plain = normal(4, 1, 4, 128, 96)
    sizes: list[tuple[int, ...]] = []
    draw = torch.randn

    def drawn(*size: int, **options: Any) -> torch.Tensor:
        sizes.append(size[2:])
        return draw(*size, **options)

    monkeypatch.setattr(torch, "randn", drawn)
    for seed in range(20):
        sizes.clear()
        pyramid_noise(plain, Multires(iterations=6, discount=0.3), seeded(seed))
        for level, size in enumerate(sizes):
            for now, whole in zip(size, (128, 96), strict=True):
                assert max(1, int(whole / 4**level)) <= now <= max(1, whole / 2**level)
        assert len(sizes) == 6 or 1 in sizes[-1]
