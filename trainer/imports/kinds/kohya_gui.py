"""The settings that kohya_ss' page saves as JSON for a LoRA, of any of its versions.

kohya_ss turns them into arguments of sd-scripts; so does this, and then reads those. Sources: kohya_ss v26
``kohya_gui/lora_gui.py`` (``train_model``, ``resolve_network_train_flags``) and ``common_gui.py``
(``resolve_lr_warmup_steps``); older keys as in its ``presets/lora``.
"""

from __future__ import annotations

from typing import Any

from trainer.errors import UserError
from trainer.imports import values
from trainer.imports.base import ConfigKind, Document, Imported
from trainer.imports.draft import Draft
from trainer.imports.kinds.command_line import parse_flags, split_command
from trainer.imports.kinds.sd_scripts import with_network_arguments
from trainer.imports.sd_arguments import DEFAULTS, put_arguments
from trainer.imports.sd_network import ARGUMENT

_LABEL = "kohya_ss GUI"
_RENAMED = {
    "max_resolution": "resolution",
    "optimizer": "optimizer_type",
    "sdxl_cache_text_encoder_outputs": "cache_text_encoder_outputs",
    "sdxl_no_half_vae": "no_half_vae",
    "lora_network_weights": "network_weights",
    "stop_text_encoder_training_pct": "stop_text_encoder_training",
    "use_wandb": "log_with",
}
_NOTHING_AT_ZERO = (
    "adaptive_noise_scale", "clip_skip", "ip_noise_gamma", "max_timestep", "max_train_epochs", "max_train_steps",
    "min_snr_gamma", "noise_offset", "sample_every_n_epochs", "sample_every_n_steps", "save_every_n_epochs",
    "save_every_n_steps", "save_last_n_epochs", "save_last_n_steps", "seed", "v_pred_like_loss", "scale_weight_norms",
    "multires_noise_iterations",
)  # fmt: skip
"""For these the page passes nothing on where they are 0, which is what 0 stands for."""
_DEFAULT_AT_ZERO = tuple(name for name, value in DEFAULTS.items() if values.number(value))
_AT_ZERO_NOTE = "the page passes no 0 on; sd-scripts then takes its own default"
"""``train_model`` drops ``["", False, None]``, and 0 is equal to False."""
_NETWORK = {
    "LyCORIS_preset": "preset",
    "conv_dim": "conv_dim",
    "conv_alpha": "conv_alpha",
    "factor": "factor",
    "dora_wd": "dora_wd",
    "bypass_mode": "bypass_mode",
    "use_tucker": "use_tucker",
    "use_cp": "use_cp",
    "use_scalar": "use_scalar",
    "rank_dropout_scale": "rank_dropout_scale",
    "decompose_both": "decompose_both",
    "train_norm": "train_norm",
}
_EVERY_NETWORK = ("rank_dropout", "module_dropout", "loraplus_lr_ratio", "loraplus_unet_lr_ratio",
                  "loraplus_text_encoder_lr_ratio")  # fmt: skip
_BLOCKS = ("down_lr_weight", "mid_lr_weight", "up_lr_weight", "block_lr_zero_threshold", "block_dims", "block_alphas",
           "conv_block_dims", "conv_block_alphas")  # fmt: skip
_KINDS: dict[str, tuple[str, str]] = {
    "Standard": ("networks.lora", ""),
    "Kohya LoCon": ("networks.lora", ""),
    "LoRA-FA": ("networks.lora_fa", ""),
    "Kohya DyLoRA": ("networks.dylora", ""),
    "Kohya LoHa": ("networks.loha", ""),
    "Kohya LoKr": ("networks.lokr", ""),
    "LoCon": ("lycoris.kohya", "locon"),
    "LyCORIS/LoCon": ("lycoris.kohya", "locon"),
    "LyCORIS/LoHa": ("lycoris.kohya", "loha"),
    "LyCORIS/LoKr": ("lycoris.kohya", "lokr"),
}
_WITH_CONV = ("Kohya LoCon", "Kohya DyLoRA", "Kohya LoHa", "Kohya LoKr")
_OVERRULED = "overruled."
"""In front of the number of a key whose place another key of the file has taken."""
_OTHER_MODELS = ("flux1_checkbox", "sd3_checkbox", "hunyuan_image_checkbox", "anima_checkbox", "lumina_checkbox")
_PAGE_ONLY = ("model_list", "save_as_bool", "file_path", "print_only", "folders", "noise_offset_type",
              "no_token_padding", "lycoris", "reg_data_dir_list", "gradio_version", "training_preset")  # fmt: skip
_FOR_OTHERS = ("flux1_", "sd3_", "hunyuan_", "anima_", "lumina_", "img_", "txt_", "single_", "ggpo_", "train_double_",
               "train_single_", "show_timesteps")  # fmt: skip
_FOR_OTHERS_TOO = (
    "t5xxl_lr",
    "train_t5xxl",
    "train_blocks",
    "split_qkv",
    "in_dims",
    "enable_all_linear",
    "train_lora_ggpo",
)


def _recognises(document: Document) -> bool:
    data = document.mapping
    names = {"LoRA_type", "max_resolution", "lr_warmup", "stop_text_encoder_training"}
    return document.syntax == "json" and (len(names & set(data)) > 1 or {"network_dim", "train_data_dir"} <= set(data))


def _read(document: Document) -> Imported:
    """Raises UserError for settings of the page's other tabs, which train no LoRA."""
    data = document.mapping
    if "network_dim" not in data and "LoRA_type" not in data:
        message = "These are settings of kohya_ss for a whole model or an embedding, not for a LoRA."
        raise UserError("import.no_lora", message, "Save those of its LoRA tab.")
    given, as_written = _as_arguments(data)
    at_zero = [name for name in _DEFAULT_AT_ZERO if values.number(given.get(name)) == 0]
    given |= dict.fromkeys(at_zero, "")
    draft = Draft(given, DEFAULTS, as_written, dict.fromkeys(at_zero, _AT_ZERO_NOTE))
    _tell_page(draft, data)
    put_arguments(draft, document.companion, sdxl=values.flag(data.get("sdxl")) is True)
    return draft.finished(_LABEL)


def _as_arguments(data: dict[str, Any]) -> tuple[dict[str, Any], dict[str, tuple[str, Any]]]:
    """sd-scripts' arguments, and the name and value that each has in the file."""
    as_written: dict[str, tuple[str, Any]] = {}
    overruled: list[tuple[str, Any]] = []
    network = _network_keys(str(data.get("LoRA_type") or "Standard"))
    for key, value in data.items():
        name = f"{ARGUMENT}{network[key]}" if key in network else _RENAMED.get(key, key)
        if name in as_written:  # an old name beside the new one: the one that says something counts
            overruled.append(as_written[name] if values.is_blank(as_written[name][1]) else (key, value))
        if name not in as_written or values.is_blank(as_written[name][1]):
            as_written[name] = (key, value)
    given = {name: value for name, (_, value) in as_written.items()}
    given |= {key: "" for key in _NOTHING_AT_ZERO if values.number(given.get(key)) == 0}
    changed: dict[str, tuple[str, Any]] = {}
    for change in (_set_kind, _set_length, _set_warmup, _set_cycles, _set_trained_part, _set_noise, _set_old_switches):
        changed |= {name: (key, data[key]) for name, key in change(given).items()}
    changed |= _set_further(given)
    overruled += [as_written[name] for name in changed if name in as_written]
    for number, (key, value) in enumerate(overruled):
        name = f"{_OVERRULED}{number}"
        given[name], changed[name] = value, (key, value)
    return given, as_written | changed


def _network_keys(kind: str) -> dict[str, str]:
    keys = {key: key for key in _EVERY_NETWORK}
    module = _KINDS.get(kind, ("", ""))[0]
    if module == "lycoris.kohya" or kind.startswith("LyCORIS/"):
        return keys | _NETWORK
    keys |= {key: key for key in _BLOCKS}
    if kind in _WITH_CONV:
        keys |= {"conv_dim": "conv_dim", "conv_alpha": "conv_alpha"}
    return keys | ({"factor": "factor"} if kind == "Kohya LoKr" else {})


def _set_kind(given: dict[str, Any]) -> dict[str, str]:
    """The network's module and LyCORIS' algorithm; as the others below, which keys these come from."""
    was_given = "LoRA_type" in given
    kind = values.text(given.pop("LoRA_type", "Standard"))
    module, algorithm = _KINDS.get(kind, (kind, ""))
    if kind.startswith("LyCORIS/") and kind not in _KINDS:
        module, algorithm = "lycoris.kohya", kind.partition("/")[2]
    given |= {"network_module": module, f"{ARGUMENT}algo": algorithm}
    return {"network_module": "LoRA_type", f"{ARGUMENT}algo": "LoRA_type"} if was_given else {}


def _set_length(given: dict[str, Any]) -> dict[str, str]:
    """``epoch`` counts where nothing else is given: the page works the steps out of it."""
    others = ("max_train_epochs", "max_train_steps", "dataset_config")
    if values.is_blank(given.get("epoch")) or not all(values.is_blank(given.get(key)) for key in others):
        return {}
    given["max_train_epochs"] = given.pop("epoch")
    return {"max_train_epochs": "epoch"}


def _set_warmup(given: dict[str, Any]) -> dict[str, str]:
    """``lr_warmup`` is in percent of the run; a number of steps wins over it."""
    percent = values.number(given.get("lr_warmup"))
    if values.number(given.get("lr_warmup_steps")) or not percent:
        return {}
    del given["lr_warmup"]
    given["lr_warmup_steps"] = f"{percent}%"
    return {"lr_warmup_steps": "lr_warmup"}


def _set_cycles(given: dict[str, Any]) -> dict[str, str]:
    """Left empty, ``lr_scheduler_num_cycles`` is the number of epochs."""
    key = "lr_scheduler_num_cycles"
    epochs = given.get("epoch") or given.get("max_train_epochs")
    if key not in given or not values.is_blank(given[key]) or values.is_blank(epochs):
        return {}
    given[key] = epochs
    return {}


def _set_trained_part(given: dict[str, Any]) -> dict[str, str]:
    """A rate of 0 for one part, and not for the other, leaves the part out."""
    text = (values.numbers(given.get("text_encoder_lr")) or [0.0])[0]
    unet = values.number(given.get("unet_lr")) or 0.0
    only = "network_train_unet_only" if unet and not text else "network_train_text_encoder_only"
    key = "text_encoder_lr" if unet else "unet_lr"
    came_from = {only: key} if bool(unet) != bool(text) and key in given else {}
    if bool(unet) != bool(text):
        given[only] = True
    given |= {key: "" for key, rate in (("text_encoder_lr", text), ("unet_lr", unet)) if key in given and not rate}
    return came_from


def _set_noise(given: dict[str, Any]) -> dict[str, str]:
    """Of the two kinds of noise only the chosen one is passed on."""
    original = values.text(given.get("noise_offset_type") or "Original") == "Original"
    pyramid = ("multires_noise_iterations", "multires_noise_discount")
    offset = ("noise_offset", "adaptive_noise_scale", "noise_offset_random_strength")
    given |= {key: "" for key in (pyramid if original else offset) if key in given}
    return {}


def _set_old_switches(given: dict[str, Any]) -> dict[str, str]:
    """A tracker that was a switch of its own; captions are cached for SDXL only."""
    if values.flag(given.get("log_with")):
        given["log_with"] = "wandb"
    if not values.flag(given.get("sdxl")) and "cache_text_encoder_outputs" in given:
        given["cache_text_encoder_outputs"] = ""
    return {}


def _set_further(given: dict[str, Any]) -> dict[str, tuple[str, Any]]:
    """``additional_parameters`` is a piece of command line, which wins."""
    further = values.text(given.get("additional_parameters") or "")
    flags = with_network_arguments(parse_flags(split_command(further))) if further else {}
    given |= flags
    return {key: (f"additional_parameters --{key}", value) for key, value in flags.items()}


def _tell_page(draft: Draft, data: dict[str, Any]) -> None:
    """Keys of the page itself, of other models, and of other kinds of networks."""
    for key in _OTHER_MODELS:
        if values.flag(data.get(key)):
            draft.lost(key, "such models cannot be trained here; choose a Stable Diffusion 1, 2 or XL model")
        draft.unused(key, "off in the file")
    others = [key for key in draft.untold() if key.startswith(_FOR_OTHERS) or key in _FOR_OTHERS_TOO]
    draft.all_unused(others, "for FLUX, SD 3 and other families")
    draft.all_unused(_PAGE_ONLY, "only for that program's page")
    overruled = [key for key in draft.untold() if key.startswith(_OVERRULED)]
    draft.all_unused(overruled, "another key of the file says it")
    draft.unused("additional_parameters", "its flags are told one by one")
    draft.unused("epoch", "max_train_steps or max_train_epochs wins over it")
    draft.unused("lr_warmup", "there is no warm-up, or lr_warmup_steps wins over it")
    unlike = [
        key for key in (*_NETWORK, *_BLOCKS, "unit", "constrain", "rescaled", "train_on_input") if key in draft.untold()
    ]
    draft.all_unused(unlike, f"not for {data.get('LoRA_type') or 'Standard'}")
    if "xformers" in data and not values.is_off(data["xformers"]):
        draft.unused("xformers", "how that program used its machine; it changes nothing of what is learned")


KIND = ConfigKind(label=_LABEL, recognises=_recognises, read=_read)
