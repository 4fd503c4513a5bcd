"""What is minimised. Pure functions of predictions, targets and signal-to-noise ratios."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from trainer.config import HuberSchedule, LossSettings, LossType
from trainer.errors import UserError

SNR_LIMIT = 1000.0
"""Almost clean pictures would count for too much, or for nothing, beyond it."""

_ELEMENTS: dict[LossType, Callable[[Tensor, Tensor], Tensor]] = {
    "l2": lambda difference, c: difference**2,
    "l1": lambda difference, c: difference.abs(),
    "huber": lambda difference, c: 2 * c * ((difference**2 + c**2).sqrt() - c),
    "smooth_l1": lambda difference, c: 2 * ((difference**2 + c**2).sqrt() - c),
}


def check_prediction_type(settings: LossSettings, prediction_type: str) -> None:
    """Raise UserError when a setting needs a model that predicts something else."""
    name = "loss.scale_v_pred_loss_like_noise_pred"
    if settings.scale_v_pred_loss_like_noise_pred and prediction_type != "v_prediction":
        message = f"{name}: this needs a v-prediction model, and the model is {prediction_type}."
        raise UserError("loss.prediction_type", message, "Turn it off, or choose another model.", name)


def loss_per_picture(
    prediction: Tensor,
    target: Tensor,
    kind: LossType,
    thresholds: Tensor,
    masks: Tensor | None = None,
    unmasked_weight: float = 0.0,
) -> Tensor:
    """Mean loss of each picture, (B,) float32, of predictions and targets (B, C, h, w); thresholds ``c`` (B,).

    With masks (B, 1, h, w) the mean is over what they show, see ``mean_per_picture``.

    huber and smooth_l1 are the pseudo-Huber losses ``2c (sqrt(d^2 + c^2) - c)`` and ``2 (sqrt(d^2 + c^2) - c)``
    (Charbonnier 1994): square below c, linear above; the first meets l2 near zero, the second l1 far out.
    """
    difference = prediction.float() - target.float()
    losses = _ELEMENTS[kind](difference, thresholds.view(-1, 1, 1, 1))
    return mean_per_picture(losses, masks, unmasked_weight)


def mean_per_picture(losses: Tensor, masks: Tensor | None, unmasked_weight: float = 0.0) -> Tensor:
    """Mean of losses (B, C, h, w) over each picture, (B,); with masks (B, 1, h, w) in 0..1 over what they show.

    ``sum(w * loss) / (C * sum(w))`` with ``w = u + (1 - u) * mask`` and the unmasked weight ``u``: a small thing counts
    as much as a large one. Where nothing counts the loss is 0.
    """
    if masks is None:
        return losses.flatten(1).mean(1)
    weights = unmasked_weight + (1 - unmasked_weight) * masks.to(losses)
    area = losses.shape[1] * weights.flatten(1).sum(1)
    return (losses * weights).flatten(1).sum(1) / area.clamp(min=torch.finfo(area.dtype).tiny)


def huber_thresholds(settings: LossSettings, alphas_cumprod: Tensor, timesteps: Tensor) -> Tensor:
    """``c`` of the pseudo-Huber losses for each picture, (B,) float32, by its noise level."""
    return _THRESHOLDS[settings.huber_schedule](settings.huber_c, alphas_cumprod, timesteps)


def _constant(c: float, alphas_cumprod: Tensor, timesteps: Tensor) -> Tensor:
    return torch.full(timesteps.shape, c, device=timesteps.device)


def _exponential(c: float, alphas_cumprod: Tensor, timesteps: Tensor) -> Tensor:
    """``c ** (t / T)``: 1 at no noise, c at full noise (as sd-scripts)."""
    return torch.full(timesteps.shape, c, device=timesteps.device) ** (timesteps / len(alphas_cumprod))


def _by_snr(c: float, alphas_cumprod: Tensor, timesteps: Tensor) -> Tensor:
    """``(1 - c) / (1 + sigma)^2 + c`` with ``sigma = sqrt((1 - a_t) / a_t)`` (as sd-scripts)."""
    kept = alphas_cumprod[timesteps]
    return (1 - c) / (1 + ((1 - kept) / kept).sqrt()) ** 2 + c


_THRESHOLDS: dict[HuberSchedule, Callable[[float, Tensor, Tensor], Tensor]] = {
    "constant": _constant,
    "exponential": _exponential,
    "snr": _by_snr,
}


def noise_level_weights(snr: Tensor, prediction_type: str, settings: LossSettings) -> Tensor:
    """How much each picture's noise level counts, (B,), by the settings; ones where none is asked for."""
    if settings.min_snr_gamma is not None:
        return min_snr_weights(snr, settings.min_snr_gamma, prediction_type)
    if settings.debiased_estimation:
        return debiased_weights(snr, prediction_type)
    if settings.scale_v_pred_loss_like_noise_pred:
        return noise_like_weights(snr)
    return torch.ones_like(snr)


def min_snr_weights(snr: Tensor, gamma: float, prediction_type: str) -> Tensor:
    """Min-SNR-gamma weights (B,): ``min(snr, g) / snr`` for epsilon, ``min(snr, g) / (snr + 1)`` for v.

    Hang et al. 2023, 2303.09556, section 3.4.
    """
    return snr.clamp(max=gamma) / (snr if prediction_type == "epsilon" else snr + 1)


def debiased_weights(snr: Tensor, prediction_type: str) -> Tensor:
    """Debiased estimation weights (B,): ``1 / sqrt(min(snr, 1000))`` for epsilon, ``1 / (snr + 1)`` for v.

    Yu et al. 2023, 2310.08442.
    """
    if prediction_type == "epsilon":
        return snr.clamp(max=SNR_LIMIT).rsqrt()
    return 1 / (snr + 1)


def noise_like_weights(snr: Tensor) -> Tensor:
    """``snr / (snr + 1)`` with snr up to 1000, (B,): a v loss weighted as an epsilon loss is (as sd-scripts).

    For the same picture the squared error of v is ``(snr + 1) / snr`` times that of epsilon (2202.00512, appendix D).
    """
    limited = snr.clamp(max=SNR_LIMIT)
    return limited / (limited + 1)
