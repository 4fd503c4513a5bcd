"""What the other programs do where a file says little or says it oddly; each case names where they do so."""

from __future__ import annotations

import json
from typing import Any

import pytest

from trainer.imports.base import Imported
from trainer.imports.draft import at
from trainer.imports.reading import import_text

LORA_PY = 'network_module = "networks.lora"\n'
LYCORIS = 'network_module = "lycoris.kohya"\n'
KOHYA = {"LoRA_type": "Standard", "max_resolution": "512,512", "network_dim": 8, "lr_scheduler": "cosine"}
AIT = {"network": {"type": "lora"}, "datasets": [{"folder_path": "/a"}], "model": {"name_or_path": "/m"}}


def sd(text: str) -> Imported:
    return import_text(LORA_PY + text, "settings.toml")


def kohya(**changes: Any) -> Imported:
    return import_text(json.dumps({**KOHYA, **changes}), "settings.json")


def onetrainer(**changes: Any) -> Imported:
    return import_text(json.dumps({"training_method": "LORA", "base_model_name": "x", **changes}), "config.json")


def ai_toolkit(**sections: Any) -> Imported:
    process = {"type": "sd_trainer", **AIT, **sections}
    return import_text(json.dumps({"job": "extension", "config": {"name": "a", "process": [process]}}), "job.json")


SD_SCRIPTS: dict[str, tuple[str, dict[str, Any]]] = {
    # networks/lora.py create_modules: with conv_dim, be it 0, ResNets' linear layers and 1x1 convolutions too
    "conv_dim 0": ('network_args = ["conv_dim=0"]', {"lora.target": "full", "lora.conv_rank": 0}),
    "conv_dim": ('network_args = ["conv_dim=4"]', {"lora.target": "full", "lora.conv_rank": 4, "lora.conv_alpha": 1}),
    # networks/lora.py prepare_optimizer_params: a ratio of a part is of that part alone
    "LoRA+ of the text encoder": (
        'network_args = ["loraplus_text_encoder_lr_ratio=4"]',
        {"train.loraplus_lr_ratio": 1},
    ),
    "LoRA+ of the only part": (
        'network_train_text_encoder_only = true\nnetwork_args = ["loraplus_text_encoder_lr_ratio=4"]',
        {"train.loraplus_lr_ratio": 4},
    ),
    # networks/lora.py get_block_lr_weight: 12 blocks down, what is more is left out; parse_block_lr_kwargs: blank is 0
    "block rates": (
        'network_args = ["down_lr_weight=1,1,1,1,1,1,1,1,1,1,1,,0.5"]',
        {"lora.block_lrs": {r"^unet\.down_blocks\.3\.(resnets|attentions)\.1\.": 0}},
    ),
    # transformers get_polynomial_decay_schedule_with_warmup: lr_end 1e-7
    "polynomial": ('lr_scheduler = "polynomial"\nlearning_rate = 1e-4', {"train.lr_min_ratio": pytest.approx(1e-3)}),
    # library/train_util.py add_optimizer_arguments: lr_decay_steps is 0 by itself
    "no decay": (
        'lr_scheduler = "warmup_stable_decay"\nlr_warmup_steps = 10\nlr_scheduler_min_lr_ratio = 0.1',
        {"train.lr_scheduler": "constant_with_warmup", "train.lr_warmup_steps": 10, "train.lr_min_ratio": 0},
    ),
    "torch's cosine": (
        'lr_scheduler_type = "CosineAnnealingLR"\nlr_scheduler_args = ["T_max=9", "eta_min=1e-5"]\nlearning_rate=1e-4',
        {"train.lr_scheduler": "cosine", "train.lr_min_ratio": pytest.approx(0.1)},
    ),
    # library/train_util.py get_huber_threshold_if_needed
    "huber_scale": (
        'loss_type = "huber"\nhuber_schedule = "constant"\nhuber_c = 0.2\nhuber_scale = 2.0',
        {"loss.huber_c": 0.4, "loss.huber_schedule": "constant"},
    ),
    "huber defaults": ('loss_type = "smooth_l1"', {"loss.huber_c": 0.1, "loss.huber_schedule": "snr"}),
    # library/train_util.py sample_image_inference
    "previews": (
        'sample_prompts = "a cat\\n"\nsample_every_n_steps = 5',
        {"samples.prompts.0.width": 512, "samples.prompts.0.steps": 30, "samples.prompts.0.guidance": 7.5},
    ),
    # library/config_util.py ARGPARSE_OPTNAME_TO_CONFIG_OPTNAME
    "dataset_repeats": (
        'dataset_repeats = 3\n[[datasets]]\n[[datasets.subsets]]\nimage_dir = "/a"\n[[datasets.subsets]]\n'
        'image_dir = "/b"\nnum_repeats = 2',
        {"dataset.sources.0.repeats": 3, "dataset.sources.1.repeats": 2},
    ),
    "metadata_trigger_phrase": ('metadata_trigger_phrase = "ohwx"', {"output.trigger": "ohwx"}),
    "no caption files": (
        'caption_extension = ".none-use-foldername"',
        {"dataset.caption_extension": ".noneusefoldername"},
    ),
    # dadaptation and prodigyopt raise "Setting different lr values in different parameter groups"
    "one rate": (
        'optimizer_type = "Prodigy"\nlearning_rate = 1.0\ntext_encoder_lr = 0.5',
        {"train.learning_rate": 1, "train.text_encoder_learning_rate": None},
    ),
    "a frozen text encoder": (
        'optimizer_type = "Prodigy"\nlearning_rate = 1.0\ntext_encoder_lr = 0.0',
        {"train.text_encoder_learning_rate": 0},
    ),
}


@pytest.mark.parametrize(("text", "expected"), SD_SCRIPTS.values(), ids=SD_SCRIPTS)
def test_sd_scripts(text: str, expected: dict[str, Any]) -> None:
    _check(sd(text), expected)


def test_lycoris_tells_which_layers_and_which_dropout_differ() -> None:
    """LyCORIS ``config.py`` FULL_UNET_NAMES and ``modules/locon.py`` get_diff_weight, bypass_forward_diff."""
    report = import_text(LYCORIS + 'network_args = ["algo=locon", "rank_dropout=0.1"]', "settings.toml").report
    notes = {line.setting: line.note for line in report.guessed}
    assert "time embedding" in notes["lora.target"]
    assert "outputs" in notes["lora.rank_dropout"]


KOHYA_GUI: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    # kohya_gui/lora_gui.py train_model: ["", False, None] are dropped, and 0 is equal to False
    "zeros": (
        {"network_alpha": 0, "max_grad_norm": 0, "prior_loss_weight": 0, "min_bucket_reso": 0, "enable_bucket": True},
        {"lora.alpha": 1, "train.max_grad_norm": 1, "train.prior_loss_weight": 1, "dataset.buckets.min": 256},
    ),
    # the same: empty cycles are the number of epochs
    "cycles": (
        {"lr_scheduler": "cosine_with_restarts", "lr_scheduler_num_cycles": "", "epoch": 4},
        {"train.lr_num_cycles": 4, "train.epochs": 4},
    ),
    "a switch of its own": ({"use_wandb": True}, {"trackers": ["wandb"]}),
    # cache_text_encoder_outputs only `if sdxl and ...`
    "captions cached": ({"sdxl_cache_text_encoder_outputs": True}, {"lora.train": "both"}),
    "captions cached for SDXL": ({"sdxl": True, "sdxl_cache_text_encoder_outputs": True}, {"lora.train": "unet"}),
    # common_gui.py resolve_lr_warmup_steps
    "warm-up in percent": ({"lr_warmup": 10}, {"train.lr_warmup_steps": 0.1}),
    "warm-up all the time": ({"lr_warmup": 100}, {"train.lr_warmup_steps": 0.999}),
}


@pytest.mark.parametrize(("changes", "expected"), KOHYA_GUI.values(), ids=KOHYA_GUI)
def test_kohya_gui(changes: dict[str, Any], expected: dict[str, Any]) -> None:
    _check(kohya(**changes), expected)


ONETRAINER: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    # modules/util/create.py create_optimizer: what holds where the file says nothing
    "ADAFACTOR": ({"optimizer": {"optimizer": "ADAFACTOR"}}, {"train.optimizer_args": {"scale_parameter": True}}),
    "DADAPT_LION": (
        {"optimizer": {"optimizer": "DADAPT_LION", "beta1": 0.95}},
        {"train.optimizer_args": {"betas": [0.95, 0.999]}},
    ),
    "SCHEDULE_FREE_ADAMW": (
        {"optimizer": {"optimizer": "SCHEDULE_FREE_ADAMW"}},
        {"train.optimizer_args": {"weight_decay": 0.01, "warmup_steps": 200}, "train.lr_warmup_steps": 0},
    ),
    # with AdamW in its place a rate of 1 would be the end of the training
    "PRODIGY_PLUS_SCHEDULE_FREE": (
        {"optimizer": {"optimizer": "PRODIGY_PLUS_SCHEDULE_FREE"}, "learning_rate": 1.0},
        {"train.optimizer": "prodigy", "train.learning_rate": 1},
    ),
    # modules/modelSetup/StableDiffusionLoRASetup.py setup_model: force_v_prediction
    "zero terminal SNR": (
        {"rescale_noise_scheduler_to_zero_terminal_snr": True},
        {"loss.prediction_type": "v_prediction", "loss.zero_terminal_snr": True},
    ),
    "several resolutions": ({"resolution": "512,768", "epochs": 10}, {"train.epochs": 5}),
    # modules/module/LoRAModule.py: filters are for the UNet alone
    "attn-only with the text encoder": (
        {"layer_filter": "attn", "text_encoder": {"train": True}},
        {"lora.target": "full", "lora.include": ["attn", "^text_encoder"]},
    ),
    "attn-only": ({"layer_filter": "attn", "text_encoder": {"train": False}}, {"lora.target": "attention"}),
}


@pytest.mark.parametrize(("changes", "expected"), ONETRAINER.values(), ids=ONETRAINER)
def test_onetrainer(changes: dict[str, Any], expected: dict[str, Any]) -> None:
    _check(onetrainer(**changes), expected)


def test_onetrainer_tells_what_is_only_nearly_the_same() -> None:
    """``lr_scheduler_util.py`` lr_lambda_rex (d = 0.9), ``ModelSetupNoiseMixin.py``, ``StableDiffusionModel.py``."""
    text = {"train": True, "dropout_probability": 0.1}
    report = onetrainer(learning_rate_scheduler="REX", timestep_shift=2.0, text_encoder=text).report
    notes = {line.source: line.note for line in [*report.guessed, *report.no_equivalent]}
    assert "0.91" in notes["learning_rate_scheduler"]
    assert "more noise" in notes["timestep_shift"]
    assert "zeros" in notes["text_encoder.dropout_probability"]


AI_TOOLKIT: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    # jobs/process/BaseSDTrainProcess.py optimizer_step_at: the older key counts batches as steps
    "older accumulation": (
        {
            "train": {"steps": 1000, "gradient_accumulation_steps": 4},
            "save": {"save_every": 100},
            "sample": {"sample_every": 50},
        },
        {"train.max_steps": 250, "output.save_every_steps": 25, "samples.every_steps": 13},
    ),
    "newer accumulation": (
        {"train": {"steps": 1000, "gradient_accumulation": 4}},
        {"train.max_steps": 1000, "train.gradient_accumulation_steps": 4},
    ),
    # extensions_built_in/sd_trainer/SDTrainer.py: c = 0.01, and no clipping with adafactor
    "pseudo_huber": ({"train": {"loss_type": "pseudo_huber"}}, {"loss.type": "smooth_l1", "loss.huber_c": 0.01}),
    "adafactor": ({"train": {"optimizer": "adafactor", "max_grad_norm": 1.0}}, {"train.max_grad_norm": 0}),
    # toolkit/scheduler.py: torch's LinearLR, which falls only when told to
    "linear": (
        {"train": {"lr_scheduler": "linear", "lr_scheduler_params": {"start_factor": 1.0, "end_factor": 0.1}}},
        {"train.lr_scheduler": "linear", "train.lr_min_ratio": 0.1},
    ),
    # toolkit/optimizer.py: startswith("prodigy"), and a rate of 1 for one below 0.1
    "any Prodigy": (
        {"train": {"optimizer": "prodigy_new", "lr": 1e-4}},
        {"train.optimizer": "prodigy", "train.learning_rate": 1},
    ),
    # toolkit/optimizers/adam8bit.py: no weight decay by itself
    "adamw8": ({"train": {"optimizer": "adamw8"}}, {"train.optimizer_args": {"eps": 1e-6, "weight_decay": 0}}),
    # toolkit/config_modules.py NetworkConfig, toolkit/lora_special.py
    "rank alone": ({"network": {"type": "lora", "linear": 32}}, {"lora.rank": 32, "lora.alpha": 1}),
    "alpha 0": ({"network": {"type": "lora", "linear": 32, "linear_alpha": 0}}, {"lora.alpha": 32}),
    # toolkit/stable_diffusion_model.py: only other families are quantised
    "quantize": ({"model": {"name_or_path": "/m", "arch": "sdxl", "quantize": True}}, {"model.quantize": "none"}),
}


@pytest.mark.parametrize(("sections", "expected"), AI_TOOLKIT.values(), ids=AI_TOOLKIT)
def test_ai_toolkit(sections: dict[str, Any], expected: dict[str, Any]) -> None:
    _check(ai_toolkit(**sections), expected)


def test_ai_toolkit_tells_how_captions_differ() -> None:
    """``toolkit/dataloader_mixins.py`` get_caption: all tags are shuffled, and the trigger word comes afterwards."""
    dataset = {"folder_path": "/a", "shuffle_tokens": True, "keep_tokens": 1, "caption_dropout_rate": 0.1}
    report = ai_toolkit(datasets=[dataset], trigger_word="ohwx").report
    notes = {line.source: line.note for line in report.guessed}
    assert "shuffled there, too" in notes["datasets.0.keep_tokens"]
    assert "trigger word was left" in notes["datasets.0.caption_dropout_rate"]


def _check(found: Imported, expected: dict[str, Any]) -> None:
    values = found.config.model_dump(mode="json")
    assert {setting: at(values, setting) for setting in expected} == expected
