"""The settings of what learns and how: LoRA, training, loss."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from trainer.config_base import Probability, Section, setting

Target = Literal["attention", "attention_ff", "full"]
Optimizer = Literal["adamw", "adamw8bit", "adafactor", "sgd"]
LrScheduler = Literal["constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial"]
LossType = Literal["l2", "l1", "huber", "smooth_l1"]
TimestepSampling = Literal["uniform", "logit_normal"]


class LoraSettings(Section):
    """The shape of the LoRA."""

    type: Literal["lora"] = setting("lora", "Kind", also=("network_module", "LoRA_type"))
    """Kind of adapter."""
    rank: int = setting(16, "Rank", basic=True, also=("network_dim", "dim", "linear"), ge=1, le=1024)
    """Size of the LoRA: higher can hold more, and learns by heart sooner. 8 to 32 does for most things."""
    alpha: float = setting(16.0, "Alpha", basic=True, also=("network_alpha", "linear_alpha"), gt=0, le=1024)
    """The LoRA's strength is alpha / rank. Equal to rank: full strength."""
    rank_stabilized: bool = setting(False, "Rank-stabilised", also=("rslora", "rs_lora", "use_rslora"))
    """rsLoRA: strength alpha / sqrt(rank), so that high ranks learn as fast as low ones. The file's alpha says so."""
    conv_rank: int = setting(0, "Convolution rank", also=("conv_dim", "conv"), ge=0, le=1024)
    """Rank for the 3x3 convolutions; 0 leaves them alone."""
    conv_alpha: float | None = setting(None, "Convolution alpha", gt=0, le=1024)
    """Alpha for the convolutions; empty for the convolution rank."""
    dropout: Probability = setting(0.0, "Dropout", also=("network_dropout",), lt=1)
    """Share of the LoRA's inputs set to zero in each step, against learning by heart."""
    rank_dropout: Probability = setting(0.0, "Rank dropout", lt=1)
    """Share of the ranks left out in each step, for each picture anew; the others count more in return."""
    module_dropout: Probability = setting(0.0, "Module dropout", lt=1)
    """Share of the layers whose LoRA is left out in each step."""
    max_norm: float | None = setting(None, "Largest norm", also=("scale_weight_norms",), gt=0, le=1000)
    """After each step a layer's change of the weights is shortened to this length; 1 is usual. Empty for no limit."""
    target: Target = setting("attention_ff", "Layers", also=("attn_modules", "layer_preset"))
    """`attention`, `attention_ff` (attention, feed-forward and projections, what most LoRA files hold), or `full`."""
    include: list[str] = setting([], "Only layers matching")
    """Regular expressions; when given, only layers whose name matches one of them."""
    exclude: list[str] = setting([], "Not layers matching")
    """Regular expressions of layers to leave alone."""
    block_ranks: dict[str, Annotated[int, Field(ge=0, le=1024)]] = setting({}, "Rank per block", also=("block_dims",))
    """Regular expression to rank, for layers that should differ; 0 leaves a layer alone. `^text_encoder` is a part."""
    block_lrs: dict[str, Annotated[float, Field(ge=0, le=1000)]] = setting(
        {}, "Learning rate per block", also=("block_lr", "down_lr_weight", "mid_lr_weight", "up_lr_weight")
    )
    """Regular expression to what the learning rate of matching layers is multiplied with; the first match counts."""
    init_from: str | None = setting(None, "Start from", also=("network_weights",))
    """A LoRA file to continue from."""
    train: Literal["unet", "text_encoder", "both"] = setting(
        "unet", "Train", basic=True, also=("network_train_unet_only", "network_train_text_encoder_only")
    )
    """Which part learns. The text encoder helps with names of things the model does not know."""

    @field_validator("include", "exclude", "block_ranks", "block_lrs")
    @classmethod
    def _patterns_compile(cls, patterns: Any) -> Any:
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is not a regular expression ({error})") from error
        return patterns


class TrainSettings(Section):
    """How training goes."""

    max_steps: int = setting(1000, "Steps", basic=True, also=("max_train_steps", "steps"), ge=1, le=10_000_000)
    """Optimizer steps. Not used when epochs are given."""
    epochs: int | None = setting(None, "Epochs", basic=True, also=("max_train_epochs", "epoch"), ge=1, le=100_000)
    """Passes over the pictures; when given, it wins over steps."""
    batch_size: int = setting(1, "Batch size", basic=True, also=("train_batch_size",), ge=1, le=1024)
    """Pictures per step."""
    gradient_accumulation_steps: int = setting(1, "Gradient accumulation", ge=1, le=1024)
    """Batches added up before the weights change: a larger batch in the same memory."""
    learning_rate: float = setting(
        1e-4, "Learning rate", basic=True, also=("unet_lr", "lr", "unet_learning_rate"), ge=0, le=100
    )
    """Size of each change. 1e-4 is a good start; too high gives noise and NaN."""
    text_encoder_learning_rate: float | None = setting(
        None, "Text encoder learning rate", also=("text_encoder_lr",), ge=0
    )
    """Empty for the same as the learning rate."""
    loraplus_lr_ratio: float = setting(1.0, "LoRA+ ratio", also=("loraplus_lr_ratio",), gt=0, le=1000)
    """How many times as fast the LoRA's up parts learn; 16 is LoRA+, 1 the usual LoRA."""
    optimizer: Optimizer = setting("adamw", "Optimizer", also=("optimizer_type",))
    """`adamw` is right for almost everyone; `adamw8bit` needs an NVIDIA GPU."""
    optimizer_args: dict[str, Any] = setting({}, "Optimizer arguments")
    """Further arguments by name, such as `weight_decay: 0.01`."""
    lr_scheduler: LrScheduler = setting("cosine", "Learning rate schedule", also=("lr_scheduler_type",))
    """How the learning rate goes over the run."""
    lr_warmup_steps: int = setting(0, "Warm-up steps", also=("lr_warmup", "warmup_steps"), ge=0)
    """Steps over which the learning rate rises from zero."""
    max_grad_norm: float = setting(1.0, "Gradient clipping", also=("clip_grad_norm", "max_grad_norm"), ge=0)
    """Largest length of a step's gradient; 0 for no limit."""
    mixed_precision: Literal["auto", "no", "fp16", "bf16"] = setting("auto", "Precision", also=("train_dtype", "dtype"))
    """`auto` takes bf16 where the GPU has it, fp16 on older ones, fp32 on the CPU."""
    gradient_checkpointing: bool = setting(False, "Gradient checkpointing", basic=True)
    """Much less GPU memory for about a third more time."""
    compile: Literal["auto"] = setting("auto", "Compile")
    """Whether the step is compiled."""
    seed: int = setting(42, "Seed", basic=True, ge=0, lt=2**63)
    """The same seed, data and machine give the same LoRA."""
    clip_skip: int = setting(1, "Clip skip", also=("clip_skip", "text_encoder_layer_skip"), ge=1, le=12)
    """1 uses the text encoder's last layer, 2 the one before it (usual for anime models)."""
    ema: float | None = setting(None, "EMA decay", also=("ema_decay", "use_ema"), gt=0, lt=1)
    """Keep a running mean of the LoRA and save that one; 0.99 suits runs of 1000 steps and more. Empty for none."""
    prior_loss_weight: float = setting(1.0, "Regularization weight", also=("prior_loss_weight",), ge=0, le=100)
    """How much the regularization pictures count."""


class Multires(Section):
    """Pyramid noise (Whitaker 2023): noise of lower resolutions added in."""

    iterations: int = Field(6, ge=1, le=16)
    """How many resolutions."""
    discount: float = Field(0.3, gt=0, lt=1)
    """How much less each lower one counts."""


class LossSettings(Section):
    """What is minimised."""

    type: LossType = setting("l2", "Loss", also=("loss_type", "loss_fn"))
    """`l2` is the usual one; huber and smooth_l1 forgive bad pictures."""
    huber_c: float = setting(0.1, "Huber threshold", also=("huber_c",), gt=0, le=10)
    """Where huber and smooth_l1 turn from square to linear."""
    min_snr_gamma: float | None = setting(None, "Min-SNR gamma", also=("min_snr_gamma", "snr_gamma"), gt=0)
    """5 evens out how much the noise levels count; often learns faster. Empty for off."""
    debiased_estimation: bool = setting(False, "Debiased estimation", also=("debiased_estimation_loss",))
    """Another weighting of noise levels; not together with min-SNR."""
    noise_offset: float = setting(0.0, "Noise offset", ge=0, le=1)
    """0.03 to 0.1 helps with very dark and very bright pictures."""
    multires_noise: Multires | None = setting(
        None, "Pyramid noise", also=("multires_noise_iterations", "multires_noise_discount")
    )
    """Pyramid noise: `iterations` and `discount`."""
    input_perturbation: float = setting(0.0, "Input perturbation", also=("ip_noise_gamma",), ge=0, le=1)
    """Extra noise on the input only, against drift while sampling; 0.1 is usual."""
    zero_terminal_snr: bool = setting(False, "Zero terminal SNR", also=("zero_terminal_snr", "rescale_betas_zero_snr"))
    """Train to full noise; only for v-prediction models made for it."""
    prediction_type: Literal["auto", "epsilon", "v_prediction"] = setting(
        "auto", "Prediction", also=("v_parameterization",)
    )
    """`auto` reads it from the model."""
    timestep_sampling: TimestepSampling = setting("uniform", "Timestep sampling", also=("timestep_type",))
    """How noise levels are drawn."""
    min_timestep: int = setting(0, "Lowest timestep", ge=0, le=999)
    """0 is no noise."""
    max_timestep: int = setting(1000, "Highest timestep", ge=1, le=1000)
    """1000 is all noise; the highest itself is not drawn."""
    masked: Literal[False] = setting(False, "Masked loss")
    """Count only what the masks show."""

    @model_validator(mode="after")
    def _consistent(self) -> LossSettings:
        if self.min_timestep >= self.max_timestep:
            raise ValueError(f"min_timestep ({self.min_timestep}) must be below max_timestep ({self.max_timestep})")
        if self.debiased_estimation and self.min_snr_gamma is not None:
            raise ValueError("debiased_estimation and min_snr_gamma both weight the noise levels: set only one")
        return self
