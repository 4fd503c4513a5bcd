"""The network of sd-scripts: LoRA with its arguments, and LyCORIS' kinds.

Sources: sd-scripts ``networks/lora.py`` (``create_network``, ``get_block_index``, ``get_block_lr_weight``), and LyCORIS
``lycoris/kohya.py`` and ``lycoris/config.py`` (arguments and presets; https://github.com/KohakuBlueleaf/LyCORIS).
"""

from __future__ import annotations

import math
from typing import Any

from trainer.config import Target
from trainer.imports import values
from trainer.imports.draft import Draft, Rule

ARGUMENT = "network_args."
"""In front of an argument's name in a draft."""
_LARGEST_RANK = 1024
_LYCORIS = {"lora": "lora", "locon": "lora", "loha": "loha", "lokr": "lokr"}
_NATIVE = {"networks.loha": "loha", "networks.lokr": "lokr"}
_PLAIN = {"networks.lora", "networks.lora_fa", "networks.dylora"}
_PRESETS: dict[str, tuple[Target, bool]] = {
    "full": ("full", True),
    "full-lin": ("full", False),
    "attn-mlp": ("attention_ff", False),
    "attn-only": ("attention", False),
    "unet-only": ("full", True),
    "unet-transformer-only": ("attention_ff", False),
    "unet-convblock-only": ("full", True),
}
"""LyCORIS' presets: our target, and whether its 3x3 convolutions are trained."""
_OFF_ARGUMENTS = ("use_tucker", "use_cp", "use_scalar", "decompose_both", "train_on_input", "constraint", "constrain",
                  "rescaled", "block_size", "unit", "train_norm", "use_conv_cp", "disable_conv_cp",
                  "unbalanced_factorization")  # fmt: skip
ENDS_NOTE = "the first and the last convolution and the time embedding are trained there, too"
_MIDDLE_BLOCKS_OF_SDXL = 3
_BLOCKS_OF_SDXL = 23
_RULES = (
    Rule("network_dropout", "lora.dropout", values.number),
    Rule(f"{ARGUMENT}module_dropout", "lora.module_dropout", values.number),
    Rule("network_weights", "lora.init_from", values.text),
    Rule("training_comment", "output.description", values.text),
    Rule("metadata_description", "output.description", values.text),
)


def put_network(draft: Draft, *, sdxl: bool | None) -> None:
    """Kind, rank, alpha, layers, convolutions, blocks, dropout, and which part learns."""
    module = draft.text("network_module")
    kind = _put_kind(draft, module)
    _put_trained_part(draft)
    _put_rank(draft, kind)
    if module.startswith("lycoris"):
        _put_lycoris(draft, kind)
    else:
        _put_layers(draft)
        _put_conv(draft, draft.whole(f"{ARGUMENT}conv_dim") or 0, 1.0)
    _put_rank_dropout(draft, is_lycoris=module.startswith("lycoris"))
    is_sdxl = _has_blocks_of_sdxl(draft) if sdxl is None else sdxl
    _put_block_ranks(draft, is_sdxl=is_sdxl)
    _put_block_rates(draft, is_sdxl=is_sdxl)
    _put_loraplus(draft)
    if norm := draft.number("scale_weight_norms"):
        draft.put("lora.max_norm", norm, "scale_weight_norms")
    draft.unused("scale_weight_norms", "off in the file")
    draft.apply(_RULES)
    _put_base_weights(draft)
    for key in [key for key in draft.untold() if key.startswith(ARGUMENT)]:
        draft.lost(key, "an argument of the network that is not known here")


def _put_kind(draft: Draft, module: str) -> str:
    algorithm = draft.text(f"{ARGUMENT}algo").lower() or "lora"
    kind = _NATIVE.get(module) or (_LYCORIS.get(algorithm) if module.startswith("lycoris") else "lora")
    keys = ["network_module", f"{ARGUMENT}algo"]
    if kind == "lora" and draft.flag(f"{ARGUMENT}dora_wd"):
        kind = "dora"
        keys.append(f"{ARGUMENT}dora_wd")
    if kind is None:
        note = f"{algorithm} is not there; a plain LoRA is trained instead"
        kind = "lora"
    elif module == "networks.dylora":
        note = "trained all ranks up to its own at once; a plain LoRA of the highest is trained instead"
    elif module == "networks.lora_fa":
        note = "left the down parts as they were; a plain LoRA is trained instead"
    elif module in _PLAIN or module in _NATIVE or module.startswith("lycoris"):
        note = ""
    else:
        note = f"{module or 'this network'} is not there; a plain LoRA is trained instead"
    draft.put("lora.type", kind, *keys, note=note)
    if kind != "dora" and draft.flag(f"{ARGUMENT}dora_wd"):
        draft.lost(f"{ARGUMENT}dora_wd", f"DoRA on {kind} is not there")
    draft.unused(f"{ARGUMENT}dora_wd", "off in the file")
    return kind


def _put_trained_part(draft: Draft) -> None:
    unet_only, text_only = draft.flag("network_train_unet_only"), draft.flag("network_train_text_encoder_only")
    cached = draft.flag("cache_text_encoder_outputs")
    if text_only and not unet_only:
        draft.put("lora.train", "text_encoder", "network_train_text_encoder_only")
    elif unet_only:
        draft.put("lora.train", "unet", "network_train_unet_only")
    elif cached:
        draft.put("lora.train", "unet", "cache_text_encoder_outputs")
    else:
        draft.put("lora.train", "both", "network_train_unet_only")
    draft.all_unused(("network_train_unet_only", "network_train_text_encoder_only"), "off in the file")
    draft.unused("cache_text_encoder_outputs", "captions are cached wherever that changes nothing")


def _put_rank(draft: Draft, kind: str) -> None:
    rank, alpha = draft.whole("network_dim") or 4, draft.number("network_alpha")
    full = f"{ARGUMENT}full_matrix"
    if kind == "lokr" and (rank > _LARGEST_RANK or draft.flag(full)):
        note = f"meant full matrices; rank {_LARGEST_RANK} gives them wherever they are that small"
        draft.put("lora.rank", _LARGEST_RANK, "network_dim", full, note=note)
        draft.put("lora.alpha", float(_LARGEST_RANK), "network_alpha", note="full matrices have no alpha there")
    else:
        draft.put("lora.rank", rank, "network_dim")
        if alpha:
            draft.put("lora.alpha", alpha, "network_alpha")
        else:
            draft.put("lora.alpha", float(rank), "network_alpha", note="0 stands for the rank there")
    draft.unused(full, "off in the file")
    if kind == "lokr":
        draft.apply((Rule(f"{ARGUMENT}factor", "lora.lokr_factor", values.whole),))
    draft.unused(f"{ARGUMENT}factor", "only for LoKr")


def _put_layers(draft: Draft) -> None:
    """``networks/lora.py`` trains transformers; with a rank for convolutions, be it 0, the ResNets as a whole."""
    conv = any(draft.is_given(f"{ARGUMENT}{name}") for name in ("conv_dim", "conv_block_dims"))
    draft.config["lora"]["target"] = "full" if conv else "attention_ff"


def _put_rank_dropout(draft: Draft, *, is_lycoris: bool) -> None:
    note = ""
    if is_lycoris:
        note = "left out some of a layer's outputs there, and raised the others only with rank_dropout_scale"
    if share := draft.number(f"{ARGUMENT}rank_dropout"):
        draft.put("lora.rank_dropout", share, f"{ARGUMENT}rank_dropout", f"{ARGUMENT}rank_dropout_scale", note=note)
    draft.all_unused((f"{ARGUMENT}rank_dropout", f"{ARGUMENT}rank_dropout_scale"), "there is no rank dropout")


def _put_lycoris(draft: Draft, kind: str) -> None:
    """Layers by preset; without numbers of their own, convolutions have the rank and alpha of the rest."""
    preset = draft.text(f"{ARGUMENT}preset") or "full"
    target, conv = _PRESETS.get(preset, ("full", True))
    key = f"{ARGUMENT}preset"
    note = ENDS_NOTE if target == "full" and preset != "unet-convblock-only" else ""
    if preset not in _PRESETS:
        note = "a preset file, which is not read; all layers are trained"
    draft.put("lora.target", target, key, note=note)
    if preset.startswith("unet-"):
        draft.put("lora.train", "unet", key)
    if preset == "unet-convblock-only":
        draft.put("lora.exclude", ["attentions"], key)
    conv_dim = draft.whole(f"{ARGUMENT}conv_dim")
    rank = draft.whole("network_dim") or 4
    _put_conv(draft, (rank if conv_dim is None else conv_dim) if conv else 0, draft.number("network_alpha") or rank)
    if draft.flag(f"{ARGUMENT}rs_lora") and kind == "lokr":
        draft.lost(f"{ARGUMENT}rs_lora", "LoKr's strength often has no rank in it")
    elif draft.flag(f"{ARGUMENT}rs_lora"):
        draft.put("lora.rank_stabilized", True, f"{ARGUMENT}rs_lora")
    draft.all_unused([f"{ARGUMENT}bypass_mode", f"{ARGUMENT}wd_on_output"], "another way to compute the same")
    draft.unused(f"{ARGUMENT}rs_lora", "off in the file")
    for name in _OFF_ARGUMENTS:
        if f"{ARGUMENT}{name}" in draft.untold():
            draft.lost(f"{ARGUMENT}{name}", "an option of LyCORIS that is not there")


def _put_conv(draft: Draft, rank: int, usual_alpha: float) -> None:
    dim_key, alpha_key = f"{ARGUMENT}conv_dim", f"{ARGUMENT}conv_alpha"
    if rank:
        note = f"more than {_LARGEST_RANK}, the highest there is here" if rank > _LARGEST_RANK else ""
        draft.put("lora.conv_rank", min(rank, _LARGEST_RANK), dim_key, note=note)
        alpha = draft.number(alpha_key)
        if rank > _LARGEST_RANK:
            draft.put("lora.conv_alpha", float(_LARGEST_RANK), alpha_key, note="full matrices have no alpha there")
        else:
            draft.put("lora.conv_alpha", (usual_alpha if alpha is None else alpha) or float(rank), alpha_key)
    draft.all_unused((dim_key, alpha_key), "3x3 convolutions are not trained")


def _put_loraplus(draft: Draft) -> None:
    """A part's own ratio wins over the general one; here one holds for all parts, and the UNet's is taken."""
    general = f"{ARGUMENT}loraplus_lr_ratio"
    own = {part: f"{ARGUMENT}loraplus_{part}_lr_ratio" for part in ("unet", "text_encoder")}
    trained = [part for part in own if draft.config["lora"]["train"] in (part, "both")]
    keys = {part: own[part] if draft.number(own[part]) else general for part in trained}
    ratios = {part: draft.number(key) or 1.0 for part, key in keys.items()}
    chosen = trained[0]
    if ratios[chosen] != 1:
        note = "" if len(set(ratios.values())) == 1 else "one ratio holds for all parts here"
        draft.put("train.loraplus_lr_ratio", ratios[chosen], keys[chosen], note=note)
    for part in trained[1:]:
        if ratios[part] != ratios[chosen]:
            draft.lost(keys[part], "one ratio holds for all parts here, and the UNet has another")
    draft.all_unused((general, *own.values()), "off in the file, or the other part's")


def _put_base_weights(draft: Draft) -> None:
    files = draft.value("base_weights")
    if not values.is_blank(files):
        paths = files if isinstance(files, list) else [files]
        ratios = values.numbers(draft.value("base_weights_multiplier") or []) or []
        ratios += [1.0] * (len(paths) - len(ratios))
        merged = [{"path": str(path), "ratio": ratio} for path, ratio in zip(paths, ratios, strict=False)]
        draft.put("lora.merge_before_training", merged, "base_weights", "base_weights_multiplier")
    draft.all_unused(("base_weights", "base_weights_multiplier"), "empty in the file")


def _has_blocks_of_sdxl(draft: Draft) -> bool:
    """Whether blocks are numbered as SDXL's, where the file does not say which model it is for."""
    ranks = values.numbers(draft.value(f"{ARGUMENT}block_dims") or []) or []
    middle = values.numbers(draft.value(f"{ARGUMENT}mid_lr_weight") or []) or []
    return len(ranks) == _BLOCKS_OF_SDXL or len(middle) == _MIDDLE_BLOCKS_OF_SDXL


def _put_block_ranks(draft: Draft, *, is_sdxl: bool) -> None:
    key = f"{ARGUMENT}block_dims"
    ranks = values.numbers(draft.value(key)) if draft.is_given(key) else None
    rank = draft.config["lora"]["rank"]
    if ranks:
        patterns = [block_pattern(place, sdxl=is_sdxl) for place in range(len(ranks))]
        own = {pattern: int(each) for pattern, each in zip(patterns, ranks, strict=True) if pattern and each != rank}
        strength = draft.config["lora"]["alpha"] / rank
        alphas = values.numbers(draft.value(f"{ARGUMENT}block_alphas") or []) or [draft.config["lora"]["alpha"]] * len(
            ranks
        )
        same = all(not dim or math.isclose(alpha / dim, strength) for dim, alpha in zip(ranks, alphas, strict=False))
        note = "" if same else "each block had an alpha of its own; here alpha / rank is the same in all of them"
        draft.put("lora.block_ranks", own, key, f"{ARGUMENT}block_alphas", note=note)
    draft.all_unused((key, f"{ARGUMENT}block_alphas"), "empty in the file")
    for name in ("conv_block_dims", "conv_block_alphas"):
        if f"{ARGUMENT}{name}" in draft.untold():
            draft.lost(f"{ARGUMENT}{name}", "gave convolutions a rank by block; see lora.block_ranks with `conv`")


def _put_block_rates(draft: Draft, *, is_sdxl: bool) -> None:
    threshold = draft.number(f"{ARGUMENT}block_lr_zero_threshold") or 0.0
    sides = {"down": (0, 12), "mid": (12, 1), "up": (13, 12)}
    if is_sdxl:
        sides = {"down": (1, 9), "mid": (10, _MIDDLE_BLOCKS_OF_SDXL), "up": (13, 9)}
    for side, (start, count) in sides.items():
        key = f"{ARGUMENT}{side}_lr_weight"
        if not draft.is_given(key):
            draft.unused(key, "empty in the file")
            continue
        factors = _factors(draft.value(key), count)
        if factors is None:
            draft.lost(key, "neither numbers with commas nor a curve that is known here")
            continue
        named = ((block_pattern(start + place, sdxl=is_sdxl), factor) for place, factor in enumerate(factors))
        rates = {
            pattern: 0.0 if factor <= threshold else factor for pattern, factor in named if pattern and factor != 1
        }
        before = draft.config["lora"].get("block_lrs", {})
        draft.put("lora.block_lrs", before | rates, key, f"{ARGUMENT}block_lr_zero_threshold")
    draft.unused(f"{ARGUMENT}block_lr_zero_threshold", "no block has a rate of its own")


def _factors(given: Any, count: int) -> list[float] | None:
    """Numbers, blanks among them for 0, or one of the curves of ``get_block_lr_weight``, such as ``cosine+.25``.

    Numbers beyond those of the blocks count for nothing; blocks beyond the numbers keep their rate.
    """
    name, _, base = str(given).partition("+")
    rising = [place / max(1, count - 1) for place in range(count)]
    curves = {
        "sine": [math.sin(math.pi / 2 * x) for x in rising],
        "cosine": [math.sin(math.pi / 2 * x) for x in reversed(rising)],
        "linear": rising,
        "reverse_linear": rising[::-1],
        "zeros": [0.0] * count,
    }
    if name in curves:
        return [each + (values.number(base) or 0.0) for each in curves[name]]
    parts = given if isinstance(given, list) else str(given).strip("[]() ").split(",")
    numbers = values.numbers([0 if values.is_blank(part) else part for part in parts])
    return numbers if numbers is None else numbers[:count]


def block_pattern(place: int, *, sdxl: bool) -> str:
    """The pattern of our layer names for a block's place in ``block_dims``; empty for one that has no LoRA.

    SD 1 has 25 blocks: the first convolution, 11 down, the middle, 12 up; SDXL 23: embeddings, 9 in, 3 middle, 9 out
    and the last convolution.
    """
    middle = {12: r"^unet\.mid_block\."}
    if sdxl:
        middle = {
            10: r"^unet\.mid_block\.resnets\.0\.",
            11: r"^unet\.mid_block\.attentions\.0\.",
            12: r"^unet\.mid_block\.resnets\.1\.",
        }
    if place in middle:
        return middle[place]
    if place > 12:
        block, inner = divmod(place - 13, 3)
        samplers = r"|upsamplers\.0" if inner == 2 else ""
        last = 22 if sdxl else 25
        return rf"^unet\.up_blocks\.{block}\.((resnets|attentions)\.{inner}{samplers})\." if place < last else ""
    down = place - (2 if sdxl else 1)
    if down < 0:
        return ""
    block, inner = divmod(down, 3)
    inside = r"downsamplers\.0" if inner == 2 else rf"(resnets|attentions)\.{inner}"
    return rf"^unet\.down_blocks\.{block}\.{inside}\."
