"""Names of SDXL's UNet layers in LoRA files: those of Stability's own code, in place of diffusers'.

Both ways by one table: ``lora_unet_down_blocks_1_attentions_0_proj_in`` is ``lora_unet_input_blocks_4_1_proj_in``. SD 1
and 2 have diffusers' names in files. ComfyUI writes the original ones for them too, which are built alike with one
level more: ``from_sai`` reads those as well.
"""

from __future__ import annotations

_PREFIX = "lora_unet_"
_LEVELS = 4  # of SD 1 and 2; SDXL has three, without an upsampler in the last

# diffusers' name, Stability's name, both up to the next underscore. A level of the way down has two ResNets and a
# downsampler, each an input block; one of the way up three ResNets, the last of which shares its output block with the
# upsampler. Within a block 0 is the ResNet, 1 the transformer, 2 the upsampler.
_BLOCKS: tuple[tuple[str, str], ...] = (
    ("conv_in", "input_blocks_0_0"),
    ("conv_out", "out_2"),
    ("time_embedding_linear_1", "time_embed_0"),
    ("time_embedding_linear_2", "time_embed_2"),
    ("add_embedding_linear_1", "label_emb_0_0"),
    ("add_embedding_linear_2", "label_emb_0_2"),
    ("mid_block_resnets_0", "middle_block_0"),
    ("mid_block_attentions_0", "middle_block_1"),
    ("mid_block_resnets_1", "middle_block_2"),
    *(
        (f"down_blocks_{level}_{kind}_{layer}", f"input_blocks_{1 + 3 * level + layer}_{place}")
        for level in range(_LEVELS)
        for layer in range(2)
        for place, kind in enumerate(("resnets", "attentions"))
    ),
    *((f"down_blocks_{level}_downsamplers_0_conv", f"input_blocks_{3 + 3 * level}_0_op") for level in range(_LEVELS)),
    *(
        (f"up_blocks_{level}_{kind}_{layer}", f"output_blocks_{3 * level + layer}_{place}")
        for level in range(_LEVELS)
        for layer in range(3)
        for place, kind in enumerate(("resnets", "attentions"))
    ),
    *((f"up_blocks_{level}_upsamplers_0", f"output_blocks_{3 * level + 2}_2") for level in range(_LEVELS - 1)),
)
_SD1_UPSAMPLER = ("output_blocks_2_1_conv", "up_blocks_0_upsamplers_0_conv")  # behind no transformer: number 1, not 2
_ONLY_SD1 = tuple(
    f"{_PREFIX}{name}"
    for name in (
        "input_blocks_1_1_", "input_blocks_2_1_", "input_blocks_9_", "input_blocks_10_", "input_blocks_11_",
        "output_blocks_9_", "output_blocks_10_", "output_blocks_11_", _SD1_UPSAMPLER[0],
    )
)  # fmt: skip
_RESNET_LAYERS: tuple[tuple[str, str], ...] = (
    ("conv1", "in_layers_2"),
    ("conv2", "out_layers_3"),
    ("time_emb_proj", "emb_layers_1"),
    ("conv_shortcut", "skip_connection"),
)
_TO_SAI, _RESNET_TO_SAI = dict(_BLOCKS), dict(_RESNET_LAYERS)
_FROM_SAI, _RESNET_FROM_SAI = ({theirs: ours for ours, theirs in table} for table in (_BLOCKS, _RESNET_LAYERS))


def to_sai(module: str) -> str:
    """The key in SDXL files for one with diffusers' names; other keys stay as they are."""
    return _renamed(module, _TO_SAI, _RESNET_TO_SAI)


def from_sai(module: str) -> str:
    """The key with diffusers' names for one from an SDXL file; other keys stay as they are."""
    if module.startswith(_PREFIX + _SD1_UPSAMPLER[0]):
        return _PREFIX + _SD1_UPSAMPLER[1]
    return _renamed(module, _FROM_SAI, _RESNET_FROM_SAI)


def is_sd1_original_key(module: str) -> bool:
    """Whether a key names, in Stability's way, a layer that SD 1 and 2 have and SDXL has not."""
    return module.startswith(_ONLY_SD1)


def is_sai_key(module: str) -> bool:
    """Whether a key has Stability's block names, as SDXL files do."""
    return module.startswith(tuple(f"{_PREFIX}{name}_" for name in ("input_blocks", "middle_block", "output_blocks")))


def _renamed(module: str, blocks: dict[str, str], resnet_layers: dict[str, str]) -> str:
    if not module.startswith(_PREFIX):
        return module
    words = module[len(_PREFIX) :].split("_")
    for count in range(len(words), 0, -1):
        block, rest = "_".join(words[:count]), "_".join(words[count:])
        if block in blocks:
            rest = resnet_layers.get(rest, rest)
            return _PREFIX + blocks[block] + (f"_{rest}" if rest else "")
    return module
