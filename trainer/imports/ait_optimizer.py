"""ai-toolkit's optimizers and schedules (``toolkit/optimizer.py``, ``toolkit/scheduler.py``)."""

from __future__ import annotations

from typing import Any

from trainer.config import LrScheduler
from trainer.imports import values
from trainer.imports.draft import Draft
from trainer.imports.optimizers import Choice, custom, put_optimizer

_EPS = {"eps": 1e-6}
"""What it gives most of them, in place of their own 1e-8."""
_OPTIMIZERS: dict[str, Choice] = {
    "adamw": Choice("adamw", arguments=_EPS),
    "adam": custom("torch.optim.Adam", _EPS),
    "adamw8bit": Choice("adamw8bit", arguments=_EPS),
    "adam8bit": custom("bitsandbytes.optim.Adam8bit", _EPS),
    "adamw8": Choice(
        "adamw8bit",
        arguments=_EPS | {"weight_decay": 0.0},
        note="an 8-bit AdamW of its own; that of bitsandbytes is used",
    ),
    "adam8": custom("bitsandbytes.optim.Adam8bit", _EPS),
    "ademamix8bit": custom("bitsandbytes.optim.AdEMAMix8bit", _EPS),
    "lion": Choice("lion"),
    "lion8bit": custom("bitsandbytes.optim.Lion8bit"),
    "prodigy": Choice("prodigy", arguments=_EPS),
    "prodigy8bit": Choice("prodigy", arguments=_EPS, note="in 8 bits there; here with all of them"),
    "dadaptation": Choice("dadapt_adam", arguments=_EPS),
    "dadaptationadam": custom("dadaptation.DAdaptLion", _EPS),  # its own mix-up, kept for the same training
    "dadaptationlion": custom("dadaptation.DAdaptLion", _EPS),
    "adagrad": custom("torch.optim.Adagrad"),
    "adafactor": Choice("adafactor"),
}
_FINDS_ITS_RATE = ("prodigy", "dadaptation")
_SCHEDULES: dict[str, tuple[LrScheduler, str]] = {
    "constant": ("constant", ""),
    "constant_with_warmup": ("constant_with_warmup", ""),
    "cosine": ("cosine", ""),
    "cosine_with_restarts": ("cosine_with_restarts", ""),
    "polynomial": ("polynomial", ""),
    "linear": ("constant", "torch's LinearLR, which rises from a third to the whole rate over the run"),
    "step": ("constant", "falls in steps there, which is not there"),
}
_USUAL_WARMUP_STEPS = 1000


def put_optimizer_and_rate(draft: Draft) -> None:
    """Optimizer with its parameters, learning rate, schedule."""
    name = draft.text("train.optimizer").lower()
    family = next((start for start in _FINDS_ITS_RATE if name.startswith(start)), "")
    nearest = family or "adamw"
    other = _OPTIMIZERS[nearest]._replace(note=f"{name} is not there; {nearest} is used instead")
    choice = _OPTIMIZERS.get(name, other)
    prefix = "train.optimizer_params."
    params = {key: draft.value(key) for key in draft.untold() if key.startswith(prefix)}
    given: dict[str, Any] = {key.removeprefix(prefix): _plain(value) for key, value in params.items()}
    for flag in ("relative_step", "warmup_init") if choice.optimizer == "adafactor" else ():
        given.pop(flag, None)
    put_optimizer(draft, choice, given, "train.optimizer", argument_key="")
    for key in params:
        name_of = key.removeprefix(prefix)
        if name_of in given:
            draft.tell("train.optimizer_args", f"{name_of}: {given[name_of]}", key)
        else:
            draft.lost(key, "Adafactor keeps to the learning rate and the schedule here")
    draft.unused("train.optimizer_params", "empty in the file")
    _put_rate(draft, name)
    _put_schedule(draft)


def _put_rate(draft: Draft, optimizer: str) -> None:
    rate = draft.number("train.lr") or 0.0
    if optimizer.startswith(_FINDS_ITS_RATE) and rate < 0.1:
        draft.put("train.learning_rate", 1.0, "train.lr", note="below 0.1 stands for 1 with this optimizer there")
    else:
        draft.put("train.learning_rate", rate, "train.lr")
    others = ("train.unet_lr", "train.text_encoder_lr", "train.embedding_lr", "train.refiner_lr", "train.adapter_lr")
    draft.all_unused(others, "not used there either: all parts learn at lr")


def _put_schedule(draft: Draft) -> None:
    name, prefix = draft.text("train.lr_scheduler"), "train.lr_scheduler_params."
    schedule, note = _SCHEDULES.get(name, ("constant", f"{name} is not there"))
    if name == "linear" and _falls(draft, prefix):
        draft.put("train.lr_scheduler", "linear", "train.lr_scheduler")
        draft.put("train.lr_min_ratio", draft.number(f"{prefix}end_factor"), f"{prefix}end_factor")
        draft.unused(f"{prefix}start_factor", "as it is here")
    else:
        draft.put("train.lr_scheduler", schedule, "train.lr_scheduler", note=note)
    if name == "constant_with_warmup":
        steps = draft.whole(f"{prefix}num_warmup_steps")
        warmup = _USUAL_WARMUP_STEPS if steps is None else steps
        draft.put("train.lr_warmup_steps", warmup, f"{prefix}num_warmup_steps")
    lowest, rate = draft.number(f"{prefix}eta_min"), draft.config["train"]["learning_rate"]
    if lowest and rate and lowest < rate and name.startswith("cosine"):
        draft.put("train.lr_min_ratio", lowest / rate, f"{prefix}eta_min")
    if name == "polynomial" and (power := draft.number(f"{prefix}power")):
        draft.put("train.lr_power", power, f"{prefix}power")
    for key in [key for key in draft.untold() if key.startswith(prefix)]:
        draft.lost(key, "a parameter of the schedule's class that is not there")
    draft.unused("train.lr_scheduler_params", "empty in the file")


def _falls(draft: Draft, prefix: str) -> bool:
    """Whether torch's LinearLR, which rises unless told otherwise, falls from the whole rate."""
    first, last = draft.number(f"{prefix}start_factor"), draft.number(f"{prefix}end_factor")
    return first == 1 and last is not None and 0 <= last < 1


def _plain(value: Any) -> Any:
    """A parameter as the class takes it: YAML reads ``1e-4`` as text."""
    number = None if isinstance(value, bool) else values.number(value)
    return value if number is None or isinstance(value, int) else number
