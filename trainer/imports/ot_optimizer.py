"""OneTrainer's optimizers and schedules: ``create.py``, ``optimizer_util.py`` and ``lr_scheduler_util.py`` there."""

from __future__ import annotations

import math
from typing import Any

from trainer.config import LrScheduler
from trainer.imports import values
from trainer.imports.draft import Draft
from trainer.imports.optimizers import Choice, custom, has_no_schedule, keep_one_rate, put_optimizer

_ADAM = ("betas", "eps", "weight_decay")
_PRODIGY = (*_ADAM, "beta3", "decouple", "use_bias_correction", "safeguard_warmup", "d0", "d_coef", "growth_rate")
_DADAPT = (*_ADAM, "decouple", "use_bias_correction", "d0", "growth_rate")
_SGD = ("momentum", "dampening", "weight_decay", "nesterov")
_OPTIMIZERS: dict[str, tuple[Choice, tuple[str, ...]]] = {
    "ADAMW": (Choice("adamw"), (*_ADAM, "amsgrad")),
    "ADAMW_8BIT": (Choice("adamw8bit"), _ADAM),
    "ADAM": (custom("torch.optim.Adam"), (*_ADAM, "amsgrad")),
    "ADAM_8BIT": (custom("bitsandbytes.optim.Adam8bit"), _ADAM),
    "ADAGRAD": (custom("torch.optim.Adagrad"), ("eps", "weight_decay", "lr_decay")),
    "ADAGRAD_8BIT": (custom("bitsandbytes.optim.Adagrad8bit"), ("eps", "weight_decay")),
    "RMSPROP": (custom("torch.optim.RMSprop"), ("alpha", "eps", "weight_decay", "momentum", "centered")),
    "RMSPROP_8BIT": (custom("bitsandbytes.optim.RMSprop8bit"), ("alpha", "eps", "weight_decay", "momentum")),
    "LION": (Choice("lion"), ("betas", "weight_decay")),
    "LION_8BIT": (custom("bitsandbytes.optim.Lion8bit"), ("betas", "weight_decay")),
    "LAMB": (custom("bitsandbytes.optim.LAMB"), _ADAM),
    "LAMB_8BIT": (custom("bitsandbytes.optim.LAMB8bit"), _ADAM),
    "LARS": (custom("bitsandbytes.optim.LARS"), ("momentum", "weight_decay")),
    "LARS_8BIT": (custom("bitsandbytes.optim.LARS8bit"), ("momentum", "weight_decay")),
    "SGD": (Choice("sgd"), _SGD),
    "SGD_8BIT": (custom("bitsandbytes.optim.SGD8bit"), _SGD),
    "SCHEDULE_FREE_ADAMW": (Choice("schedule_free_adamw"), (*_ADAM, "r", "weight_lr_power")),
    "SCHEDULE_FREE_SGD": (custom("schedulefree.SGDScheduleFree"), ("momentum", "weight_decay", "r", "weight_lr_power")),
    "PRODIGY": (Choice("prodigy"), _PRODIGY),
    "DADAPT_ADAM": (Choice("dadapt_adam"), _DADAPT),
    "DADAPT_ADA_GRAD": (custom("dadaptation.DAdaptAdaGrad"), ("momentum", "eps", "weight_decay", "d0", "growth_rate")),
    "DADAPT_ADAN": (custom("dadaptation.DAdaptAdan"), (*_ADAM, "d0", "growth_rate")),
    "DADAPT_LION": (custom("dadaptation.DAdaptLion"), ("betas", "weight_decay", "d0")),
    "DADAPT_SGD": (custom("dadaptation.DAdaptSGD"), ("momentum", "weight_decay", "d0", "growth_rate")),
    "ADAFACTOR": (
        Choice("adafactor"),
        ("eps", "clip_threshold", "decay_rate", "beta1", "weight_decay", "scale_parameter", "relative_step"),
    ),
    "CAME": (custom("came_pytorch.CAME"), (*_ADAM, "clip_threshold")),
    "AdEMAMix": (custom("bitsandbytes.optim.AdEMAMix"), (*_ADAM, "alpha")),
    "AdEMAMix_8BIT": (custom("bitsandbytes.optim.AdEMAMix8bit"), (*_ADAM, "alpha")),
}
_NEAREST = {"PRODIGY": "PRODIGY", "LION": "LION", "CAME": "CAME", "DADAPT": "DADAPT_ADAM"}
"""Those that there are for one that is not: a rate of 1 for Prodigy would be the end of any other's training."""
_WHERE_MISSING: dict[str, dict[str, Any]] = {
    "ADAFACTOR": {"scale_parameter": True, "relative_step": True},
    "DADAPT_ADA_GRAD": {"eps": 0.0},
    "DADAPT_LION": {"beta1": 0.9, "beta2": 0.999},
    "LION_8BIT": {"beta1": 0.9, "beta2": 0.999},
    "SCHEDULE_FREE_ADAMW": {"weight_decay": 0.01},
    "SCHEDULE_FREE_SGD": {"momentum": 0.0},
}
"""What ``create_optimizer`` gives where the file says nothing, as far as it is not the class' own default."""
_TRIPLE_BETAS = ("DADAPT_ADAN", "CAME", "AdEMAMix", "AdEMAMix_8BIT")
_PAIR_EPS = ("ADAFACTOR", "CAME")
_SCHEDULES: dict[str, tuple[LrScheduler, str]] = {
    "CONSTANT": ("constant", ""),
    "LINEAR": ("linear", ""),
    "COSINE": ("cosine", ""),
    "COSINE_WITH_RESTARTS": ("cosine_with_restarts", "rose again as smoothly as it fell; here it jumps up"),
    "COSINE_WITH_HARD_RESTARTS": ("cosine_with_restarts", ""),
    "REX": ("rex", "holds on longer there: 0.91 of the rate is left at half of the fall, here 0.67"),
    "ADAFACTOR": ("constant", "Adafactor's own rate is not there"),
    "CUSTOM": ("cosine", "a class of its own is not there"),
}


def put_training(draft: Draft) -> None:
    """Optimizer, learning rates, schedule and warm-up."""
    _put_optimizer(draft)
    _put_rates(draft)
    keep_one_rate(draft)
    if has_no_schedule(draft):
        draft.put("train.lr_scheduler", "constant", "optimizer.optimizer")
        draft.unused("learning_rate_scheduler", "the optimizer has no schedule")
        _put_own_warmup(draft)
    else:
        _put_schedule(draft)
        _put_warmup(draft)
    draft.all_unused(
        ("learning_rate_cycles", "learning_rate_min_factor", "custom_learning_rate_scheduler", "scheduler_params"),
        "not used by this schedule",
    )


def _put_optimizer(draft: Draft) -> None:
    name = draft.text("optimizer.optimizer")
    choice, wanted = _chosen(name)
    arguments = {each: value for each in wanted if (value := _argument(draft, name, each)) is not None}
    if choice.optimizer == "adafactor" and arguments.pop("relative_step", False):
        choice = choice._replace(note="found its own rate there (relative_step); here it keeps to the learning rate")
    put_optimizer(draft, choice, arguments, "optimizer.optimizer", argument_key="")
    for each in wanted:
        keys = {"betas": ("beta1", "beta2", "beta3"), "eps": ("eps", "eps2")}.get(each, (each,))
        for key in (f"optimizer.{key}" for key in keys if draft.is_given(f"optimizer.{key}")):
            draft.tell("train.optimizer_args", f"{each}: {arguments.get(each)}", key)
    rest = [key for key in draft.untold() if key.startswith(("optimizer.", "optimizer_defaults"))]
    draft.all_unused(rest, "an option of other optimizers, or of how it is computed")


def _chosen(name: str) -> tuple[Choice, tuple[str, ...]]:
    """The optimizer of a name, or the nearest there is, and the arguments that it takes."""
    if name in _OPTIMIZERS:
        return _OPTIMIZERS[name]
    nearest = next((known for start, known in _NEAREST.items() if name.startswith(start)), "ADAMW")
    choice, wanted = _OPTIMIZERS[nearest]
    return choice._replace(note=f"{name} is not there; {nearest.lower()} is used instead"), wanted


def _argument(draft: Draft, optimizer: str, name: str) -> Any:
    """An argument as the class takes it; None where the file leaves it to the class."""
    if name == "betas":
        keys = ("beta1", "beta2", "beta3") if optimizer in _TRIPLE_BETAS else ("beta1", "beta2")
        betas = [_number(draft, optimizer, key) for key in keys]
        return None if None in betas else betas
    if name == "eps" and optimizer in _PAIR_EPS:
        pair = [draft.number(f"optimizer.{key}") for key in ("eps", "eps2")]
        return None if None in pair else pair
    value = draft.value(f"optimizer.{name}")
    if values.is_blank(value):
        return _WHERE_MISSING.get(optimizer, {}).get(name)
    if str(value) == "inf" or (isinstance(value, float) and math.isinf(value)):
        return None
    return value if isinstance(value, bool) else values.number(value)


def _number(draft: Draft, optimizer: str, key: str) -> float | None:
    given = draft.number(f"optimizer.{key}")
    return _WHERE_MISSING.get(optimizer, {}).get(key) if given is None else given


def _put_rates(draft: Draft) -> None:
    """Each part may have a rate of its own; ``learning_rate_scaler`` multiplies them by the root of a batch's size."""
    scale, note = _scale(draft)
    general, trains = draft.number("learning_rate") or 0.0, draft.config["lora"]["train"]
    unet, text = draft.number("unet.learning_rate"), draft.number("text_encoder.learning_rate")
    main_key = "unet.learning_rate" if unet is not None else "learning_rate"
    main = general if unet is None else unet
    if trains == "text_encoder":
        main_key = "text_encoder.learning_rate" if text is not None else "learning_rate"
        main = general if text is None else text
    draft.put("train.learning_rate", main * scale, main_key, note=note)
    if trains == "both" and (text is not None or unet is not None):
        key = "text_encoder.learning_rate" if text is not None else "learning_rate"
        draft.put("train.text_encoder_learning_rate", (general if text is None else text) * scale, key, note=note)
    second = draft.number("text_encoder_2.learning_rate")
    if trains != "unet" and second is not None and second != (general if text is None else text):
        draft.lost("text_encoder_2.learning_rate", "one rate holds for both text encoders here")
    keys = ("learning_rate", "unet.learning_rate", "text_encoder.learning_rate", "text_encoder_2.learning_rate")
    draft.all_unused(keys, "another rate wins over it, or the part is not trained")


def _scale(draft: Draft) -> tuple[float, str]:
    name = draft.text("learning_rate_scaler")
    batch, steps = draft.whole("batch_size") or 1, draft.whole("gradient_accumulation_steps") or 1
    counts = {"BATCH": batch, "GLOBAL_BATCH": batch, "GRADIENT_ACCUMULATION": steps}
    counts |= {"BOTH": batch * steps, "GLOBAL_BOTH": batch * steps}
    count = counts.get(name, 1)
    if count > 1:
        note = f"multiplied by the root of {count}, as learning_rate_scaler asks"
        draft.tell("train.learning_rate", f"x {math.sqrt(count):.4g}", "learning_rate_scaler", note=note)
        return math.sqrt(count), note
    draft.unused("learning_rate_scaler", "changes nothing here")
    return 1.0, ""


def _put_schedule(draft: Draft) -> None:
    name = draft.text("learning_rate_scheduler")
    schedule, note = _SCHEDULES.get(name, ("cosine", f"{name} is not there"))
    if schedule == "constant" and draft.number("learning_rate_warmup_steps"):
        schedule = "constant_with_warmup"
    draft.put("train.lr_scheduler", schedule, "learning_rate_scheduler", note=note)
    if schedule == "cosine_with_restarts":
        cycles = draft.number("learning_rate_cycles") or 1.0
        whole_note = "" if cycles.is_integer() else "rounded to whole cycles"
        draft.put("train.lr_num_cycles", max(1, round(cycles)), "learning_rate_cycles", note=whole_note)
    lowest = draft.number("learning_rate_min_factor")
    if lowest and schedule not in ("constant", "constant_with_warmup"):
        draft.put("train.lr_min_ratio", lowest, "learning_rate_min_factor")


def _put_own_warmup(draft: Draft) -> None:
    """Schedule-free optimizers count it themselves, in steps."""
    warmup = int(draft.number("learning_rate_warmup_steps") or 0)
    if warmup > 1:
        arguments = draft.config["train"].get("optimizer_args", {}) | {"warmup_steps": warmup}
        draft.put("train.optimizer_args", arguments, "learning_rate_warmup_steps")
    draft.unused("learning_rate_warmup_steps", "there is no warm-up")


def _put_warmup(draft: Draft) -> None:
    """Above 1 it counts batches, else it is a share of the run."""
    warmup = draft.number("learning_rate_warmup_steps") or 0.0
    accumulated = draft.whole("gradient_accumulation_steps") or 1
    if warmup > 1:
        draft.put("train.lr_warmup_steps", int(warmup / accumulated), "learning_rate_warmup_steps")
    elif 0 < warmup < 1:
        draft.put("train.lr_warmup_steps", warmup, "learning_rate_warmup_steps")
    elif warmup == 1:
        note = "is the whole run there; 0.999 of it here"
        draft.put("train.lr_warmup_steps", 0.999, "learning_rate_warmup_steps", note=note)
    draft.unused("learning_rate_warmup_steps", "there is no warm-up")
