"""Samplers and noise schedules: our names, what people call them, and which go together. Never imports torch.

A sampler (``dpmpp_2m``) says how a step is taken, a schedule (``karras``) at which noise levels. Other programs write
both as one name: ``DPM++ 2M Karras`` (A1111 before 1.9, sd-scripts), ``dpmpp_2m_karras`` (ours before schedules).
"""

from __future__ import annotations

import re
from typing import Literal, get_args

Sampler = Literal[
    "ddim", "euler", "euler_a", "heun", "dpm2", "dpm2_a", "lms",
    "dpmpp_2m", "dpmpp_2m_sde", "dpmpp_3m_sde", "dpmpp_sde", "unipc", "deis", "pndm", "ddpm", "lcm", "tcd",
]  # fmt: skip
NoiseSchedule = Literal["model", "uniform", "sgm_uniform", "karras", "exponential", "beta"]

SAMPLER_NAMES: dict[Sampler, str] = {
    "ddim": "DDIM",
    "euler": "Euler",
    "euler_a": "Euler a",
    "heun": "Heun",
    "dpm2": "DPM2",
    "dpm2_a": "DPM2 a",
    "lms": "LMS",
    "dpmpp_2m": "DPM++ 2M",
    "dpmpp_2m_sde": "DPM++ 2M SDE",
    "dpmpp_3m_sde": "DPM++ 3M SDE",
    "dpmpp_sde": "DPM++ SDE",
    "unipc": "UniPC",
    "deis": "DEIS",
    "pndm": "PLMS",
    "ddpm": "DDPM",
    "lcm": "LCM",
    "tcd": "TCD",
}
"""What people call our samplers, as A1111 and its descendants spell them."""

SCHEDULE_NAMES: dict[NoiseSchedule, str] = {
    "model": "The model's own",
    "uniform": "Uniform",
    "sgm_uniform": "SGM Uniform",
    "karras": "Karras",
    "exponential": "Exponential",
    "beta": "Beta",
}

_BY_TIMESTEPS: tuple[NoiseSchedule, ...] = ("model", "uniform", "sgm_uniform")
"""Schedules that choose among the timesteps trained on; the others choose noise levels between those."""
_BY_LEVELS: tuple[NoiseSchedule, ...] = ("model", "karras", "exponential", "beta")
_FEWER_SCHEDULES: dict[Sampler, tuple[NoiseSchedule, ...]] = {
    "ddim": _BY_TIMESTEPS,
    "euler_a": _BY_TIMESTEPS,
    "ddpm": _BY_TIMESTEPS,
    "pndm": _BY_TIMESTEPS,
    "dpmpp_sde": _BY_LEVELS,
    "lcm": ("model",),
    "tcd": ("model",),
}
"""Samplers that follow some schedules only in diffusers."""

_OTHER_SAMPLERS: dict[str, Sampler] = {
    "k_euler": "euler",
    "k_euler_a": "euler_a",
    "euler_ancestral": "euler_a",
    "k_lms": "lms",
    "k_dpm_2": "dpm2",
    "dpm_2": "dpm2",
    "k_dpm_2_a": "dpm2_a",
    "dpm_2_ancestral": "dpm2_a",
    "dpmsolver": "dpmpp_2m",
    "dpmsolver++": "dpmpp_2m",
    "dpmpp_2m_sde_gpu": "dpmpp_2m_sde",
    "dpmpp_3m_sde_gpu": "dpmpp_3m_sde",
    "dpmpp_sde_gpu": "dpmpp_sde",
    "dpm++_sde": "dpmpp_sde",
    "dpmsingle": "dpmpp_2m",
    "uni_pc": "unipc",
    "plms": "pndm",
}
"""Names in sd-scripts (``--ss``), ComfyUI and diffusers' documentation for samplers that we call otherwise."""
_OTHER_SCHEDULES: dict[str, NoiseSchedule] = {
    "automatic": "model",
    "normal": "uniform",
    "simple": "sgm_uniform",
    "sgm": "sgm_uniform",
    "trailing": "sgm_uniform",
    "linspace": "uniform",
}


def schedules_of(sampler: Sampler) -> tuple[NoiseSchedule, ...]:
    """The schedules that a sampler can follow in diffusers."""
    return _FEWER_SCHEDULES.get(sampler, get_args(NoiseSchedule))


def read_sampler(text: str) -> tuple[Sampler, NoiseSchedule | None] | None:
    """A sampler by any usual name, with the schedule where the name says one; None for a name nobody uses.

    Case, spaces, dashes and underscores do not matter: ``DPM++ 2M Karras``, ``dpmpp-2m_karras``.
    """
    plain = _plain(text)
    if plain in _SAMPLERS:
        return _SAMPLERS[plain], None
    for gap in re.finditer("_", plain):
        sampler, schedule = plain[: gap.start()], plain[gap.end() :]
        if sampler in _SAMPLERS and schedule in _SCHEDULES:
            return _SAMPLERS[sampler], _SCHEDULES[schedule]
    return None


def sampling_of(text: str) -> dict[str, str]:
    """The settings ``sampler`` and, where the name says one, ``schedule``; empty for a name nobody uses."""
    found = read_sampler(text)
    if found is None:
        return {}
    sampler, schedule = found
    return {"sampler": sampler, "schedule": schedule} if schedule else {"sampler": sampler}


def read_schedule(text: str) -> NoiseSchedule | None:
    """A schedule by any usual name, None for one that is not here."""
    return _SCHEDULES.get(_plain(text))


def _plain(text: str) -> str:
    return re.sub(r"[\s_-]+", "_", text.strip().lower())


_SAMPLERS: dict[str, Sampler] = {
    **{_plain(name): name for name in get_args(Sampler)},
    **{_plain(shown): name for name, shown in SAMPLER_NAMES.items()},
    **_OTHER_SAMPLERS,
}
_SCHEDULES: dict[str, NoiseSchedule] = {
    **{_plain(name): name for name in get_args(NoiseSchedule)},
    **{_plain(shown): name for name, shown in SCHEDULE_NAMES.items()},
    **_OTHER_SCHEDULES,
}
