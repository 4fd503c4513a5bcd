"""The text in which A1111 and its descendants keep a picture's settings, written and read. Never imports torch.

::

    a red star <lora:neon:0.8>
    Negative prompt: blurry
    Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 42, Size: 512x768, ...

The format is that of stable-diffusion-webui's ``modules/infotext_utils.py`` (values with a comma are JSON strings);
Forge, SD.Next, Fooocus, Civitai and nodes of ComfyUI write it too, each with its own additions.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.data.token_count import clip_counter
from trainer.sampler_names import (
    SAMPLER_NAMES,
    SCHEDULE_NAMES,
    NoiseSchedule,
    Sampler,
    read_sampler,
    read_schedule,
    schedules_of,
)

LONGEST_TEXT = 100_000
"""Characters of settings text that are looked at; real ones have a few hundred."""
_OURS = "LoRA Atelier"
_TEXT_ENCODERS = "BASE"
"""As ``trainer.lora.strengths`` calls all of a model's text encoders."""
_LENGTHS = (75, 150, 225)
_VALUES = re.compile(r'\s*([A-Za-z][\w /+-]{0,60}):\s*("(?:\\.|[^"\\])*"|\[.*?\](?=,|$)|\{.*?\}(?=,|$)|[^,]*)(?:,|$)')
_LINE_OF_VALUES = re.compile(r"(?:^|\s)(Steps:\s*\d+\s*(?:,|$))")
_NEGATIVE = re.compile(r"(?:^|\s)Negative prompt:")
_LORA = re.compile(r"\s*<lora:([^<>:]{1,200})(?::([^<>]{0,300}))?>")
_NETWORK = re.compile(r"\s*<(?:hypernet|lyco):[^<>]{0,300}>")
_OWN_STEPS: tuple[Sampler, ...] = ("ddim", "unipc", "pndm", "ddpm", "lcm", "tcd", "deis")
"""Samplers that do not follow k-diffusion's noise levels where no schedule is named."""
_AUTOMATIC: dict[Sampler, NoiseSchedule] = {
    "dpmpp_2m": "karras",
    "dpmpp_sde": "karras",
    "dpm2": "karras",
    "dpm2_a": "karras",
    "dpmpp_2m_sde": "exponential",
    "dpmpp_3m_sde": "exponential",
}
"""What A1111 takes for ``Schedule type: Automatic`` (``modules/sd_samplers_kdiffusion.py``); uniform otherwise."""
_READ = (
    *("Steps", "Sampler", "Schedule type", "Schedule", "CFG scale", "Seed", "Size", "Clip skip", "Model", "Emphasis"),
    *("Denoising strength", "Hires upscale", "Hires resize", "Hires steps"),
    *("Mask blur", "Inpaint area", "Masked area padding", "Tiled decoding"),
)
_UPSCALERS = {"latent": "Latent", "lanczos": "Lanczos"}
_IDLE = ("Model hash", "Version", "Lora hashes", "App", "Backend", "Created Date", "Hashes", "Pipeline", "Parser")
"""Nothing is missing without these."""
_IDLE_VALUES = ("", "none", "false", "0", "-1", "{}", "[]")


@dataclass(frozen=True)
class NamedLora:
    """A LoRA that a prompt names, ``<lora:name:0.8>``; strengths as in ``trainer.pictures.LoraUse``."""

    name: str
    weight: float = 1.0
    parts: str = ""


@dataclass(frozen=True)
class Infotext:
    """What a text says.

    Attributes:
        settings: by our names; nothing is checked but that numbers are numbers.
        loras: the LoRAs in the prompt; A1111's own tags are taken out of it.
        model: the model's name, without hash.
        unused: ``name: value`` of what changes pictures and has no setting here.
    """

    settings: dict[str, Any]
    loras: tuple[NamedLora, ...] = ()
    model: str = ""
    unused: tuple[str, ...] = ()


def write_infotext(settings: dict[str, Any]) -> str:
    """Settings, by our names, as other programs read them. Control characters and lone surrogates stay out."""
    uses = [_lora_tag(use) for use in settings.get("loras") or []]
    lines = [" ".join(part for part in [str(settings.get("prompt") or ""), *uses] if part)]
    if settings.get("negative"):
        lines.append(f"Negative prompt: {settings['negative']}")
    lines.append(", ".join(f"{name}: {_quoted(value)}" for name, value in _values_of(settings)))
    text = "\n".join(lines)
    return "".join(c for c in text if c in "\n\t" or c >= " ").encode("utf-8", "replace").decode("utf-8")


def read_infotext(text: str) -> Infotext:
    """Read such a text, whoever wrote it; empty for a text of another kind."""
    text = text[:LONGEST_TEXT].replace("\r\n", "\n").strip()
    starts = [match.start(1) for match in _LINE_OF_VALUES.finditer(text)]
    if not starts:
        return Infotext({})
    body = text[: starts[-1]].strip()
    values = {name: _unquoted(value) for name, value in _VALUES.findall(" ".join(text[starts[-1] :].split("\n")))}
    prompt, negative = _prompts(body)
    settings: dict[str, Any] = {
        "prompt": _without_tags(prompt),
        "negative": _without_tags(negative),
        "steps": _number(values.get("Steps"), int),
        "guidance": _number(values.get("CFG scale"), float),
        "seed": _number(values.get("Seed"), int),
        "clip_skip": _number(values.get("Clip skip"), int),
        "tiled_decoding": True if values.get("Tiled decoding") == "True" else None,
        **_sampling(values),
        **_size(values.get("Size", "")),
        **_second_pass(values),
        **_masking(values),
    }
    if values.get("Version") != _OURS:
        settings |= _as_others_read(settings["prompt"], settings["negative"], values)
    return Infotext(
        {name: value for name, value in settings.items() if value is not None},
        tuple(_lora(name, given) for name, given in _LORA.findall(prompt)),
        values.get("Model", ""),
        tuple(f"{name}: {value}" for name, value in values.items() if _is_unused(name, value, settings)),
    )


def _lora_tag(use: dict[str, Any]) -> str:
    return f"<lora:{Path(use['path']).stem}:{use['weight']:g}>"


def _values_of(settings: dict[str, Any]) -> list[tuple[str, Any]]:
    clip_skip, schedule = settings.get("clip_skip"), settings.get("schedule")
    given = [
        ("Steps", settings.get("steps")),
        ("Sampler", SAMPLER_NAMES.get(settings.get("sampler", ""))),
        ("Schedule type", SCHEDULE_NAMES[schedule] if schedule not in (None, "model") else None),
        ("CFG scale", settings.get("guidance")),
        ("Seed", settings.get("seed")),
        ("Size", f"{settings['width']}x{settings['height']}" if settings.get("width") else None),
        ("Model", Path(str(settings["model"])).name if settings.get("model") else None),
        ("Clip skip", clip_skip if clip_skip not in (None, 1) else None),
        ("Tiled decoding", settings.get("tiled_decoding") or None),
        *_second_values(settings),
        ("Version", _OURS),
    ]
    return [(name, value) for name, value in given if value is not None]


def _second_values(settings: dict[str, Any]) -> list[tuple[str, Any]]:
    """Of pictures that start from another one: the first pass, or one that was given."""
    if settings.get("init_image"):
        masked = settings.get("mask")
        alone = masked and settings.get("inpaint_area") == "masked"
        return [
            ("Denoising strength", settings.get("strength")),
            ("Mask blur", settings.get("mask_blur") if masked else None),
            ("Inpaint area", "Only masked" if alone else None),
            ("Masked area padding", settings.get("mask_padding") if alone else None),
        ]
    if (settings.get("hires_scale") or 1) > 1:
        return [
            ("Denoising strength", settings.get("hires_strength")),
            ("Hires upscale", settings["hires_scale"]),
            ("Hires steps", settings.get("hires_steps") or None),
            ("Hires upscaler", _UPSCALERS.get(settings.get("hires_upscaler", ""))),
        ]
    return []


def _quoted(value: Any) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if re.search(r'[,:\n"]', text) else text


def _unquoted(value: str) -> str:
    if value.startswith('"'):
        try:
            return str(json.loads(value))
        except ValueError:
            return value.strip('"')
    return value.strip()


def _prompts(body: str) -> tuple[str, str]:
    found = list(_NEGATIVE.finditer(body))
    if not found:
        return body, ""
    return body[: found[-1].start()], body[found[-1].end() :]


def _without_tags(prompt: str) -> str:
    return _NETWORK.sub("", _LORA.sub("", prompt)).strip()


def _sampling(values: dict[str, str]) -> dict[str, Any]:
    """Sampler and schedule: by two values, or by one name for both as before A1111 1.9."""
    found = read_sampler(values.get("Sampler", ""))
    if found is None:
        return {}
    sampler, schedule = found
    told = values.get("Schedule type", values.get("Schedule", ""))
    if values.get("Version") == _OURS:
        schedule = read_schedule(told) if told else "model"
    elif told.lower() == "automatic":
        schedule = _AUTOMATIC.get(sampler, "uniform")
    elif told:
        schedule = read_schedule(told)
    elif schedule is None and sampler not in _OWN_STEPS:
        schedule = "uniform"
    known = schedule is not None and schedule in schedules_of(sampler)
    return {"sampler": sampler, "schedule": schedule if known else "model"}


def _size(text: str) -> dict[str, Any]:
    width, _, height = text.partition("x")
    return {"width": _number(width, int), "height": _number(height, int)}


def _second_pass(values: dict[str, str]) -> dict[str, Any]:
    """Whose strength it is, other values tell: A1111 has one name for that of both kinds of second start."""
    strength = _number(values.get("Denoising strength"), float)
    scale = _number(values.get("Hires upscale"), float) or _scale_of(values)
    if scale is None:
        return {"strength": strength}
    upscaler = values.get("Hires upscaler", "")
    return {
        "hires_scale": scale,
        "hires_steps": _number(values.get("Hires steps"), int),
        "hires_strength": strength,
        "hires_upscaler": "latent" if upscaler.startswith("Latent") else "lanczos" if upscaler else None,
    }


def _scale_of(values: dict[str, str]) -> float | None:
    """``Hires resize: 1024x0`` names one side or both."""
    given, wanted = _size(values.get("Size", "")), _size(values.get("Hires resize", ""))
    scales = [wanted[side] / given[side] for side in given if wanted[side] and given[side]]
    return max(scales, default=None)


def _masking(values: dict[str, str]) -> dict[str, Any]:
    areas = {"only masked": "masked", "whole picture": "whole"}
    return {
        "mask_blur": _number(values.get("Mask blur"), int),
        "inpaint_area": areas.get(values.get("Inpaint area", "").lower()),
        "mask_padding": _number(values.get("Masked area padding"), int),
    }


def _as_others_read(prompt: str, negative: str, values: dict[str, str]) -> dict[str, Any]:
    """Other programs read emphasis unless told not to, and prompts of any length."""
    emphasis = values.get("Emphasis") not in ("None", "Ignore") and re.search(r"[(\[]", prompt + negative)
    tokens = max(clip_counter().count(each, ()).tokens for each in (prompt, negative))
    length = next((length for length in _LENGTHS if tokens <= length), _LENGTHS[-1])
    return {"weighted": True if emphasis else None, "max_token_length": length if length > _LENGTHS[0] else None}


def _lora(name: str, given: str) -> NamedLora:
    """``<lora:name:text encoder:unet>`` or ``<lora:name:te=0.5:unet=1>``; one number counts for both."""
    places, named = [], {}
    for item in given.split(":"):
        key, equals, value = item.partition("=")
        if equals:
            named[key.strip()] = _number(value, float)
        else:
            places.append(_number(item.partition(",")[0], float))
    text = named.get("te") if named.get("te") is not None else (places[0] if places else None)
    unet = named.get("unet") if named.get("unet") is not None else (places[1] if len(places) > 1 else text)
    text, unet = (1.0 if number is None else float(number) for number in (text, unet))
    return NamedLora(name.strip(), unet, "" if text == unet else f"{_TEXT_ENCODERS}:{text:g}")


def _is_unused(name: str, value: str, settings: dict[str, Any]) -> bool:
    if name == "Sampler":
        return "sampler" not in settings
    if name == "Hires upscaler":
        return value not in _UPSCALERS.values() or "hires_scale" not in settings
    if name in ("Schedule type", "Schedule"):
        schedule = read_schedule(value)
        return value.lower() != "automatic" and (schedule is None or schedule != settings.get("schedule"))
    if name in _READ or name in _IDLE or name.lower().endswith("hash") or name.startswith("Civitai"):
        return False
    return value.lower() not in _IDLE_VALUES


def _number(text: str | None, kind: type[int] | type[float]) -> int | float | None:
    try:
        number = kind(text.strip()) if text else None
    except ValueError:
        return None
    return number if number is None or math.isfinite(number) else None
