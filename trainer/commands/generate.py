"""``trainer generate``: pictures from a prompt, with any number of LoRAs."""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from trainer.commands.arguments import add_gpu_sharing
from trainer.errors import Problem, UserError
from trainer.hub_names import hub_file
from trainer.lora.strengths import parse_lora
from trainer.pictures import PictureSettings, parse_settings
from trainer.runs.events import EventSink

_TEXTS = ("model", "negative", "sampler", "schedule", "fit", "inpaint_area", "hires_upscaler")
_FILES = ("init_image", "mask")
_SWITCHES = ("weighted", "tiled_decoding")
_NUMBERS = (
    *("steps", "guidance", "seed", "width", "height", "count", "batch_size", "clip_skip", "max_token_length"),
    *("strength", "mask_blur", "mask_padding", "hires_scale", "hires_steps", "hires_strength"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to draw, with what, and where to."""
    parser.add_argument("--prompt", required=True, help="what to draw")
    parser.add_argument("--out", type=Path, required=True, help="folder for the pictures")
    parser.add_argument(
        "--lora",
        action="append",
        default=[],
        metavar="FILE=WEIGHT",
        help="may be given several times; FILE=0.8,text_encoder:0 weighs a part by itself",
    )
    for name in (*_TEXTS, *_FILES, *_NUMBERS):
        described = (PictureSettings.model_fields[name].description or "").split("\n")[0]
        parser.add_argument(f"--{name.replace('_', '-')}", help=described.replace("%", "%%"))
    for name in _SWITCHES:
        described = str(PictureSettings.model_fields[name].description)
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, action="store_true", help=described[:1].lower() + described[1:])
    add_gpu_sharing(parser)


def run(args: argparse.Namespace, events: EventSink) -> dict[str, Any]:
    """Draw. Raises UserError when settings or LoRAs do not fit the model."""
    settings = _settings(args)
    from trainer.devices import pick_device
    from trainer.generate import generate
    from trainer.hub_loras import lora_file

    for number, use in enumerate(settings.loras):
        lora_file(use.path, field=f"loras.{number}.path", events=events)  # those of the hub are downloaded

    begun = time.monotonic()
    device = pick_device()
    folder = args.out.expanduser().resolve()
    paths = generate(settings, folder, device=device, events=events, share_gpu=args.share_gpu)
    return {
        "pictures": [str(path) for path in paths],
        "seconds": round(time.monotonic() - begun, 2),
        "device": str(device),
        "settings": settings.model_dump(),
    }


def describe(answer: dict[str, Any]) -> str:
    """The pictures, one a line."""
    return "\n".join(answer["pictures"])


def _settings(args: argparse.Namespace) -> PictureSettings:
    """The settings that the arguments give. Raises UserError with everything that is wrong about them."""
    values: dict[str, Any] = {"prompt": args.prompt, **{name: getattr(args, name) for name in _SWITCHES}}
    given = {name: text for name, text in vars(args).items() if text is not None}
    values |= {name: given[name] for name in _TEXTS if name in given}
    values |= {name: str(Path(given[name]).expanduser().resolve()) for name in _FILES if name in given}
    values |= {name: _number_or_text(given[name]) for name in _NUMBERS if name in given}
    problems: list[Problem] = []
    for text in args.lora:
        try:
            path, strength = parse_lora(text)
        except UserError as error:
            problems += [replace(problem, field="loras") for problem in error.problems]
            continue
        of_hub = hub_file(str(path)) is not None
        file = str(path if of_hub else path.resolve())
        if not of_hub and not Path(file).is_file():
            problems.append(Problem("lora.missing", f"--lora: there is no file {file}.", "Check the path.", "loras"))
        by_part = str(strength).partition(",")[2]
        values.setdefault("loras", []).append({"path": file, "weight": strength.overall, "parts": by_part})
    try:
        settings = parse_settings(values)
    except UserError as error:
        raise UserError.many([*problems, *error.problems]) from error
    if problems:
        raise UserError.many(problems)
    return settings


def _number_or_text(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
