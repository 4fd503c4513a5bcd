"""The settings of what is minimised: loss, weighting of noise levels, noise, masks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field, model_validator

from trainer.config_base import Section, setting
from trainer.config_relevance import is_one_of, is_set

LossType = Literal["l2", "l1", "huber", "smooth_l1"]
HuberSchedule = Literal["constant", "exponential", "snr"]
TimestepSampling = Literal["uniform", "logit_normal", "mode"]
_HUBER = is_one_of("loss.type", "huber", "smooth_l1")


class Multires(Section):
    """Pyramid noise (Whitaker 2023): noise of lower resolutions added in."""

    iterations: int = Field(6, ge=1, le=16)
    """How many resolutions."""
    discount: float = Field(0.3, gt=0, lt=1)
    """How much less each lower one counts."""


class Preserve(Section):
    """Differential output preservation: the class word on its own goes on meaning what it meant."""

    class_word: str = Field(min_length=1)
    """What the trigger word is one of, such as `dog`: stands in its place in the preserved captions."""
    weight: float = Field(1.0, gt=0, le=100)
    """How much it counts beside learning."""


class LossSettings(Section):
    """What is minimised."""

    type: LossType = setting(
        "l2", "Loss", also=("loss_type", "loss_fn", "mse_strength", "mae_strength", "huber_strength")
    )
    """`l2` is the usual one; huber and smooth_l1 forgive bad pictures."""
    huber_c: float = setting(0.1, "Huber threshold", also=("huber_delta", "huber_scale"), relevant=_HUBER, gt=0, le=10)
    """Where huber and smooth_l1 turn from square to linear."""
    huber_schedule: HuberSchedule = setting("constant", "Huber schedule", relevant=_HUBER)
    """The threshold by noise level: the same everywhere, or falling from 1 at no noise to it at full noise."""
    min_snr_gamma: float | None = setting(
        None, "Min-SNR gamma", also=("snr_gamma", "loss_weight_fn", "loss_weight_strength"), gt=0
    )
    """5 evens out how much the noise levels count; often learns faster. Empty for off."""
    debiased_estimation: bool = setting(False, "Debiased estimation", also=("debiased_estimation_loss",))
    """Another weighting of noise levels; not together with min-SNR."""
    scale_v_pred_loss_like_noise_pred: bool = setting(
        False,
        "Scale v loss like noise loss",
        also=("v_pred_like_loss",),
        relevant=is_one_of("loss.prediction_type", "auto", "v_prediction"),
    )
    """Weight a v-prediction model's noise levels as if it predicted noise; not with the other weightings."""
    noise_offset: float = setting(0.0, "Noise offset", also=("offset_noise_weight", "noise_offset_type"), ge=0, le=1)
    """0.03 to 0.1 helps with very dark and very bright pictures."""
    noise_offset_random_strength: bool = setting(False, "Random noise offset", relevant=is_set("loss.noise_offset"))
    """Draw the offset's strength anew for each picture, from 0 to the noise offset."""
    adaptive_noise_scale: float = setting(
        0.0, "Adaptive noise offset", relevant=is_set("loss.noise_offset"), ge=-1, le=1
    )
    """Added to the noise offset, times how far the picture's channel is from zero on average."""
    multires_noise: Multires | None = setting(
        None, "Pyramid noise", also=("multires_noise_iterations", "multires_noise_discount")
    )
    """Pyramid noise: `iterations` and `discount`."""
    input_perturbation: float = setting(
        0.0, "Input perturbation", also=("ip_noise_gamma", "perturbation_noise_weight"), ge=0, le=1
    )
    """Extra noise on the input only, against drift while sampling; 0.1 is usual."""
    zero_terminal_snr: bool = setting(
        False, "Zero terminal SNR", also=("rescale_betas_zero_snr", "rescale_noise_scheduler_to_zero_terminal_snr")
    )
    """Train to full noise; only for v-prediction models made for it."""
    prediction_type: Literal["auto", "epsilon", "v_prediction"] = setting(
        "auto", "Prediction", also=("v_parameterization", "is_v_pred", "force_v_prediction", "force_epsilon_prediction")
    )
    """`auto` reads it from the model."""
    timestep_sampling: TimestepSampling = setting(
        "uniform",
        "Timestep sampling",
        also=("timestep_type", "timestep_distribution", "weighting_scheme", "sigmoid", "content_or_style"),
    )
    """How noise levels are drawn: all alike, more of the middle (`logit_normal`, also known as sigmoid), or `mode`."""
    logit_mean: float = setting(
        0.0,
        "Logit mean",
        also=("noising_bias", "sigmoid_bias"),
        relevant=is_one_of("loss.timestep_sampling", "logit_normal"),
        ge=-10,
        le=10,
    )
    """For `logit_normal`: above 0 prefers more noise, below 0 less."""
    logit_std: float = setting(
        1.0,
        "Logit width",
        also=("noising_weight", "sigmoid_scale"),
        relevant=is_one_of("loss.timestep_sampling", "logit_normal"),
        gt=0,
        le=10,
    )
    """For `logit_normal`: smaller stays closer to the middle."""
    mode_scale: float = setting(
        1.29, "Mode scale", relevant=is_one_of("loss.timestep_sampling", "mode"), ge=-1, le=1.75
    )
    """For `mode`: above 0 prefers the middle, below 0 both ends."""
    min_timestep: int = setting(
        0, "Lowest timestep", also=("min_denoising_steps", "min_noising_strength"), ge=0, le=999
    )
    """0 is no noise."""
    max_timestep: int = setting(
        1000, "Highest timestep", also=("max_denoising_steps", "max_noising_strength"), ge=1, le=1000
    )
    """1000 is all noise; the highest itself is not drawn."""
    preserve: Preserve | None = setting(
        None,
        "Preserve the class",
        also=("diff_output_preservation", "diff_output_preservation_class", "diff_output_preservation_multiplier"),
    )
    """`class_word` and `weight`: keeps what the model knows of the class while the trigger word learns; a step takes
    about twice as long. Needs the trigger word under Output, and in the captions. Counts into the loss shown."""
    masked: Literal[False, "mask", "alpha"] = setting(
        False, "Masked loss", also=("masked_loss", "masked_training", "alpha_mask")
    )
    """Learn only from what is shown by the masks of the data set's folders, or by the pictures' alpha channel."""
    unmasked_weight: float = setting(
        0.0, "Weight outside masks", also=("mask_min_value",), relevant=is_set("loss.masked"), ge=0, le=1
    )
    """How much the rest of a picture counts; 0 for not at all, 0.1 keeps it from going astray. For `masked`."""

    @model_validator(mode="after")
    def _consistent(self) -> LossSettings:
        problems = list(_loss_problems(self))
        if problems:
            raise ValueError("; ".join(problems))
        return self


def _loss_problems(loss: LossSettings) -> Iterator[str]:
    if loss.unmasked_weight > 0 and not loss.masked:
        yield f"unmasked_weight ({loss.unmasked_weight:g}) needs masked to be mask or alpha"
    if loss.min_timestep >= loss.max_timestep:
        yield f"min_timestep ({loss.min_timestep}) must be below max_timestep ({loss.max_timestep})"
    weightings = {
        "min_snr_gamma": loss.min_snr_gamma is not None,
        "debiased_estimation": loss.debiased_estimation,
        "scale_v_pred_loss_like_noise_pred": loss.scale_v_pred_loss_like_noise_pred,
    }
    chosen = [name for name, is_set in weightings.items() if is_set]
    if len(chosen) > 1:
        yield f"{' and '.join(chosen)} weight the noise levels, each in its way: set only one"
    if loss.huber_schedule != "constant" and loss.type not in ("huber", "smooth_l1"):
        yield f"huber_schedule ({loss.huber_schedule}) needs type huber or smooth_l1, and it is {loss.type}"
    if not loss.noise_offset and (loss.noise_offset_random_strength or loss.adaptive_noise_scale):
        yield "noise_offset_random_strength and adaptive_noise_scale change noise_offset, and it is 0"
    if loss.timestep_sampling != "logit_normal" and (loss.logit_mean, loss.logit_std) != (0, 1):
        yield f"logit_mean and logit_std need timestep_sampling logit_normal, and it is {loss.timestep_sampling}"
    if loss.timestep_sampling != "mode" and loss.mode_scale != 1.29:
        yield f"mode_scale ({loss.mode_scale:g}) needs timestep_sampling mode, and it is {loss.timestep_sampling}"
