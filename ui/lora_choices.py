"""Which LoRAs and models the page offers, and checking those that a person names. No gradio in here."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from trainer.errors import Problem, UserError
from trainer.hub_loras import cached_loras, local_lora
from trainer.hub_names import HUB_ID, hub_file
from trainer.infotext import NamedLora
from trainer.lora.strengths import parse_strength
from trainer.pictures import LoraUse
from trainer.runs.store import Workspace
from trainer.single_file.cache import looks_like_a_file
from ui.context import AppContext
from ui.train_view import looks_like_a_path

DEMO_MODEL = "demo"
LOOK_EVERY_S = 5.0
MOST_CHECKPOINTS = 4
"""Saved states offered per run."""


class RowUse(NamedTuple):
    """What a row says: a file, its weight, and other weights of parts and blocks (``text_encoder:0``)."""

    file: str
    weight: float
    parts: str = ""


def known_loras(workspace: Workspace) -> list[tuple[str, str]]:
    """(label, path) of merged LoRAs, of finished LoRAs and newest checkpoints of every run, and of those of the hub."""
    choices = [(path.stem, str(path)) for path in sorted(workspace.models_dir.glob("*.safetensors"))]
    for run in workspace.runs():
        with suppress(UserError):
            info = run.read()
            name, started = info.name, time.strftime("%d %b %H:%M", time.localtime(info.created))
            if run.output_path.is_file():
                choices.append((f"{name} · {started}", str(run.output_path)))
            saved = sorted(run.checkpoints_dir.glob("step-*/lora.safetensors"), reverse=True)[:MOST_CHECKPOINTS]
            for path in saved:
                step = path.parent.name.removeprefix("step-").lstrip("0") or "0"
                choices.append((f"{name}, step {step} · {started}", str(path)))
    return choices + [(f"{Path(str(name.file)).stem} · {name.repo}", str(name)) for name in cached_loras()]


class LoraShelf:
    """``known_loras``, looked up again every few seconds only: every open page asks several times in that time."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._looked = -math.inf
        self._choices: list[tuple[str, str]] = []

    def choices(self, *, fresh: bool = False) -> list[tuple[str, str]]:
        if fresh or time.monotonic() - self._looked > LOOK_EVERY_S:
            self._choices = known_loras(self._workspace)
            self._looked = time.monotonic()
        return self._choices


def named_loras(workspace: Workspace, named: Sequence[NamedLora]) -> tuple[list[LoraUse], list[str]]:
    """LoRAs that a prompt names, by the names of their files; of several the newest. Then the names not found."""
    files: dict[str, str] = {}
    for _, known in known_loras(workspace):
        files.setdefault(Path(known).stem.casefold(), known)
    found: list[LoraUse] = []
    missing: list[str] = []
    for use in named:
        path = files.get(use.name.casefold())
        if path is None:
            missing.append(use.name)
        else:
            found.append(LoraUse(path=path, weight=use.weight, parts=use.parts))
    return found, missing


def named_model(workspace: Workspace, name: str) -> str | None:
    """The model among those the page offers that other programs call ``name``; None where there is none."""
    wanted = name.removesuffix(".safetensors").removesuffix(".ckpt").casefold()
    values = {Path(value).stem.casefold(): value for _, value in known_models(workspace)}
    return values.get(wanted)


def known_models(workspace: Workspace) -> list[tuple[str, str]]:
    """(label, value) of the demo model, merged models, and the models that runs were trained on."""
    choices = {DEMO_MODEL: "Built-in demo model"}
    for path in sorted(workspace.models_dir.glob("*/model_index.json")):
        choices[str(path.parent)] = path.parent.name
    for run in workspace.runs():
        with suppress(UserError):
            base = run.config().model.base
            choices.setdefault(base, base)
    return [(label, value) for value, label in choices.items()]


def check_model(context: AppContext, model: str) -> str:
    """The model as the trainer takes it. Raises UserError for a path that leads nowhere or is not open to the page."""
    model = (model or "").strip()
    if model == DEMO_MODEL or (HUB_ID.fullmatch(model) and not looks_like_a_path(model)):
        return model
    if not model:
        raise UserError("model.missing", "No model is chosen.", "Choose one.", "model")
    path = context.allowed(model)
    if not path.is_dir() and not (path.is_file() and looks_like_a_file(path.name)):
        message = f"Model: {model} is neither a folder nor a .safetensors or .ckpt file."
        raise UserError("model.missing", message, "Choose a folder in diffusers layout, or such a file.", "model")
    return str(path)


def check_loras(context: AppContext, uses: Sequence[RowUse]) -> list[LoraUse]:
    """The LoRAs that rows name. Raises UserError, all problems at once."""
    problems: list[Problem] = []
    found: list[LoraUse] = []
    for number, use in enumerate(uses):
        field = f"loras.{number}.path"
        try:
            path = check_lora(context, use.file)
            if use.parts:
                field = f"loras.{number}.parts"
                parse_strength(f"1,{use.parts}", f"{path.stem}: the strength by part", field)
            name = use.file.strip() if hub_file(use.file) else str(path)
            found.append(LoraUse(path=name, weight=use.weight, parts=use.parts))
        except UserError as error:
            problems += [Problem(p.code, p.message, p.hint, field) for p in error.problems]
    if problems:
        raise UserError.many(problems)
    return found


def check_lora(context: AppContext, text: str) -> Path:
    """The LoRA file that a field names; one of the hub by its name there.

    Raises UserError for one that is not there, or not open to the page.
    """
    if not text.strip():
        raise UserError("lora.missing", "No LoRA is chosen.", "Choose one.", "lora")
    if hub_file(text):
        return local_lora(text.strip())
    path = context.allowed(text)
    if not path.is_file():
        raise UserError("lora.missing", f"There is no LoRA file {text}.", "Choose another one.", "lora")
    return path
