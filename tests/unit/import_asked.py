"""What each of the sample files asks its own program for, read by hand with that program's source beside it.

Sources: sd-scripts ``library/train_util.py`` (``get_optimizer``, ``get_scheduler_fix``) and ``networks/lora.py``
(``prepare_optimizer_params``), kohya_ss ``kohya_gui/lora_gui.py`` (``train_model``), OneTrainer
``modules/util/create.py`` and ``modules/util/config/TrainConfig.py``, ai-toolkit ``toolkit/optimizer.py``,
``toolkit/scheduler.py`` and ``toolkit/config_modules.py``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

Rates = dict[str, float]


class Asked(NamedTuple):
    """What is trained.

    Attributes:
        optimizer: name of the class.
        rates: learning rate of each part that learns; ``unet up`` is LoRA+'s. Empty where blocks follow a curve.
        schedule: a name of ``SCHEDULES``; empty for one that is only taken over as nearly as it goes.
        warmup: steps, or a share of the run below 1.
        rank: of linear layers; 1024 stands for full matrices.
        alpha: of linear layers.
        options: of the schedule.
        arguments: of the optimizer, as it holds them for every parameter.
    """

    optimizer: str
    rates: Rates
    schedule: str
    warmup: float
    rank: int
    alpha: float
    options: dict[str, Any] = {}  # noqa: RUF012 - never changed
    arguments: dict[str, Any] = {}  # noqa: RUF012 - never changed


def unet(rate: float) -> Rates:
    """A rate for the UNet alone."""
    return {"unet": rate}


def both(rate: float, text: float | None = None) -> Rates:
    """A rate for the UNet, and one for the text encoder; the same without."""
    return {"unet": rate, "text_encoder": rate if text is None else text}


USUAL = {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01}
"""torch's AdamW and bitsandbytes' AdamW8bit."""
AIT = {**USUAL, "eps": 1e-6}
"""What ai-toolkit gives AdamW and AdamW8bit."""
OWN = 2e-6
"""sd-scripts' ``--learning_rate``."""
SAFE = {"decouple": True, "weight_decay": 0.01, "use_bias_correction": True, "safeguard_warmup": True}

ASKED: dict[str, Asked] = {
    "sd_scripts/flat_keys": Asked(
        "AdamW8bit", both(2e-4, 5e-5), "cosine_with_restarts", 100, 32, 16, {"num_cycles": 4}, USUAL
    ),
    "sd_scripts/sections": Asked(
        "AdamW8bit", both(5e-4, 1e-4), "cosine", 0.05, 16, 8, {}, {"weight_decay": 0.1, "betas": (0.9, 0.99)}
    ),
    "sd_scripts/dataset_only": Asked("AdamW", unet(1e-4), "cosine", 0, 16, 16, {}, USUAL),  # ours: it says nothing
    "sd_scripts/with_dataset_config": Asked(
        "Prodigy", unet(1), "constant", 0, 16, 8, {}, {"decouple": True, "weight_decay": 0.01, "betas": (0.9, 0.99)}
    ),
    "sd_scripts/only_defaults": Asked("AdamW", both(OWN), "constant", 0, 4, 1, {}, USUAL),
    "sd_scripts/bom_crlf_old_names": Asked("AdamW8bit", both(1e-4), "constant", 0, 8, 4, {}, USUAL),
    "sd_scripts/lokr_weights": Asked(
        "CAME", both(5e-4, 1e-5), "warmup_stable_decay", 50, 1024, 1024, {"decay": 0.2, "min_lr_ratio": 0.1}
    ),
    "sd_scripts/v_pred_sdxl": Asked(
        "Adafactor",
        {"unet": OWN, "unet up": 4 * OWN, "text_encoder": OWN, "text_encoder up": 4 * OWN},
        "constant_with_warmup",
        0.1,
        32,
        32,
        {},
        {"scale_parameter": False, "relative_step": False, "clip_threshold": 1.0, "decay_rate": -0.8},
    ),
    "sd_scripts/curves_by_block": Asked("AdamW", {}, "polynomial", 0, 4, 1, {"power": 2.0, "lr_init": OWN}, USUAL),
    "sd_scripts/finetune_captions": Asked("AdamW", both(OWN), "constant", 0, 4, 1, {}, USUAL),
    "sd_scripts/odd_everything": Asked("RAdam", both(OWN), "", 0, 4, 1, {}, {"weight_decay": 0}),
    "sd_scripts/sd21_768": Asked("Lion8bit", both(3e-5), "cosine_with_min_lr", 0, 16, 8, {"min_lr_rate": 0.05}),
    "command_line/linux": Asked(
        "AdamW8bit", both(1e-4, 5e-5), "cosine", 100, 32, 16, {}, {"weight_decay": 0.1, "betas": (0.9, 0.99)}
    ),
    "command_line/windows_caret": Asked(
        "Prodigy", unet(1), "constant", 0, 64, 32, {}, {"decouple": True, "weight_decay": 0.01, "d_coef": 2}
    ),
    "command_line/powershell": Asked("AdamW", both(OWN), "constant", 0, 8, 1, {}, USUAL),
    "command_line/flags_only": Asked("AdamW", both(OWN), "constant", 0, 16, 16, {}, USUAL),
    "command_line/lycoris_one_line": Asked("AdamW", both(5e-4), "constant", 0, 8, 4, {}, USUAL),
    "command_line/config_file": Asked("AdamW", both(OWN), "constant", 0, 64, 4, {}, USUAL),
    "command_line/dataset_config": Asked("AdamW", both(OWN), "constant", 0, 16, 1, {}, USUAL),
    "command_line/missing_config_files": Asked("AdamW", both(OWN), "constant", 0, 16, 1, {}, USUAL),
    "command_line/hyphens_and_secrets": Asked("AdamW", both(OWN), "constant", 0, 4, 1, {}, USUAL),
    "command_line/flux": Asked("AdamW8bit", both(1e-4), "constant", 0, 4, 1, {}, USUAL),
    "command_line/escaped_blanks": Asked("AdamW", both(OWN), "constant", 0, 4, 1, {}, USUAL),
    "command_line/repeated_and_empty": Asked("AdamW8bit", both(OWN, 1e-5), "constant", 0, 12, 1, {}, USUAL),
    "kohya_gui/untouched_defaults": Asked("AdamW8bit", both(1e-4, 5e-5), "cosine", 0.1, 8, 1, {}, USUAL),
    "kohya_gui/sd15_character_reg": Asked(
        "AdamW",
        both(1e-4, 5e-5),
        "cosine_with_restarts",
        0.05,
        32,
        16,
        {"num_cycles": 3},
        {"weight_decay": 0.1, "betas": (0.9, 0.99)},
    ),
    "kohya_gui/sdxl_prodigy_text_numbers": Asked(
        "Prodigy", unet(1), "constant_with_warmup", 100, 64, 32, {}, {**SAFE, "d_coef": 0.8}
    ),
    "kohya_gui/lycoris_locon_dora": Asked("AdamW8bit", both(1e-4, 5e-5), "cosine", 0.1, 16, 8, {}, USUAL),
    "kohya_gui/lycoris_loha": Asked(
        "Lion", both(1e-5), "cosine", 0.1, 8, 4, {}, {"weight_decay": 0, "betas": (0.9, 0.99)}
    ),
    "kohya_gui/lycoris_lokr_huge_dim": Asked("AdamW8bit", both(1e-4, 5e-5), "cosine", 0.1, 1024, 1024, {}, USUAL),
    # 0.5 for the text encoder: D-Adaptation stops at that (dadaptation/dadapt_adam.py), and so one rate holds
    "kohya_gui/old_with_bom_crlf": Asked("DAdaptAdam", both(1), "constant", 0, 128, 64),
    "kohya_gui/kohya_locon_blocks": Asked(  # LoRA+ of 16, and a quarter in the middle
        "AdamW8bit",
        {
            **both(1e-4, 5e-5),
            "unet up": 16e-4,
            "unet x0.25": 25e-6,
            "unet up x0.25": 4e-4,
            "text_encoder up": 8e-4,
        },
        "cosine",
        0.1,
        16,
        16,
        {},
        USUAL,
    ),
    "kohya_gui/sd21_v_huber": Asked("PagedAdamW8bit", both(1e-4, 5e-5), "cosine", 0.1, 8, 1, {}, USUAL),
    "kohya_gui/adafactor_relative": Asked("Adafactor", both(3e-4), "", 0, 8, 1, {}, {"scale_parameter": False}),
    "kohya_gui/odd_nulls_unknown_secrets": Asked("AdamW8bit", unet(1e-4), "cosine", 0.1, 4, 1, {}, USUAL),
    "kohya_gui/schedulefree_text_encoder": Asked(
        "AdamWScheduleFree", {"text_encoder": 2e-4}, "constant", 0, 8, 1, {}, {"weight_decay": 0.02}
    ),
    "onetrainer/full_sd15": Asked("AdamW", both(3e-4), "constant_with_warmup", 200, 16, 1, {}, USUAL),
    "onetrainer/preset_sdxl": Asked("AdamW", unet(3e-4), "constant_with_warmup", 200, 16, 1, {}, USUAL),
    "onetrainer/prodigy_cosine_ema": Asked(
        "Prodigy", unet(1), "cosine_with_min_lr", 0.05, 16, 1, {"min_lr_rate": 0.1}, {**SAFE, "betas": (0.9, 0.99)}
    ),
    # times the root of a batch of 4, 4 times
    "onetrainer/rates_scaled_restarts": Asked("AdamW8bit", both(12e-4, 4e-4), "", 50, 16, 1, {}, USUAL),
    "onetrainer/concepts_many": Asked("AdamW", both(3e-4), "constant_with_warmup", 200, 16, 1, {}, USUAL),
    "onetrainer/lokr_full_matrix": Asked("AdamW", both(3e-4), "constant_with_warmup", 200, 1024, 1024, {}, USUAL),
    "onetrainer/dora_custom_layers": Asked("AdamW", both(3e-4), "constant_with_warmup", 200, 32, 32, {}, USUAL),
    "onetrainer/loha_weights_and_noise": Asked("AdamW", both(3e-4), "constant_with_warmup", 200, 8, 4, {}, USUAL),
    "onetrainer/version0_bom": Asked(
        "Adafactor", both(2e-4, 1e-4), "constant", 0, 64, 64, {}, {"eps": (1e-30, 1e-3), "scale_parameter": False}
    ),
    "onetrainer/sd21_v_samples": Asked(
        "AdamWScheduleFree", both(3e-4), "constant", 0, 16, 1, {}, {"weight_decay": 0.01, "warmup_steps": 200}
    ),
    "onetrainer/masked_unknown_secrets": Asked("AdamW", both(3e-4), "constant_with_warmup", 200, 16, 1, {}, USUAL),
    "onetrainer/flux": Asked("Lion", both(3e-4), "", 0, 16, 1, {}, {"betas": (0.9, 0.99), "weight_decay": 0}),
    "ai_toolkit/sd15_example": Asked("AdamW8bit", unet(1e-4), "constant", 0, 16, 8, {}, AIT),
    "ai_toolkit/minimal": Asked("AdamW", unet(1e-6), "constant", 0, 4, 1, {}, AIT),
    "ai_toolkit/sdxl_prodigy_te": Asked(
        "Prodigy",
        both(1),
        "cosine_with_min_lr",
        0,
        32,
        16,
        {"min_lr_rate": 1e-5},
        {**SAFE, "decouple": True, "d_coef": 2},
    ),
    "ai_toolkit/page_job": Asked("AdamW8bit", unet(1e-4), "constant", 0, 32, 32, {}, {**AIT, "weight_decay": 1e-4}),
    "ai_toolkit/lokr_full_rank": Asked(
        "Lion", unet(5e-4), "constant_with_warmup", 50, 1024, 1024, {}, {"betas": (0.9, 0.99), "weight_decay": 0}
    ),
    "ai_toolkit/lokr_ranked_dadapt": Asked("DAdaptAdam", unet(1), "constant", 0, 8, 4, {}, {"eps": 1e-6}),
    "ai_toolkit/bom_crlf_text_numbers": Asked("AdamW", unet(2e-5), "constant", 0, 24, 12, {}, AIT),
    "ai_toolkit/preservation_masks": Asked(
        "Adafactor", unet(1e-4), "constant", 0, 16, 16, {}, {"scale_parameter": False, "weight_decay": 1e-4}
    ),
    "ai_toolkit/odd_unknown_nulls": Asked("AdamW", unet(1e-4), "", 0, 4, 4),  # its own automagic is not there
    "ai_toolkit/lora_from_lora": Asked("Adam", {"text_encoder": 1e-4}, "", 0, 16, 16, {}, {"eps": 1e-6}),
    "ai_toolkit/flux": Asked("AdamW8bit", unet(4e-4), "constant", 0, 16, 16, {}, AIT),
    "ai_toolkit/two_processes": Asked("Lion8bit", unet(1e-4), "constant", 0, 4, 4),
}
