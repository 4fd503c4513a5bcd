"""Samplers and noise schedules by the names of ``sampler_names``, built on a model's own betas.

Which diffusers class is which of the samplers people know: diffusers' documentation, "Schedulers" (A1111 and
k-diffusion names beside class names and options).
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    DPMSolverSinglestepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    KDPM2AncestralDiscreteScheduler,
    KDPM2DiscreteScheduler,
    LCMScheduler,
    LMSDiscreteScheduler,
    PNDMScheduler,
    SchedulerMixin,
    TCDScheduler,
    UniPCMultistepScheduler,
)

from trainer.sampler_names import NoiseSchedule, Sampler

SAMPLERS: dict[Sampler, tuple[type[SchedulerMixin], dict[str, Any]]] = {
    "ddim": (DDIMScheduler, {}),
    "euler": (EulerDiscreteScheduler, {}),
    "euler_a": (EulerAncestralDiscreteScheduler, {}),
    "heun": (HeunDiscreteScheduler, {}),
    "dpm2": (KDPM2DiscreteScheduler, {}),
    "dpm2_a": (KDPM2AncestralDiscreteScheduler, {}),
    "lms": (LMSDiscreteScheduler, {}),
    "dpmpp_2m": (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++", "solver_order": 2}),
    "dpmpp_2m_sde": (DPMSolverMultistepScheduler, {"algorithm_type": "sde-dpmsolver++", "solver_order": 2}),
    "dpmpp_3m_sde": (DPMSolverMultistepScheduler, {"algorithm_type": "sde-dpmsolver++", "solver_order": 3}),
    "dpmpp_sde": (DPMSolverSinglestepScheduler, {"algorithm_type": "sde-dpmsolver++"}),
    "unipc": (UniPCMultistepScheduler, {}),
    "deis": (DEISMultistepScheduler, {}),
    "pndm": (PNDMScheduler, {"skip_prk_steps": True}),
    "ddpm": (DDPMScheduler, {}),
    "lcm": (LCMScheduler, {}),
    "tcd": (TCDScheduler, {}),
}

_SCHEDULES: dict[NoiseSchedule, dict[str, Any]] = {
    "model": {},
    "uniform": {"timestep_spacing": "linspace"},
    "sgm_uniform": {"timestep_spacing": "trailing"},
    "karras": {"use_karras_sigmas": True},
    "exponential": {"use_exponential_sigmas": True},
    "beta": {"use_beta_sigmas": True},
}
_NOISE_LEVELS = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")


def make_scheduler(
    sampler: Sampler, base_config: Mapping[str, Any], schedule: NoiseSchedule = "model"
) -> SchedulerMixin:
    """The diffusers scheduler of a sampler, with betas and prediction type of the model's own config.

    Args:
        base_config: the model's ``scheduler_config.json``.
        schedule: one of ``sampler_names.schedules_of(sampler)``; ``model`` spaces the steps as ``base_config`` says.
    """
    scheduler_class, options = SAMPLERS[sampler]
    if base_config.get("rescale_betas_zero_snr") and not _knows_pure_noise(scheduler_class):
        options = {**options, "trained_betas": _betas_to_pure_noise(base_config)}
    if schedule == "model":
        return scheduler_class.from_config(dict(base_config), **options)
    own = {name: False for name in _NOISE_LEVELS if base_config.get(name)}  # only one of them may be on
    return scheduler_class.from_config(dict(base_config), **{**options, **own, **_SCHEDULES[schedule]})


def _knows_pure_noise(scheduler_class: type[SchedulerMixin]) -> bool:
    return "rescale_betas_zero_snr" in inspect.signature(scheduler_class.__init__).parameters


def _betas_to_pure_noise(base_config: Mapping[str, Any]) -> list[float]:
    """The betas rescaled to a terminal signal of zero (Lin et al. 2023, 2305.08891, algorithm 1), for the schedulers
    of diffusers that cannot do it. As in those that can, the last step keeps a share of 2^-24: noise levels are finite.
    """
    kept = DDPMScheduler.from_config(dict(base_config)).alphas_cumprod.double()
    kept[-1] = 2**-24
    before = torch.cat([torch.ones(1, dtype=kept.dtype), kept[:-1]])
    return (1 - kept / before).tolist()
