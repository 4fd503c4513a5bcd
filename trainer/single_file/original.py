"""The way back: the tensors of a single file in the original layout, made of a model folder's weights.

The tables are those of ``names.py``, read backwards; what comes out is checked by reading it forwards. Never torch.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.errors import UserError
from trainer.single_file.header import Shapes
from trainer.single_file.kinds import Layout, identify
from trainer.single_file.names import (
    OPEN_CLIP_LAYER_TABLE,
    OPEN_CLIP_TABLE,
    RESNET_TABLE,
    UNET_TABLE,
    UNUSED_TEXT,
    VAE_TABLE,
    Mapper,
    Table,
    clip_names,
    open_clip_names,
    penultimate_open_clip_names,
    unet_names,
    vae_names,
)

_BLOCK = re.compile(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)")
_MIDDLE = re.compile(r"mid_block\.resnets\.([01])\.(.+)")
_VAE_BLOCK = re.compile(r"(encoder\.down|decoder\.up)_blocks\.(\d+)\.(resnets|(?:down|up)samplers)\.(\d+)\.(.+)")
_VAE_ATTENTION = re.compile(r".*mid\.attn_1\.(q|k|v|proj_out)\.weight")
_TEXT_LAYER = re.compile(r"encoder\.layers\.(\d+)\.(.+)")
_FUSED = re.compile(r"self_attn\.([qkv])_proj\.(weight|bias)")
_HINT = "Save it as a folder, or use a model of the usual build."


@dataclass(frozen=True)
class Original:
    """A tensor of a single file.

    Attributes:
        part: the part of the model folder that it comes from.
        weights: the weights it is made of, by their names in the part's files, one after the other: q, k and v for a
            fused projection.
        shape: in the single file.
        transposed: whether it is stored as (in, out).
    """

    part: str
    weights: tuple[str, ...]
    shape: tuple[int, ...]
    transposed: bool = False


def original_tensors(layout: Layout, parts: dict[str, Shapes], path: Path) -> dict[str, Original]:
    """The single file's tensors by name.

    Args:
        layout: the layout to bring the model to.
        parts: names and shapes of the weights in each part of the folder; spellings of older libraries are understood.
        path: the folder, for messages.

    Raises UserError("base") when the model is of a build that the layout has no names for.
    """
    found: dict[str, Original] = {}
    for part, (prefix, mapper) in layout.parts.items():
        if part not in parts:
            message = f"base: {path.name} has no {part.replace('_', ' ')}."
            raise UserError("merge.original", message, _HINT, "base")
        for name, original in _WAYS_BACK[mapper](part, parts[part]).items():
            found[prefix + name] = original
    _check(layout, parts, found, path)
    return found


def marks(layout: Layout, scheduler: dict[str, Any]) -> tuple[list[str], dict[str, str]]:
    """(names of empty tensors, metadata) that tell what the model predicts, as ``kinds.prediction`` reads them."""
    velocity = scheduler.get("prediction_type") == "v_prediction"
    metadata = {"modelspec.prediction_type": "v" if velocity else "epsilon"}
    if not velocity or layout.guess:
        return [], metadata
    return ["v_pred", *(["ztsnr"] if scheduler.get("rescale_betas_zero_snr") else [])], metadata


def _check(layout: Layout, parts: dict[str, Shapes], found: dict[str, Original], path: Path) -> None:
    """Read the tensors' names forwards: every weight must be found where it was put, and none be left over."""
    shapes = {name: original.shape for name, original in found.items()}
    identify(path, shapes, field="base")
    for part, names in layout.names(shapes).items():
        reached = {}
        for target, source in names.items():
            original = found[source.name]
            reached[original.weights[source.third or 0]] = (target, source.shape(shapes))
        for name, shape in parts[part].items():
            if UNUSED_TEXT.fullmatch(name) and name not in reached:
                continue
            target, given = reached.get(name, ("", ()))
            if given != shape and given != (*shape, 1, 1) and (*given, 1, 1) != shape:
                message = f"base: {path.name} cannot be written as one file: nothing there is called {part}.{name}."
                raise UserError("merge.original", message, _HINT, "base")


def _unet(part: str, shapes: Shapes) -> dict[str, Original]:
    per_level = len({name.split(".")[3] for name in shapes if name.startswith("down_blocks.0.resnets.")})
    with_attention = {name.split(".")[1] for name in shapes if re.match(r"up_blocks\.\d+\.attentions\.", name)}
    return {
        _unet_name(name, per_level, with_attention): Original(part, (name,), shape) for name, shape in shapes.items()
    }


def _unet_name(name: str, per_level: int, with_attention: set[str]) -> str:
    if found := _MIDDLE.fullmatch(name):
        return f"middle_block.{2 * int(found[1])}.{_back(found[2], RESNET_TABLE)}"
    found = _BLOCK.fullmatch(name)
    if found is None:
        return _back(name, UNET_TABLE)
    side, block, kind, layer, rest = found[1], int(found[2]), found[3], int(found[4]), found[5]
    first = block * (per_level + 1)
    if kind == "downsamplers":
        return f"input_blocks.{first + per_level + 1}.0.op.{rest.removeprefix('conv.')}"
    if kind == "upsamplers":
        return f"output_blocks.{first + per_level}.{2 if found[2] in with_attention else 1}.{rest}"
    top = f"input_blocks.{first + layer + 1}" if side == "down" else f"output_blocks.{first + layer}"
    return f"{top}.0.{_back(rest, RESNET_TABLE)}" if kind == "resnets" else f"{top}.1.{rest}"


def _vae(part: str, shapes: Shapes) -> dict[str, Original]:
    modern = vae_names(shapes, "")  # old folders spell the attention's layers in another way
    last = max((int(found[2]) for name in modern if (found := _VAE_BLOCK.fullmatch(name))), default=0)
    originals = {}
    for name, source in modern.items():
        old, shape = _vae_name(name, last), shapes[source.name]
        convolution = len(shape) == 2 and _VAE_ATTENTION.fullmatch(old)
        originals[old] = Original(part, (source.name,), (*shape, 1, 1) if convolution else shape)
    return originals


def _vae_name(name: str, last: int) -> str:
    found = _VAE_BLOCK.fullmatch(name)
    if found is None:
        side, dot, rest = name.partition(".")
        return side + dot + _back(rest, VAE_TABLE)
    level = int(found[2]) if found[1] == "encoder.down" else last - int(found[2])
    if found[3] != "resnets":
        return f"{found[1]}.{level}.{found[3].removesuffix('rs')}.{found[5]}"
    return f"{found[1]}.{level}.block.{found[4]}.{found[5].replace('conv_shortcut.', 'nin_shortcut.')}"


def _clip(part: str, shapes: Shapes) -> dict[str, Original]:
    return {f"text_model.{_inner(name)}": Original(part, (name,), shape) for name, shape in shapes.items()}


def _open_clip(part: str, shapes: Shapes) -> dict[str, Original]:
    given = {_inner(name): name for name in shapes}
    originals = {}
    for inner, name in given.items():
        shape = shapes[name]
        if inner == "text_projection.weight":
            originals["text_projection"] = Original(part, (name,), shape[::-1], transposed=True)
        elif inner == "embeddings.position_embedding.weight":
            originals["positional_embedding"] = Original(part, (name,), shape)
        elif found := _TEXT_LAYER.fullmatch(inner):
            layer, rest = f"transformer.resblocks.{found[1]}.", found[2]
            fused = _FUSED.fullmatch(rest)
            if fused is None:
                originals[layer + _back(rest, OPEN_CLIP_LAYER_TABLE)] = Original(part, (name,), shape)
            elif fused[1] == "q":
                qkv = [inner.replace(".q_proj.", f".{letter}_proj.") for letter in "qkv"]
                weights = tuple(given[each] for each in qkv if each in given)
                originals[f"{layer}attn.in_proj_{fused[2]}"] = Original(part, weights, (3 * shape[0], *shape[1:]))
        elif not UNUSED_TEXT.fullmatch(inner):
            originals[_back(inner, OPEN_CLIP_TABLE)] = Original(part, (name,), shape)
    return originals


_WAYS_BACK: dict[Mapper, Callable[[str, Shapes], dict[str, Original]]] = {
    unet_names: _unet,
    vae_names: _vae,
    clip_names: _clip,
    open_clip_names: _open_clip,
    penultimate_open_clip_names: _open_clip,
}


def _inner(name: str) -> str:
    """Newer transformers lost the ``text_model`` level of CLIP."""
    return name.removeprefix("text_model.")


def _back(name: str, table: Table) -> str:
    return next((old + name[len(new) :] for old, new in table if name.startswith(new)), name)
