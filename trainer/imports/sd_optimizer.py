"""sd-scripts' learning rates, optimizers and schedules, as ``get_optimizer`` and ``get_scheduler_fix`` read them."""

from __future__ import annotations

from typing import Any

from trainer.config import LrScheduler
from trainer.imports import values
from trainer.imports.draft import Draft
from trainer.imports.optimizers import Choice, custom, has_no_schedule, keep_one_rate, put_optimizer, typed

_OPTIMIZERS: dict[str, Choice] = {
    "adamw": Choice("adamw"),
    "adamw8bit": Choice("adamw8bit"),
    "pagedadamw": custom("bitsandbytes.optim.PagedAdamW"),
    "pagedadamw8bit": custom("bitsandbytes.optim.PagedAdamW8bit"),
    "pagedadamw32bit": custom("bitsandbytes.optim.PagedAdamW32bit"),
    "lion": Choice("lion"),
    "lion8bit": custom("bitsandbytes.optim.Lion8bit"),
    "pagedlion8bit": custom("bitsandbytes.optim.PagedLion8bit"),
    "ademamix8bit": custom("bitsandbytes.optim.AdEMAMix8bit"),
    "pagedademamix8bit": custom("bitsandbytes.optim.PagedAdEMAMix8bit"),
    "sgdnesterov": Choice("sgd", arguments={"momentum": 0.9, "nesterov": True}),
    "sgdnesterov8bit": custom("bitsandbytes.optim.SGD8bit", {"momentum": 0.9, "nesterov": True}),
    "prodigy": Choice("prodigy"),
    "dadaptation": custom("dadaptation.experimental.DAdaptAdamPreprint"),
    "dadaptadampreprint": custom("dadaptation.experimental.DAdaptAdamPreprint"),
    "dadaptadam": Choice("dadapt_adam"),
    "dadaptadagrad": custom("dadaptation.DAdaptAdaGrad"),
    "dadaptadan": custom("dadaptation.DAdaptAdan"),
    "dadaptadanip": custom("dadaptation.experimental.DAdaptAdanIP"),
    "dadaptlion": custom("dadaptation.DAdaptLion"),
    "dadaptsgd": custom("dadaptation.DAdaptSGD"),
    "adafactor": Choice("adafactor"),
    "adamwschedulefree": Choice("schedule_free_adamw"),
    "radamschedulefree": custom("schedulefree.RAdamScheduleFree"),
    "sgdschedulefree": custom("schedulefree.SGDScheduleFree"),
}
_SCHEDULES: dict[str, LrScheduler] = {
    "constant": "constant",
    "constant_with_warmup": "constant_with_warmup",
    "linear": "linear",
    "cosine": "cosine",
    "cosine_with_restarts": "cosine_with_restarts",
    "polynomial": "polynomial",
    "cosine_with_min_lr": "cosine",
    "warmup_stable_decay": "cosine",
}
_ONE_WORD = {name.replace("_", ""): name for name in _SCHEDULES}
_CUSTOM_SCHEDULES: dict[str, tuple[LrScheduler, str]] = {
    "CosineAnnealingLR": ("cosine", "its T_max is taken to be the whole run"),
    "CosineAnnealingWarmRestarts": (
        "cosine_with_restarts",
        "its T_0 is no number of cycles: see train.lr_num_cycles",
    ),
    "OneCycleLR": ("one_cycle", "with torch's own numbers"),
    "ConstantLR": ("constant", "without the factor at its beginning"),
    "LinearLR": ("linear", "falling over the whole run"),
    "PolynomialLR": ("polynomial", "over the whole run"),
    "RexLR": ("rex", "over the whole run"),
    "Rex": ("rex", "over the whole run"),
}
_POLYNOMIAL_END = 1e-7
"""What ``polynomial`` falls to there, in place of 0 (transformers' ``get_polynomial_decay_schedule_with_warmup``)."""
_MOST_OF_THE_RUN = 0.999
_SHAPE_KEYS = ("lr_scheduler_num_cycles", "lr_scheduler_power", "lr_scheduler_min_lr_ratio", "lr_decay_steps")
_SCHEDULE_KEYS = ("lr_scheduler", "lr_scheduler_type", "lr_scheduler_args", "lr_warmup_steps", *_SHAPE_KEYS)


def known_optimizer(path: str) -> str:
    """sd-scripts' own name for a class, where it has one, else the path."""
    name = path.rpartition(".")[2]
    return name if name.lower() in _OPTIMIZERS else path


def put_rates_and_optimizer(draft: Draft) -> None:
    """Learning rates, optimizer with its arguments, schedule and warm-up."""
    _put_rates(draft)
    _put_optimizer(draft)
    keep_one_rate(draft)
    if has_no_schedule(draft):
        draft.put("train.lr_scheduler", "constant", "optimizer_type")
        draft.all_unused(_SCHEDULE_KEYS, "the optimizer has no schedule")
    else:
        _put_schedule(draft)


def _put_rates(draft: Draft) -> None:
    """``unet_lr`` and ``text_encoder_lr`` each win over ``learning_rate`` for their part."""
    general, unet = draft.number("learning_rate"), draft.number("unet_lr")
    text_rates = values.numbers(draft.value("text_encoder_lr")) if draft.is_given("text_encoder_lr") else None
    trains = draft.config.get("lora", {}).get("train", "unet")
    text = text_rates[0] if text_rates else general
    if text_rates and len(set(text_rates)) > 1:
        note = "one rate for each text encoder; here the first holds for both"
        draft.put("train.text_encoder_learning_rate", text, "text_encoder_lr", note=note)
    elif trains != "unet" and text_rates:
        draft.put("train.text_encoder_learning_rate", text, "text_encoder_lr")
    elif trains != "unet" and unet is not None:
        draft.put("train.text_encoder_learning_rate", general, "learning_rate")
    rate = text if trains == "text_encoder" else general if unet is None else unet
    key = (
        "text_encoder_lr" if trains == "text_encoder" and text_rates else "learning_rate" if unet is None else "unet_lr"
    )
    draft.put("train.learning_rate", rate, key)
    draft.unused("learning_rate", "unet_lr and text_encoder_lr win over it")
    draft.unused("unet_lr", "the UNet is not trained" if trains == "text_encoder" else "learning_rate holds")
    draft.unused("text_encoder_lr", "the text encoder is not trained" if trains == "unet" else "learning_rate holds")


def _put_optimizer(draft: Draft) -> None:
    name = draft.text("optimizer_type")
    keys = ["optimizer_type"]
    for old, meant in (("use_8bit_adam", "AdamW8bit"), ("use_lion_optimizer", "Lion")):
        if draft.flag(old):
            name, keys = meant, [old]
        else:
            draft.unused(old, "off in the file")
    choice = _OPTIMIZERS.get(name.lower()) or custom(name if "." in name else f"torch.optim.{name}")
    given = typed(values.arguments(draft.value("optimizer_args"))) if draft.is_given("optimizer_args") else {}
    if choice.optimizer == "adafactor":
        choice, given = _adafactor(draft, choice, given)
    put_optimizer(draft, choice, given, *keys, argument_key="optimizer_args")
    draft.unused("optimizer_args", "empty in the file")


def _adafactor(draft: Draft, choice: Choice, given: dict[str, Any]) -> tuple[Choice, dict[str, Any]]:
    """transformers' defaults: steps and rate of its own, and relative to the size of the weights."""
    relative = given.pop("relative_step", True) or given.pop("warmup_init", False)
    given.pop("warmup_init", None)
    arguments = {"scale_parameter": True} | given
    if not relative:
        return choice, arguments
    note = "found its own rate there (relative_step); here it keeps to the learning rate and the schedule"
    return choice._replace(note=note), arguments


def _put_schedule(draft: Draft) -> None:
    name, class_name = draft.text("lr_scheduler"), draft.text("lr_scheduler_type").rpartition(".")[2]
    if class_name in _CUSTOM_SCHEDULES:
        schedule, note = _CUSTOM_SCHEDULES[class_name]
        draft.put("train.lr_scheduler", schedule, "lr_scheduler_type", note=note)
        draft.unused("lr_scheduler", "lr_scheduler_type wins over it")
    else:
        if class_name:
            draft.lost("lr_scheduler_type", "a schedule of its own; lr_scheduler is used instead")
        schedule = _named_schedule(draft, name)
    draft.unused("lr_scheduler_type", "empty in the file")
    _put_schedule_arguments(draft, class_name)
    _put_warmup(draft, schedule)
    _put_shape(draft, name, schedule)


def _put_schedule_arguments(draft: Draft, class_name: str) -> None:
    """Of a class' arguments the lowest rate of torch's cosines is a setting here."""
    if draft.is_given("lr_scheduler_args"):
        arguments = values.arguments(draft.value("lr_scheduler_args"))
        lowest, rate = values.number(arguments.pop("eta_min", None)), draft.config["train"]["learning_rate"]
        if class_name.startswith("CosineAnnealing") and lowest is not None and rate and lowest < rate:
            note = f"only eta_min is taken over, not {', '.join(arguments)}" if arguments else ""
            draft.put("train.lr_min_ratio", lowest / rate, "lr_scheduler_args", note=note)
        else:
            told = "for a class; see train.lr_num_cycles, train.lr_power and train.lr_min_ratio"
            draft.lost("lr_scheduler_args", told)
    draft.unused("lr_scheduler_args", "empty in the file")


def _named_schedule(draft: Draft, name: str) -> LrScheduler:
    spelled = name if name in _SCHEDULES else _ONE_WORD.get(name.lower().replace("_", ""), "")
    if spelled == "warmup_stable_decay" and not draft.number("lr_decay_steps"):
        note = "without lr_decay_steps it never falls"
        draft.put("train.lr_scheduler", "constant_with_warmup", "lr_scheduler", note=note)
        return "constant_with_warmup"
    if spelled:
        draft.put("train.lr_scheduler", _SCHEDULES[spelled], "lr_scheduler")
        return _SCHEDULES[spelled]
    nearest: LrScheduler = "constant_with_warmup" if name.startswith("adafactor") else "cosine"
    note = f"{name.partition(':')[0]} is not there; {nearest} is the nearest"
    draft.put("train.lr_scheduler", nearest, "lr_scheduler", note=note)
    return nearest


def _put_warmup(draft: Draft, schedule: LrScheduler) -> None:
    warmup = _steps_or_share(draft, "lr_warmup_steps")
    if not warmup:
        draft.unused("lr_warmup_steps", "there is no warm-up")
    elif schedule == "constant":
        draft.unused("lr_warmup_steps", "the schedule constant has no warm-up there")
    else:
        draft.put("train.lr_warmup_steps", warmup, "lr_warmup_steps")


def _steps_or_share(draft: Draft, key: str) -> float | None:
    """A number of steps, or a share of the run below 1, which may be written as ``10%``."""
    text = draft.text(key)
    if text.endswith("%") and (percent := values.number(text[:-1])) is not None:
        return min(percent / 100, _MOST_OF_THE_RUN)
    number = draft.number(key)
    return number if number is None or 0 < number < 1 else int(number)


def _put_shape(draft: Draft, name: str, schedule: LrScheduler) -> None:
    cycles, power = draft.whole("lr_scheduler_num_cycles"), draft.number("lr_scheduler_power")
    if schedule == "cosine_with_restarts" and cycles:
        draft.put("train.lr_num_cycles", cycles, "lr_scheduler_num_cycles")
    if schedule == "polynomial" and power:
        draft.put("train.lr_power", power, "lr_scheduler_power")
        if (rate := draft.number("learning_rate") or 0.0) > _POLYNOMIAL_END:
            draft.put("train.lr_min_ratio", _POLYNOMIAL_END / rate, "lr_scheduler")
    lowest, decay = draft.number("lr_scheduler_min_lr_ratio"), _steps_or_share(draft, "lr_decay_steps")
    if lowest and schedule == "cosine" and name in ("cosine_with_min_lr", "warmup_stable_decay"):
        draft.put("train.lr_min_ratio", lowest, "lr_scheduler_min_lr_ratio")
    if decay and schedule == "cosine" and name == "warmup_stable_decay":
        draft.put("train.lr_decay_steps", decay, "lr_decay_steps")
    draft.all_unused(_SHAPE_KEYS, f"the schedule {schedule} has no use for it")
