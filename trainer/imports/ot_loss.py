"""OneTrainer's loss: ``ModelSetupDiffusionLossMixin.py`` and ``ModelSetupNoiseMixin.py`` there."""

from __future__ import annotations

from trainer.imports.draft import Draft

_OF_MASKS = (
    "masked_training",
    "unmasked_probability",
    "normalize_masked_area_loss",
    "masked_prior_preservation_weight",
)
_DISTRIBUTIONS = {"UNIFORM": "uniform", "LOGIT_NORMAL": "logit_normal", "HEAVY_TAIL": "mode"}
_MASKS_NOTE = (
    "its masks lie beside the pictures as NAME-masklabel.png, and would be trained on as pictures: put them into a "
    "folder of their own, under the pictures' names, and set it as the folder's masks"
)


def put_loss(draft: Draft) -> None:
    """What is minimised, weights of noise levels and which of them are drawn, masks."""
    _put_loss_type(draft)
    weight = draft.text("loss_weight_fn")
    gamma = draft.number("min_snr_gamma")  # before there was a choice
    if gamma:
        draft.put("loss.min_snr_gamma", gamma, "min_snr_gamma")
    elif weight == "MIN_SNR_GAMMA":
        draft.put("loss.min_snr_gamma", draft.number("loss_weight_strength"), "loss_weight_fn", "loss_weight_strength")
    elif weight == "DEBIASED_ESTIMATION":
        predicts_v = draft.config.get("loss", {}).get("prediction_type") == "v_prediction"
        note = "by the root of 1 / (snr + 1) there for v-prediction, here by 1 / (snr + 1)" if predicts_v else ""
        draft.put("loss.debiased_estimation", True, "loss_weight_fn", note=note)
    elif weight != "CONSTANT":
        draft.lost("loss_weight_fn", f"{weight} is not there; see loss.min_snr_gamma and loss.debiased_estimation")
    draft.all_unused(("loss_weight_fn", "loss_weight_strength", "min_snr_gamma"), "no weighting of noise levels")
    _put_timesteps(draft)
    if draft.flag("masked_training"):
        draft.lost("masked_training", _MASKS_NOTE)
    else:
        draft.all_unused(_OF_MASKS, "masks are not used")
    draft.unused("unmasked_weight", "for masks, which are not used")
    if draft.text("loss_scaler") in ("", "NONE"):
        draft.unused("loss_scaler", "off in the file")


def _put_loss_type(draft: Draft) -> None:
    strengths = {"l2": "mse_strength", "l1": "mae_strength", "huber": "huber_strength"}
    given = {kind: draft.number(key) or 0.0 for kind, key in strengths.items()}
    kind = max(given, key=lambda each: given[each])
    huber = kind == "huber"
    note = "of the same form, with a rounder bend and twice as large" if huber else ""
    if not huber and given[kind] != 1:
        note = f"counted {given[kind]:g} times, which most optimizers do not notice"
    draft.put("loss.type", kind, strengths[kind], note=note)
    if huber:
        draft.put("loss.huber_c", draft.number("huber_delta"), "huber_delta", note="where the bend is")
    for other, key in strengths.items():
        if other != kind and given[other]:
            draft.lost(key, f"several losses were added up; here {kind} alone is minimised")
    if draft.number("log_cosh_strength"):
        draft.lost("log_cosh_strength", f"log-cosh is not there; {kind} is minimised")
    draft.all_unused((*strengths.values(), "log_cosh_strength", "huber_delta"), "not the loss that is used")


def _put_timesteps(draft: Draft) -> None:
    name = draft.text("timestep_distribution")
    weight, bias = draft.number("noising_weight") or 0.0, draft.number("noising_bias") or 0.0
    if name in _DISTRIBUTIONS:
        draft.put("loss.timestep_sampling", _DISTRIBUTIONS[name], "timestep_distribution")
    else:
        draft.lost(
            "timestep_distribution", f"{name} is not there; noise levels are drawn alike. See loss.timestep_sampling"
        )
    if name == "LOGIT_NORMAL":
        draft.put("loss.logit_mean", bias, "noising_bias")
        draft.put("loss.logit_std", weight + 1.0, "noising_weight")
    elif name == "HEAVY_TAIL":
        draft.put("loss.mode_scale", weight, "noising_weight")
    draft.all_unused(("noising_weight", "noising_bias"), "not used by this distribution")
    if (shift := draft.number("timestep_shift") or 1.0) != 1:
        told = "more" if shift > 1 else "less"
        draft.lost("timestep_shift", f"drew {told} noise than the distribution says; see loss.timestep_sampling")
    for key, setting in (("min_noising_strength", "loss.min_timestep"), ("max_noising_strength", "loss.max_timestep")):
        draft.put(setting, int(1000 * (draft.number(key) or 0.0)), key)
