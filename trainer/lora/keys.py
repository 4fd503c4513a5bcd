"""Names of LoRA tensors: every layout in use, read into kohya's module keys.

Inside the program a layer is named by its kohya key, ``lora_unet_down_blocks_0_attentions_0_proj_in``: the one naming
that files of all tools can be brought to. The way back to a dotted module path needs the model, see ``merge.py``. The
UNet of SDXL has other names in files, see ``sai_keys.py``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from trainer.lora.sai_keys import from_sai, is_sai_key, is_sd1_original_key, to_sai

Part = Literal["unet", "text_encoder", "text_encoder_2"]
Role = Literal[
    "down", "up", "mid", "alpha", "dora_scale", "magnitude",
    "hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2",
    "lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2",
]  # fmt: skip

PREFIXES: dict[str, str] = {"unet": "lora_unet_", "text_encoder": "lora_te_", "text_encoder_2": "lora_te2_"}
_SDXL_FIRST_ENCODER = "lora_te1_"

_LYCORIS_NAMES: tuple[Role, ...] = tuple(name for name in get_args(Role) if name.startswith(("hada", "lokr", "dora")))
_ROLES: tuple[tuple[re.Pattern[str], Role], ...] = (
    (re.compile(r"\.lora_down\.weight$"), "down"),
    (re.compile(r"\.lora_up\.weight$"), "up"),
    (re.compile(r"\.lora_mid\.weight$"), "mid"),
    (re.compile(r"\.lora_A(\.\w+)?\.weight$"), "down"),
    (re.compile(r"\.lora_B(\.\w+)?\.weight$"), "up"),
    (re.compile(r"(\.lora|\.lora_linear_layer|_lora)\.down\.weight$"), "down"),
    (re.compile(r"(\.lora|\.lora_linear_layer|_lora)\.up\.weight$"), "up"),
    (re.compile(r"\.alpha$"), "alpha"),
    (re.compile(r"\.lora_magnitude_vector(\.\w+){0,2}$"), "magnitude"),  # PEFT's DoRA
    *((re.compile(rf"\.{name}$"), name) for name in _LYCORIS_NAMES),
)
_OTHER_KINDS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\.(oft|boft)_(blocks|diag|R|r)\b|\.oft_r\."), "OFT"),
    (re.compile(r"\.[ab][12]\.weight$"), "GLoRA"),
    (re.compile(r"\.on_input$|\.ia3_l\b"), "IA3"),
    (re.compile(r"\.vera_lambda|\.lora_embedding_|\.diff(_b)?$"), "full-difference or other"),
)
_UNET_ROOTS = ("down_blocks", "up_blocks", "mid_block", "conv_in", "conv_out", "time_embedding", "add_embedding")
_TEXT_ROOTS = ("text_model", "encoder", "text_projection")
_COMFY_ROOTS: dict[str, str] = {
    "diffusion_model.": "unet",
    "text_encoders.clip_l.transformer.": "text_encoder",
    "text_encoders.clip_h.transformer.": "text_encoder",
    "text_encoders.clip_g.transformer.": "text_encoder_2",
}
"""ComfyUI's names of the parts, as its own nodes save them; the UNet has the names of Stability's code behind it."""
_LYCORIS_PREFIX = "lycoris_"
_OLD_TEXT_NAMES = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}


@dataclass(frozen=True)
class TensorName:
    """What the name of one tensor says.

    Attributes:
        module: kohya key of the layer.
        role: which of the layer's tensors it is.
        path: dotted name with the part in front (``unet.conv_in``) where the file has one; empty for kohya names.
    """

    module: str
    role: Role
    path: str = ""


def kohya_key(part: str, module_path: str, *, sdxl: bool = False) -> str:
    """The kohya key of a layer: part ``unet``, ``text_encoder`` or ``text_encoder_2`` and its dotted module path.

    Newer transformers lost the ``text_model`` level of CLIP; files keep it, so it is put back. For ``sdxl`` the first
    of the two text encoders has a prefix of its own, and the UNet the names of Stability's own code.
    """
    if part != "unet" and not module_path.startswith(("text_model.", "text_projection")):
        module_path = f"text_model.{module_path}"
    key = PREFIXES[part] + module_path.replace(".", "_")
    return sdxl_key(key) if sdxl else key


def sdxl_key(module: str) -> str:
    """The key of an SDXL layer for one that is named as those of SD 1; keys that are right already stay."""
    if module.startswith(PREFIXES["text_encoder"]):
        return _SDXL_FIRST_ENCODER + module[len(PREFIXES["text_encoder"]) :]
    return to_sai(module)


def parse_name(name: str, part: str = "") -> TensorName | None:
    """Read a tensor name of any known layout; None when it is not one of a LoRA, DoRA, LoHa or LoKr.

    ``part``: the part of the model that it is for where the name does not tell, as in the folders that PEFT writes.
    """
    for pattern, role in _ROLES:
        match = pattern.search(name)
        if match:
            old_layout = match.group(0).startswith("_lora")
            return _located(name[: match.start()], role, part, old_layout)
    return None


def naming(names: Iterable[str]) -> str:
    """Whose names most tensors of a file have: ``kohya``, ``diffusers``, ``old diffusers``, ``peft`` ..."""
    counts = Counter(found for name in names if (found := _naming(name)))
    return counts.most_common(1)[0][0] if counts else "unknown"


def _naming(name: str) -> str | None:
    if parse_name(name) is None:
        return None
    if name.startswith(tuple(_COMFY_ROOTS)):
        return "comfyui"
    if name.startswith(_LYCORIS_PREFIX):
        return "lycoris"
    if name.startswith("lora_"):
        return "kohya"
    if ".processor." in name or "_lora." in name or ".lora." in name or ".lora_linear_layer." in name:
        return "old diffusers"
    return "diffusers" if name.partition(".")[0] in PREFIXES else "peft"


def other_kind(name: str) -> str | None:
    """The kind of adapter (``OFT``, ``GLoRA`` ...) that a tensor name belongs to when it is none that we read."""
    return next((kind for pattern, kind in _OTHER_KINDS if pattern.search(name)), None)


def unify_keys(modules: list[str], *, sdxl: bool) -> dict[str, str]:
    """Old to new key for layers that are named in another way than kohya's tools name those of their family.

    ``lora_te_`` is the one text encoder of SD 1 and 2; ``lora_te1_`` and ``lora_te2_`` are SDXL's two. Some tools write
    ``lora_te1_`` into SD 1 files, and diffusers layouts say ``text_encoder`` in both, and have names of their own for
    the blocks of SDXL's UNet.

    Args:
        modules: all keys of a file.
        sdxl: whether something beside the keys says that they are SDXL's; some keys say it themselves.
    """
    if any(map(is_sd1_original_key, modules)) and not sdxl:  # SD 1 and 2 in the names of their original code
        named = {module: _one_encoder(from_sai(module)) for module in modules}
        return {old: new for old, new in named.items() if new != old}
    has_sai = any(is_sai_key(module) for module in modules)
    deep = re.compile(r"lora_unet_(down|mid|up)_.*_transformer_blocks_[1-9]")  # SD 1 and 2 have one a transformer
    two_encoders = any(module.startswith(PREFIXES["text_encoder_2"]) for module in modules)
    if sdxl or has_sai or two_encoders or any(map(deep.match, modules)):
        renamed = {module: sdxl_key(module) for module in modules if sdxl_key(module) != module}
        # where some layers of the UNet have the right names, the others are meant as they stand
        return {old: new for old, new in renamed.items() if not (has_sai and part_of(old) == "unet")}
    return {module: _one_encoder(module) for module in modules if module.startswith(_SDXL_FIRST_ENCODER)}


def _one_encoder(module: str) -> str:
    """The key with the prefix of a model's only text encoder for one with that of SDXL's first."""
    if not module.startswith(_SDXL_FIRST_ENCODER):
        return module
    return PREFIXES["text_encoder"] + module.removeprefix(_SDXL_FIRST_ENCODER)


def part_of(module: str) -> Part | None:
    """The part of the model that a kohya key belongs to."""
    if module.startswith(_SDXL_FIRST_ENCODER):
        return "text_encoder"
    parts: tuple[Part, ...] = ("unet", "text_encoder", "text_encoder_2")
    return next((part for part in parts if module.startswith(PREFIXES[part])), None)


def block_of(module: str) -> str:
    """The block a layer lies in, for tables: ``unet down_blocks_0``, ``text_encoder layers_3``, else ``other``."""
    part = part_of(module)
    if part is None:
        return "other"
    pattern = r"((?:down|up|input|output)_blocks_\d+|mid(?:dle)?_block|layers_\d+)"
    match = re.search(pattern, module)
    return f"{part} {match.group(1) if match else 'rest'}"


def _located(stem: str, role: Role, part: str, old_layout: bool) -> TensorName | None:
    """The layer that the rest of a name, without its role, speaks of."""
    if "." not in stem and stem.startswith("lora_"):
        return TensorName(stem, role)
    if "." not in stem and stem.startswith(_LYCORIS_PREFIX):  # LyCORIS used as a library, as SimpleTuner does
        inner = stem.removeprefix(_LYCORIS_PREFIX)
        return TensorName(PREFIXES["text_encoder" if inner.startswith("text_model") else "unet"] + inner, role)
    for root, comfy_part in _COMFY_ROOTS.items():
        if stem.startswith(root):
            inner = stem.removeprefix(root)
            return TensorName(kohya_key(comfy_part, inner), role, f"{comfy_part}.{inner}")
    path = stem.removeprefix("base_model.model.")
    if not part:
        part, dot, inner = path.partition(".")
        if not dot or part not in PREFIXES:
            part, inner = _guess_part(path), path
    else:
        inner = path.removeprefix(f"{part}.")
    if not part:
        return None
    if old_layout:
        inner = _modern_path(part, inner)
    return TensorName(kohya_key(part, inner), role, f"{part}.{inner}")


def _guess_part(path: str) -> str:
    root = path.partition(".")[0]
    if root in _UNET_ROOTS:
        return "unet"
    return "text_encoder" if root in _TEXT_ROOTS else ""


def _modern_path(part: str, path: str) -> str:
    """Attention processors' names of diffusers before 0.22, brought to the layers they stand for."""
    parent, _, leaf = path.replace(".processor.", ".").rpartition(".")
    if part == "unet":
        return f"{parent}.{'to_out.0' if leaf == 'to_out' else leaf}"
    return f"{parent}.{_OLD_TEXT_NAMES.get(leaf, leaf)}"
