"""The settings of what learns and how: LoRA and training."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from trainer.config_base import Probability, Section, setting
from trainer.config_relevance import is_empty, is_one_of, is_set

Target = Literal["attention", "attention_ff", "full"]
Optimizer = Literal[
    "adamw",
    "adamw8bit",
    "paged_adamw",
    "paged_adamw8bit",
    "adafactor",
    "lion",
    "prodigy",
    "schedule_free_adamw",
    "dadapt_adam",
    "sgd",
    "custom",
]
LrScheduler = Literal[
    "constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial", "one_cycle", "rex"
]
StepsOrShare = Annotated[int, Field(ge=0)] | Annotated[float, Field(gt=0, lt=1)]
LoraType = Literal["lora", "dora", "loha", "lokr"]
CONSTANT: tuple[LrScheduler, ...] = ("constant", "constant_with_warmup")
OWN_RATE: tuple[Optimizer, ...] = ("prodigy", "dadapt_adam")
"""Optimizers that estimate a rate ``d`` for all parts together and move by ``d`` times the learning rate."""
PAGED: tuple[Optimizer, ...] = ("paged_adamw", "paged_adamw8bit")
"""Optimizers whose averages leave the GPU's memory when it runs short (CUDA's managed memory)."""
CLASS_PATH = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$"
"""A class by its full name: ``package.module.Class``."""
LoraPrecision = Literal["float32", "bf16", "fp16"]
Checkpointing = Literal["off", "some", "all"]
_FALLS = is_one_of("train.lr_scheduler", "linear", "cosine", "cosine_with_restarts", "polynomial", "rex")


class MergedLora(Section):
    """A LoRA file that is merged into the model."""

    path: str
    """The file: LoRA, DoRA, LoHa or LoKr."""
    ratio: float = Field(1.0, ge=-100, le=100)
    """How much of it."""


class LoraSettings(Section):
    """The shape of the LoRA."""

    type: LoraType = setting(
        "lora",
        "Kind",
        also=("network_module", "LoRA_type", "algo", "network_type", "peft_type", "dora_wd", "lora_decompose"),
    )
    """`lora` for almost everything. `dora` follows full training more closely and is slower; `loha` and `lokr` are
    LyCORIS' kinds, `lokr` with very small files."""
    rank: int = setting(16, "Rank", basic=True, also=("network_dim", "dim", "linear", "lora_rank"), ge=1, le=1024)
    """Size of the LoRA: higher can hold more, and learns by heart sooner. 8 to 32 does for most things."""
    alpha: float = setting(
        16.0, "Alpha", basic=True, also=("network_alpha", "linear_alpha", "lora_alpha"), gt=0, le=1024
    )
    """The LoRA's strength is alpha / rank. Equal to rank: full strength."""
    rank_stabilized: bool = setting(
        False,
        "Rank-stabilised",
        also=("rslora", "rs_lora", "use_rslora"),
        relevant=is_one_of("lora.type", "lora", "dora", "loha"),
    )
    """rsLoRA: strength alpha / sqrt(rank), so that high ranks learn as fast as low ones. The file's alpha says so."""
    conv_rank: int = setting(0, "Convolution rank", also=("conv_dim", "conv"), ge=0, le=1024)
    """Rank for the 3x3 convolutions; 0 leaves them alone, unless a block is given a rank of its own."""
    conv_alpha: float | None = setting(
        None, "Convolution alpha", relevant=is_set("lora.conv_rank") | is_set("lora.block_ranks"), gt=0, le=1024
    )
    """Alpha for the convolutions; empty for the convolution rank."""
    lokr_factor: int = setting(
        -1,
        "LoKr factor",
        also=("factor", "decompose_factor", "lokr_decompose_factor"),
        relevant=is_one_of("lora.type", "lokr"),
        ge=-1,
        le=1024,
    )
    """For `lokr`: the size of its first matrix, such as 8; smaller makes a larger file. -1 for the smallest file."""
    dropout: Probability = setting(0.0, "Dropout", also=("network_dropout", "dropout_probability"), lt=1)
    """Share of the LoRA's inputs set to zero in each step, against learning by heart."""
    rank_dropout: Probability = setting(0.0, "Rank dropout", lt=1)
    """Share of the ranks left out in each step, for each picture anew; the others count more in return."""
    module_dropout: Probability = setting(0.0, "Module dropout", lt=1)
    """Share of the layers whose LoRA is left out in each step."""
    max_norm: float | None = setting(None, "Largest norm", also=("scale_weight_norms",), gt=0, le=1000)
    """After each step a layer's change of the weights is shortened to this length; 1 is usual. Empty for no limit."""
    target: Target = setting(
        "attention_ff",
        "Layers",
        also=("attn_modules", "layer_preset", "layer_filter_preset", "LyCORIS_preset", "all_layers"),
    )
    """`attention`, `attention_ff` (attention, feed-forward and projections, what most LoRA files hold), or `full`."""
    include: list[str] = setting(
        [], "Only layers matching", also=("layer_filter", "layer_filter_regex", "only_if_contains")
    )
    """Regular expressions; when given, only layers whose name matches one of them."""
    exclude: list[str] = setting([], "Not layers matching", also=("ignore_if_contains",))
    """Regular expressions of layers to leave alone."""
    block_ranks: dict[str, Annotated[int, Field(ge=0, le=1024)]] = setting(
        {}, "Rank per block", also=("block_dims", "conv_block_dims", "block_alphas")
    )
    """Regular expression to rank, for layers that should differ; 0 leaves a layer alone. `^text_encoder` is a part.
    3x3 convolutions too, even with convolution rank 0, when Layers is `full` or the expression says `conv`."""
    block_lrs: dict[str, Annotated[float, Field(ge=0, le=1000)]] = setting(
        {}, "Learning rate per block", also=("block_lr", "down_lr_weight", "mid_lr_weight", "up_lr_weight")
    )
    """Regular expression to what the learning rate of matching layers is multiplied with; the first match counts. 0
    freezes a layer as it is."""
    init_from: str | None = setting(
        None, "Start from", also=("network_weights", "lora_model_name", "pretrained_lora_path")
    )
    """A LoRA file to continue from; a run that is resumed no longer needs it."""
    merge_before_training: list[MergedLora] = setting(
        [],
        "Merge before training",
        also=("base_weights", "base_weights_multiplier", "lora_path", "assistant_lora_path"),
    )
    """LoRA files, as `path` and `ratio`, that become part of the base model first: what is trained goes on top of them,
    and is used together with them."""
    train: Literal["unet", "text_encoder", "both"] = setting(
        "unet",
        "Train",
        basic=True,
        also=("network_train_unet_only", "network_train_text_encoder_only", "train_unet", "train_text_encoder"),
    )
    """Which part learns. The text encoder helps with names of things the model does not know."""

    @property
    def has_dropout(self) -> bool:
        """Whether its layers draw random numbers in each step."""
        return bool(self.dropout or self.rank_dropout or self.module_dropout)

    @field_validator("include", "exclude", "block_ranks", "block_lrs")
    @classmethod
    def _patterns_compile(cls, patterns: Any) -> Any:
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is not a regular expression ({error})") from error
        return patterns

    @model_validator(mode="after")
    def _options_of_the_kind(self) -> LoraSettings:
        problems = []
        if self.lokr_factor == 0:
            problems.append("lokr_factor 0 is not allowed: -1, or 1 and more")
        if self.lokr_factor > 0 and self.type != "lokr":
            problems.append(f"lokr_factor has no use for type {self.type}: set it to -1")
        if self.rank_stabilized and self.type == "lokr":
            problems.append(
                "rank_stabilized has no use for type lokr, whose strength often has no rank in it: set it off"
            )
        if problems:
            raise ValueError("; ".join(problems))
        return self


class TrainSettings(Section):
    """How training goes."""

    max_steps: int = setting(
        1000,
        "Steps",
        basic=True,
        also=("max_train_steps", "steps"),
        relevant=is_empty("train.epochs"),
        ge=1,
        le=10_000_000,
    )
    """Optimizer steps. Not used when epochs are given."""
    epochs: int | None = setting(
        None, "Epochs", basic=True, also=("max_train_epochs", "epoch", "num_train_epochs"), ge=1, le=100_000
    )
    """Passes over the pictures; when given, it wins over steps."""
    batch_size: int = setting(1, "Batch size", basic=True, also=("train_batch_size",), ge=1, le=1024)
    """Pictures per step."""
    gradient_accumulation_steps: int = setting(
        1, "Gradient accumulation", also=("gradient_accumulation",), ge=1, le=1024
    )
    """Batches added up before the weights change: a larger batch in the same memory."""
    learning_rate: float = setting(
        1e-4, "Learning rate", basic=True, also=("unet_lr", "lr", "unet_learning_rate"), ge=0, le=100
    )
    """Size of each change. 1e-4 is a good start; too high gives noise and NaN."""
    text_encoder_learning_rate: float | None = setting(
        None,
        "Text encoder learning rate",
        also=("text_encoder_lr",),
        relevant=is_one_of("lora.train", "text_encoder", "both"),
        ge=0,
    )
    """Empty for the same as the learning rate; 0 freezes the part as it is."""
    loraplus_lr_ratio: float = setting(
        1.0,
        "LoRA+ ratio",
        also=("loraplus_unet_lr_ratio", "loraplus_text_encoder_lr_ratio"),
        relevant=is_one_of("lora.type", "lora", "dora"),
        gt=0,
        le=1000,
    )
    """How many times as fast the LoRA's up parts learn; 16 is LoRA+, 1 the usual LoRA."""
    optimizer: Optimizer = setting("adamw", "Optimizer", also=("optimizer_type", "use_8bit_adam", "use_lion_optimizer"))
    """`adamw` is right for almost everyone; `adamw8bit` needs bitsandbytes, and so do the paged ones, whose averages
    lie where GPU and machine both reach them; `prodigy` and `dadapt_adam` find their own learning rate (set it to 1);
    `custom` is the class below."""
    optimizer_class: str | None = setting(
        None, "Optimizer class", relevant=is_one_of("train.optimizer", "custom"), pattern=CLASS_PATH
    )
    """`package.Class` of a custom optimizer; only classes allowed under Settings are loaded."""
    optimizer_args: dict[str, Any] = setting(
        {},
        "Optimizer arguments",
        also=("optimizer_params", "weight_decay", "adam_weight_decay", "adam_beta1", "adam_beta2", "betas", "d_coef"),
    )
    """Further arguments by name, such as `weight_decay: 0.01`."""
    lr_scheduler: LrScheduler = setting(
        "cosine", "Learning rate schedule", also=("lr_scheduler_type", "learning_rate_scheduler")
    )
    """How the learning rate goes over the run."""
    lr_warmup_steps: StepsOrShare = setting(
        0, "Warm-up steps", also=("lr_warmup", "warmup_steps", "warmup_ratio", "learning_rate_warmup_steps")
    )
    """Steps over which the learning rate rises from zero; below 1 it is a share of the run, 0.1 a tenth."""
    lr_decay_steps: StepsOrShare | None = setting(None, "Decay steps", relevant=_FALLS)
    """Steps at the end over which the learning rate falls, or a share below 1; empty for all after the warm-up."""
    lr_min_ratio: float = setting(
        0.0,
        "Lowest rate",
        also=("lr_scheduler_min_lr_ratio", "min_lr_ratio", "learning_rate_min_factor"),
        relevant=_FALLS,
        ge=0,
        lt=1,
    )
    """Share of the learning rate that is left at the end."""
    lr_num_cycles: int = setting(
        1,
        "Cycles",
        also=("lr_scheduler_num_cycles", "lr_scheduler_cycles", "learning_rate_cycles"),
        relevant=is_one_of("train.lr_scheduler", "cosine_with_restarts"),
        ge=1,
        le=1000,
    )
    """How often `cosine_with_restarts` falls."""
    lr_power: float = setting(
        1.0, "Power", also=("lr_scheduler_power",), relevant=is_one_of("train.lr_scheduler", "polynomial"), gt=0, le=100
    )
    """Bend of `polynomial`: 1 is a straight line, more falls sooner."""
    max_grad_norm: float = setting(1.0, "Gradient clipping", also=("clip_grad_norm",), ge=0)
    """Largest length of a step's gradient; 0 for no limit."""
    mixed_precision: Literal["auto", "no", "fp16", "bf16"] = setting("auto", "Precision", also=("train_dtype", "dtype"))
    """`auto` takes bf16 where the GPU has it, fp16 on older ones, fp32 on the CPU."""
    lora_precision: LoraPrecision = setting(
        "float32", "LoRA precision", also=("weight_dtype", "full_bf16", "full_fp16", "lora_weight_dtype")
    )
    """What the LoRA itself and the optimizer's averages are kept in. `bf16` or `fp16` take half as much memory, which
    counts for large ranks; updates are then rounded by chance, so that small ones are not lost."""
    gradient_checkpointing: Checkpointing = setting("off", "Gradient checkpointing", basic=True)
    """`all` computes the layers' inputs again on the way back: much less GPU memory for about a third more time.
    `some` does so with the feed-forward layers only: a part of the saving for a part of the time."""
    compile: Literal["auto", "off"] = setting("auto", "Compile")
    """`auto` lets an NVIDIA GPU run each step by itself, as a CUDA graph captured once for each size of picture: the
    processor no longer holds it up. Where that cannot be the log says why. On a processor alone a small model's steps
    are written down once and repeated without Python's share. `off` goes through the model for each step. The result
    is the same."""
    seed: int = setting(42, "Seed", basic=True, ge=0, lt=2**63)
    """The same seed, data and machine give the same LoRA."""
    deterministic: bool = setting(False, "Deterministic", also=("full_determinism",))
    """On a GPU too, a run that is killed and resumed ends with the same bytes; a step may take longer. A CPU always
    computes so."""
    clip_skip: int = setting(1, "Clip skip", also=("text_encoder_layer_skip",), ge=1, le=12)
    """1 uses the text encoder's last layer, 2 the one before it (usual for anime models of SD 1). At 1 SDXL reads the
    layer before the last, which its models were made with, anime models too."""
    ema: float | None = setting(None, "EMA decay", also=("ema_decay", "use_ema", "ema_config"), gt=0, lt=1)
    """Keep a running mean of the LoRA and save that one; 0.99 suits runs of 1000 steps and more. Empty for none."""
    prior_loss_weight: float = setting(
        1.0,
        "Regularization weight",
        also=("reg_weight",),
        relevant=is_set("dataset.sources.*.is_regularization"),
        ge=0,
        le=100,
    )
    """How much the regularization pictures count."""

    @model_validator(mode="before")
    @classmethod
    def _class_given_as_optimizer(cls, values: Any) -> Any:
        """Other trainers take `package.Class` in the same place as their own names."""
        given = values.get("optimizer") if isinstance(values, dict) else None
        if isinstance(given, str) and "." in given and not values.get("optimizer_class"):
            return {**values, "optimizer": "custom", "optimizer_class": given}
        return values

    @field_validator("gradient_checkpointing", mode="before")
    @classmethod
    def _yes_or_no(cls, value: Any) -> Any:
        """As other trainers have it, and settings of version 0.1; YAML's `off` is false, too."""
        return ("all" if value else "off") if isinstance(value, bool) else value

    @field_validator("lr_warmup_steps", "lr_decay_steps", mode="before")
    @classmethod
    def _steps_or_share(cls, value: Any) -> Any:
        if value is None or (isinstance(value, int | float) and (0 < value < 1 or (value >= 0 and value % 1 == 0))):
            return value
        raise ValueError(f"{value!r} is neither a whole number of steps nor a share of the run below 1")

    @model_validator(mode="after")
    def _consistent(self) -> TrainSettings:
        problems = [*_optimizer_problems(self), *_precision_problems(self), *_schedule_problems(self)]
        if problems:
            raise ValueError("; ".join(problems))
        return self


def _optimizer_problems(train: TrainSettings) -> Iterator[str]:
    if train.optimizer == "custom" and train.optimizer_class is None:
        yield "optimizer custom needs optimizer_class, such as torch.optim.RAdam"
    if train.optimizer != "custom" and train.optimizer_class is not None:
        yield f"optimizer_class ({train.optimizer_class}) needs optimizer custom, and it is {train.optimizer}"
    if train.optimizer == "schedule_free_adamw":
        if train.lr_scheduler not in CONSTANT:
            yield f"schedule_free_adamw needs lr_scheduler constant, and it is {train.lr_scheduler}"
        if train.ema is not None:
            yield "schedule_free_adamw keeps a mean of its own: leave ema empty"
    if train.optimizer == "adafactor" and any(map(train.optimizer_args.get, ("relative_step", "warmup_init"))):
        yield "optimizer_args: relative_step and warmup_init of adafactor would ignore learning_rate and lr_scheduler"


def _precision_problems(train: TrainSettings) -> Iterator[str]:
    if train.lora_precision == "float32":
        return
    if train.optimizer in OWN_RATE:
        yield (
            f"lora_precision {train.lora_precision} rounds away what {train.optimizer} finds its rate by, how far "
            "weights have moved: set it to float32, or take another optimizer"
        )
    if train.optimizer == "schedule_free_adamw":
        yield (
            f"lora_precision {train.lora_precision} rounds away the small steps of the mean that schedule_free_adamw "
            "keeps: set it to float32, or take another optimizer"
        )


def _schedule_problems(train: TrainSettings) -> Iterator[str]:
    name = train.lr_scheduler
    if train.lr_num_cycles != 1 and name != "cosine_with_restarts":
        yield f"lr_num_cycles ({train.lr_num_cycles}) needs lr_scheduler cosine_with_restarts, and it is {name}"
    if train.lr_power != 1 and name != "polynomial":
        yield f"lr_power ({train.lr_power:g}) needs lr_scheduler polynomial, and it is {name}"
    if name in (*CONSTANT, "one_cycle"):
        if train.lr_decay_steps is not None:
            yield f"lr_decay_steps ({train.lr_decay_steps}) has no effect with lr_scheduler {name}: leave it empty"
        if train.lr_min_ratio:
            yield f"lr_min_ratio ({train.lr_min_ratio:g}) has no effect with lr_scheduler {name}: set it to 0"
