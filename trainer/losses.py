"""What is minimised. Pure functions of predictions, targets and signal-to-noise ratios."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from trainer.config import LossSettings, LossType

DEBIASED_SNR_LIMIT = 1000.0

_ELEMENTS: dict[LossType, Callable[[Tensor, float], Tensor]] = {
    "l2": lambda difference, c: difference**2,
    "l1": lambda difference, c: difference.abs(),
    "huber": lambda difference, c: 2 * c * ((difference**2 + c**2).sqrt() - c),
    "smooth_l1": lambda difference, c: 2 * ((difference**2 + c**2).sqrt() - c),
}


def loss_per_picture(prediction: Tensor, target: Tensor, settings: LossSettings) -> Tensor:
    """Mean loss of each picture, (B,) float32, of predictions and targets (B, C, h, w).

    huber and smooth_l1 are the pseudo-Huber losses ``2c (sqrt(d^2 + c^2) - c)`` and ``2 (sqrt(d^2 + c^2) - c)``
    (Charbonnier 1994): square below c, linear above; the first meets l2 near zero, the second l1 far out.
    """
    difference = prediction.float() - target.float()
    return _ELEMENTS[settings.type](difference, settings.huber_c).flatten(1).mean(1)


def noise_level_weights(snr: Tensor, prediction_type: str, settings: LossSettings) -> Tensor:
    """How much each picture's noise level counts, (B,), by the settings; ones where none is asked for."""
    if settings.min_snr_gamma is not None:
        return min_snr_weights(snr, settings.min_snr_gamma, prediction_type)
    if settings.debiased_estimation:
        return debiased_weights(snr, prediction_type)
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
        return snr.clamp(max=DEBIASED_SNR_LIMIT).rsqrt()
    return 1 / (snr + 1)
