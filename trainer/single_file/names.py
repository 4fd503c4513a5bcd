"""Names of weights: from the original layout (CompVis LDM, Stability SGM, OpenCLIP) to that of model folders.

The original names are those of the modules in CompVis/latent-diffusion, Stability-AI/generative-models and
mlfoundations/open_clip; the others those of diffusers' and transformers' classes. Never torch: a name is mapped to a
``Source``, which says where in the file the weight is and how it is turned.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from trainer.single_file.header import Shapes


@dataclass(frozen=True)
class Source:
    """Where a weight comes from.

    Attributes:
        name: the tensor in the file.
        third: 0, 1 or 2 for the q, k and v rows of a fused projection; None for the whole tensor.
        transposed: stored as (in, out) rather than (out, in).
        flat: a 1x1 convolution (out, in, 1, 1) that is a linear layer (out, in) here.
    """

    name: str
    third: int | None = None
    transposed: bool = False
    flat: bool = False

    def shape(self, shapes: Shapes) -> tuple[int, ...]:
        """The weight's shape in the model folder."""
        shape = shapes[self.name]
        if self.third is not None:
            return (shape[0] // 3, *shape[1:])
        if self.flat and len(shape) == 4:
            return shape[:2]
        return shape[::-1] if self.transposed else shape


Names = dict[str, Source]
"""Name in the model folder -> where the weight comes from."""


def target_shapes(names: Names, shapes: Shapes) -> Shapes:
    """Shapes of a component's weights, named as in a model folder; ``shapes`` are the file's."""
    return {target: source.shape(shapes) for target, source in names.items()}


Mapper = Callable[[Shapes, str], Names]
"""Maps the weights whose names start with a prefix."""

Table = tuple[tuple[str, str], ...]
"""Beginnings of names, original and new; the rest of the name stays."""

RESNET_TABLE: Table = (
    ("in_layers.0.", "norm1."),
    ("in_layers.2.", "conv1."),
    ("emb_layers.1.", "time_emb_proj."),
    ("out_layers.0.", "norm2."),
    ("out_layers.3.", "conv2."),
    ("skip_connection.", "conv_shortcut."),
)
UNET_TABLE: Table = (
    ("time_embed.0.", "time_embedding.linear_1."),
    ("time_embed.2.", "time_embedding.linear_2."),
    ("label_emb.0.0.", "add_embedding.linear_1."),
    ("label_emb.0.2.", "add_embedding.linear_2."),
    ("input_blocks.0.0.", "conv_in."),
    ("out.0.", "conv_norm_out."),
    ("out.2.", "conv_out."),
    ("middle_block.1.", "mid_block.attentions.0."),
)
VAE_TABLE: Table = (
    ("norm_out.", "conv_norm_out."),
    ("mid.block_1.", "mid_block.resnets.0."),
    ("mid.block_2.", "mid_block.resnets.1."),
    ("mid.attn_1.norm.", "mid_block.attentions.0.group_norm."),
    ("mid.attn_1.q.", "mid_block.attentions.0.to_q."),
    ("mid.attn_1.k.", "mid_block.attentions.0.to_k."),
    ("mid.attn_1.v.", "mid_block.attentions.0.to_v."),
    ("mid.attn_1.proj_out.", "mid_block.attentions.0.to_out.0."),
)
_OLD_VAE_ATTENTION: Table = (  # diffusers before 0.17
    ("query.", "to_q."),
    ("key.", "to_k."),
    ("value.", "to_v."),
    ("proj_attn.", "to_out.0."),
)
OPEN_CLIP_TABLE: Table = (
    ("token_embedding.", "embeddings.token_embedding."),
    ("ln_final.", "final_layer_norm."),
)
OPEN_CLIP_LAYER_TABLE: Table = (
    ("ln_1.", "layer_norm1."),
    ("ln_2.", "layer_norm2."),
    ("mlp.c_fc.", "mlp.fc1."),
    ("mlp.c_proj.", "mlp.fc2."),
    ("attn.out_proj.", "self_attn.out_proj."),
)

_BLOCK = re.compile(r"(input_blocks|output_blocks)\.(\d+)\.(\d)\.(.+)")
_MIDDLE_RESNET = re.compile(r"middle_block\.([02])\.(.+)")
_VAE_BLOCK = re.compile(r"(encoder\.down|decoder\.up)\.(\d+)\.(?:block\.(\d+)\.(.+)|(down|up)sample\.(.+))")
_OLD_VAE_NAME = re.compile(r"(.+\.attentions\.0\.)(query|key|value|proj_attn)\.(.+)")
_OPEN_CLIP_BLOCK = re.compile(r"transformer\.resblocks\.(\d+)\.(.+)")
UNUSED_TEXT = re.compile(r"(.*\.)?position_ids$|logit_scale$|text_projection\.weight$")
_SD2_LAYERS = 23
"""OpenCLIP ViT-H has 24 layers; SD 2 reads its text after the last but one, so model folders hold 23."""


def levels(shapes: Shapes, prefix: str) -> int:
    """Blocks per level of the original UNet: ResNets between two changes of size, 2 in all standard models."""
    downsamplers = (
        int(name.split(".")[-4]) for name in shapes if name.endswith(".0.op.weight") and name[: len(prefix)] == prefix
    )
    return min(downsamplers, default=1) - 1


def unet_names(shapes: Shapes, prefix: str) -> Names:
    """The UNet of SD 1, SD 2 and SDXL."""
    per_level = levels(shapes, prefix)
    names: Names = {}
    for name, rest in _under(shapes, prefix):
        names[_unet_name(rest, per_level)] = Source(name)
    return names


def _unet_name(name: str, per_level: int) -> str:
    if found := _MIDDLE_RESNET.fullmatch(name):
        return f"mid_block.resnets.{int(found[1]) // 2}.{_renamed(found[2], RESNET_TABLE)}"
    found = _BLOCK.fullmatch(name)
    if found is None or name.startswith("input_blocks.0."):
        return _renamed(name, UNET_TABLE)
    side, number, place, rest = found[1], int(found[2]), int(found[3]), found[4]
    if side == "input_blocks":
        # 1, 2 ResNets, 3 the change of size; 4, 5 ResNets ...
        block, layer = divmod(number - 1, per_level + 1)
        if rest.startswith("op."):
            return f"down_blocks.{block}.downsamplers.0.conv.{rest.removeprefix('op.')}"
        top = f"down_blocks.{block}"
    else:
        block, layer = divmod(number, per_level + 1)
        if place > 0 and rest.startswith("conv."):
            return f"up_blocks.{block}.upsamplers.0.{rest}"
        top = f"up_blocks.{block}"
    return f"{top}.resnets.{layer}.{_renamed(rest, RESNET_TABLE)}" if place == 0 else f"{top}.attentions.{layer}.{rest}"


def vae_names(shapes: Shapes, prefix: str) -> Names:
    """An AutoencoderKL in the original naming, or in diffusers' of any age."""
    inside = dict(_under(shapes, prefix))
    last = max((int(found[2]) for rest in inside.values() if (found := _VAE_BLOCK.fullmatch(rest))), default=0)
    names: Names = {}
    for name, rest in inside.items():
        if not rest.startswith(("loss.", "model_ema.")):  # of the VAE_TABLE's own training
            target = _vae_name(rest, last)
            attention = ".attentions.0.to_" in target and target.endswith(".weight")
            names[target] = Source(name, flat=attention)
    return names


def _vae_name(name: str, last: int) -> str:
    if found := _OLD_VAE_NAME.fullmatch(name):
        return found[1] + _renamed(name[len(found[1]) :], _OLD_VAE_ATTENTION)
    found = _VAE_BLOCK.fullmatch(name)
    if found is None:
        side, dot, rest = name.partition(".")
        return side + dot + _renamed(rest, VAE_TABLE)
    # the original counts the decoder's levels from the finest
    down = found[1] == "encoder.down"
    top = f"encoder.down_blocks.{found[2]}" if down else f"decoder.up_blocks.{last - int(found[2])}"
    if found[3] is None:
        return f"{top}.{found[5]}samplers.0.{found[6]}"
    return f"{top}.resnets.{found[3]}.{found[4].replace('nin_shortcut.', 'conv_shortcut.')}"


def clip_names(shapes: Shapes, prefix: str) -> Names:
    """CLIP ViT-L as transformers names it; some old files lack the ``text_model`` level."""
    return {
        f"text_model.{rest.removeprefix('text_model.')}": Source(name)
        for name, rest in _under(shapes, prefix)
        if not UNUSED_TEXT.fullmatch(rest)
    }


def open_clip_names(shapes: Shapes, prefix: str) -> Names:
    """OpenCLIP bigG, the second text encoder of SDXL, with its projection."""
    names: Names = {}
    for name, rest in _under(shapes, prefix):
        if rest == "text_projection":
            names["text_projection.weight"] = Source(name, transposed=True)
        elif rest == "positional_embedding":
            names["text_model.embeddings.position_embedding.weight"] = Source(name)
        elif found := _OPEN_CLIP_BLOCK.fullmatch(rest):
            names |= _open_clip_layer(name, f"text_model.encoder.layers.{found[1]}.", found[2])
        elif not UNUSED_TEXT.fullmatch(rest) and rest != "attn_mask":
            names[f"text_model.{_renamed(rest, OPEN_CLIP_TABLE)}"] = Source(name)
    return names


def _open_clip_layer(name: str, layer: str, rest: str) -> Names:
    fused = rest.removeprefix("attn.in_proj_")
    if fused == rest:
        return {layer + _renamed(rest, OPEN_CLIP_LAYER_TABLE): Source(name)}
    return {f"{layer}self_attn.{letter}_proj.{fused}": Source(name, third=third) for third, letter in enumerate("qkv")}


def penultimate_open_clip_names(shapes: Shapes, prefix: str) -> Names:
    """OpenCLIP ViT-H as SD 2 reads it: without the 24th layer and the projection."""
    last = f"text_model.encoder.layers.{_SD2_LAYERS}."
    return {
        target: source
        for target, source in open_clip_names(shapes, prefix).items()
        if not target.startswith((last, "text_projection"))
    }


def _under(shapes: Shapes, prefix: str) -> Iterator[tuple[str, str]]:
    """(name, name without the prefix) of the weights under a prefix."""
    return ((name, name[len(prefix) :]) for name in shapes if name.startswith(prefix))


def _renamed(name: str, table: Table) -> str:
    return next((new + name[len(old) :] for old, new in table if name.startswith(old)), name)
