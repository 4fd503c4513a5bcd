"""What a file is, told by the names and shapes of its weights: a model, or what else. Never torch."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer.errors import Problem, UserError
from trainer.single_file.header import Shapes, read_header
from trainer.single_file.names import (
    Mapper,
    Names,
    clip_names,
    open_clip_names,
    penultimate_open_clip_names,
    target_shapes,
    unet_names,
    vae_names,
)

UNET = "model.diffusion_model."
VAE = "first_stage_model."


@dataclass(frozen=True)
class Layout:
    """How a family's single files are built.

    Attributes:
        family: the family's short name; its standard configs lie in ``configs/<family>/``.
        parts: by folder name: where the part's weights are (a prefix) and what maps their names.
        guess: scheduler settings that are only likely: there are models with and without them, of the same shapes.
        sample_sizes: latent cells along a side that the model was trained at, by prediction type where it differs.
    """

    family: str
    parts: dict[str, tuple[str, Mapper]]
    guess: dict[str, str] = field(default_factory=dict)
    sample_sizes: dict[str, int] = field(default_factory=dict)

    def names(self, shapes: Shapes) -> dict[str, Names]:
        """Every weight of the model folder, by part: where in the file it comes from."""
        return {part: mapper(shapes, prefix) for part, (prefix, mapper) in self.parts.items()}


LAYOUTS: tuple[Layout, ...] = (
    Layout(
        "sd1",
        {
            "unet": (UNET, unet_names),
            "vae": (VAE, vae_names),
            "text_encoder": ("cond_stage_model.transformer.", clip_names),
        },
    ),
    Layout(
        "sd2",
        {
            "unet": (UNET, unet_names),
            "vae": (VAE, vae_names),
            "text_encoder": ("cond_stage_model.model.", penultimate_open_clip_names),
        },
        guess={"prediction_type": "v_prediction"},
        sample_sizes={"epsilon": 64, "v_prediction": 96},
    ),
    Layout(
        "sdxl",
        {
            "unet": (UNET, unet_names),
            "vae": (VAE, vae_names),
            "text_encoder": ("conditioner.embedders.0.transformer.", clip_names),
            "text_encoder_2": ("conditioner.embedders.1.model.", open_clip_names),
        },
    ),
)

_BASE_HINT = "Choose a checkpoint that holds the whole model: UNet, text encoder and VAE."
_STRANGERS: tuple[tuple[str, str, str], ...] = (
    (
        r"lora_(unet|te\d?|transformer)_|\.lora_(up|down|A|B)\.|\.lora\.(up|down)\.|\.hada_w1|\.lokr_w|\.oft_(blocks|diag)",
        "is a LoRA, not a base model",
        "A LoRA to start from goes into lora.init_from; choose the model it was made for here.",
    ),
    (r"(string_to_param|emb_params|clip_l|clip_g)$", "is an embedding (textual inversion)", _BASE_HINT),
    (r"control_model\.|controlnet_|input_hint_block\.|zero_convs\.", "is a ControlNet", _BASE_HINT),
    (r"(.*\.)?double_blocks\.\d+\.img_", "is a FLUX model", "FLUX cannot be trained here yet."),
    (r"(.*\.)?joint_blocks\.\d+\.", "is a Stable Diffusion 3 model", "It cannot be trained here yet."),
    (r"conditioner\.embedders\.0\.model\.", "is the SDXL refiner", "LoRAs are trained on the SDXL base model."),
    (r"edm_mean$", "is a Playground 2.5 (EDM) model", "Choose another SDXL model."),
    (r"(.*\.)?motion_modules\.", "is a motion module (AnimateDiff)", _BASE_HINT),
    (r"down_blocks\.\d+\..*(transformer_blocks|time_emb_proj)|input_blocks\.0\.0\.", "is only a UNet", _BASE_HINT),
)
"""Pattern at the start of any name in the file, what the file is, what to do: the first that is found counts."""

_CHANNELS = {8: "an edit (InstructPix2Pix)", 5: "a depth-to-image", 7: "an upscaling"}
LATENT_CHANNELS = 4
INPAINTING_CHANNELS = 9
"""Beside the four noisy ones a mask, and the four of the picture without what is masked."""
_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}


def identify(path: Path, shapes: Shapes, *, field: str = "model.base", inpainting: bool = False) -> Layout:
    """The layout of a model. Raises UserError(field) that says what the file is otherwise.

    ``inpainting``: whether an inpainting model will do, which can be drawn with and merged into, not trained.
    """
    for pattern, what, hint in _STRANGERS:
        search = re.compile(pattern)
        if any(search.match(name) or (pattern.startswith("lora_") and search.search(name)) for name in shapes):
            raise _refused(path, what, hint, field)
    found = [name for name in (UNET, VAE, "cond_stage_model.", "conditioner.") if _has(shapes, name)]
    if UNET not in found:
        what = "is only a VAE" if is_vae(shapes) else "is only a text encoder" if _is_text(shapes) else _unknown(shapes)
        hint = "Give it as model.vae, beside a base model." if is_vae(shapes) else _BASE_HINT
        raise _refused(path, what, hint, field)
    _refuse_other_inputs(path, shapes, field, inpainting=inpainting)
    layout = next((each for each in LAYOUTS if _has(shapes, each.parts["text_encoder"][0])), None)
    if layout is None:
        raise _refused(path, "holds a UNet but no text encoder that is known here", _BASE_HINT, field)
    for part, (prefix, _) in layout.parts.items():
        if not _has(shapes, prefix):
            raise _refused(path, f"holds no {part.replace('_', ' ')}", _BASE_HINT, field)
    return layout


def part_shapes(path: Path, *, field: str = "model.base", inpainting: bool = False) -> dict[str, Shapes]:
    """The weights' shapes in the model folder that a .safetensors file would become, by part, read off its header.

    Raises UserError(field) when the file is broken or is no model that will do, see ``identify``.
    """
    shapes = read_header(path, field=field).shapes
    names = identify(path, shapes, field=field, inpainting=inpainting).names(shapes)
    return {part: target_shapes(mapped, shapes) for part, mapped in names.items()}


def folder_bytes(path: Path) -> int:
    """How much disk the model folder of a file takes: of a .safetensors by its header, of a .ckpt at most so much.

    Raises UserError(field="model.base") when the file is broken or is no model, OSError when it cannot be looked at.
    """
    if path.suffix.lower() != ".safetensors":
        return path.stat().st_size
    header = read_header(path)
    parts = identify(path, header.shapes).names(header.shapes).values()
    sources = [source for part in parts for source in part.values()]
    return sum(
        math.prod(source.shape(header.shapes)) * _BYTES.get(header.formats[source.name], 1) for source in sources
    )


def prediction(shapes: Shapes, metadata: dict[str, str]) -> dict[str, Any]:
    """What the file says about what the model predicts, as scheduler settings; empty where it says nothing.

    v-prediction models carry an empty weight ``v_pred``, and ``ztsnr`` when trained with zero terminal SNR (NoobAI's
    convention, read by ComfyUI and Forge), or say so in ``modelspec.prediction_type`` (sai_model_spec 1.0.1).
    """
    told = metadata["modelspec.prediction_type"].lower() if "modelspec.prediction_type" in metadata else ""
    found: dict[str, Any] = {}
    if "v_pred" in shapes or told in ("v", "v_prediction"):
        found["prediction_type"] = "v_prediction"
        if "ztsnr" in shapes:  # sampling must then start at the last step (Lin et al. 2023, 2305.08891)
            found |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    elif told in ("epsilon", "eps"):
        found["prediction_type"] = "epsilon"
    return found


def prediction_guess(path: Path) -> dict[str, str]:
    """What is only likely about a .safetensors model, as scheduler settings. Raises UserError for a broken file."""
    header = read_header(path)
    layout = identify(path, header.shapes)
    return {} if "prediction_type" in prediction(header.shapes, header.metadata) else layout.guess


def guess_warning(name: str, guess: dict[str, str]) -> Problem:
    """What to tell where a file named ``name`` does not say what it predicts, and the likely is assumed."""
    message = (
        f"{name} does not say what it predicts; {guess['prediction_type']} is assumed, as for SD 2.x at 768 pixels."
    )
    hint = "For a model of another kind, such as SD 2.x base at 512 pixels, set loss.prediction_type to epsilon."
    return Problem("model.prediction_type", message, hint, "loss.prediction_type")


def is_vae(shapes: Shapes) -> bool:
    """Whether the weights are those of an AutoencoderKL by itself."""
    return "decoder.conv_in.weight" in shapes and "encoder.conv_in.weight" in shapes


def inpainting_refused(name: str, field: str) -> UserError:
    """What is told where an inpainting model was given for what it cannot do."""
    what = f"is an inpainting model ({INPAINTING_CHANNELS} input channels instead of {LATENT_CHANNELS})"
    hint = "Choose the ordinary model it was made from; LoRAs for that one can be drawn with here too."
    return UserError("model.wrong_kind", f"{field}: {name} {what}.", hint, field)


def _refuse_other_inputs(path: Path, shapes: Shapes, field: str, *, inpainting: bool) -> None:
    shape = shapes.get(f"{UNET}input_blocks.0.0.weight")
    if shape is None or len(shape) != 4:
        raise _refused(path, "holds a denoiser of an unknown kind", _BASE_HINT, field)
    if shape[1] == INPAINTING_CHANNELS:
        if inpainting:
            return
        raise inpainting_refused(path.name, field)
    if shape[1] != LATENT_CHANNELS:
        what = f"is {_CHANNELS.get(shape[1], 'a special')} model ({shape[1]} input channels instead of 4)"
        raise _refused(path, what, "Choose the ordinary model it was made from.", field)


def _is_text(shapes: Shapes) -> bool:
    return any(re.match(r"(text_model\.)?encoder\.layers\.0\.|transformer\.resblocks\.0\.", name) for name in shapes)


def _unknown(shapes: Shapes) -> str:
    names = ", ".join(sorted(shapes)[:3])
    return (
        f"is no Stable Diffusion checkpoint; its {len(shapes)} weights are named {names} ..." if shapes else "is empty"
    )


def _has(shapes: Shapes, prefix: str) -> bool:
    return any(name.startswith(prefix) for name in shapes)


def _refused(path: Path, what: str, hint: str, field: str) -> UserError:
    return UserError("model.wrong_kind", f"{field}: {path.name} {what}.", hint, field)
