"""How large a model on disk is, read from the headers of its files: nothing is loaded, and never torch."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from trainer.activations import UnetUnits, unet_units
from trainer.config import LoraSettings, ModelSettings
from trainer.demo import MODEL_DIR
from trainer.errors import UserError
from trainer.files import home_path
from trainer.hub import cached_folder
from trainer.hub_names import HUB_ID
from trainer.lora.layer_ranks import layer_rank
from trainer.lora.sizes import adapter_parameters
from trainer.single_file.cache import converted_folder, looks_like_a_file
from trainer.single_file.header import Shapes, read_header
from trainer.single_file.kinds import INPAINTING_CHANNELS, inpainting_refused, part_shapes
from trainer.usual_models import CHANNELS, VAE_PARAMETERS, usual_model
from trainer.weight_files import weights_in

_ATTENTION = re.compile(r"\.attn[12]\.to_(q|k|v|out\.0)$")
_TRANSFORMER = re.compile(r"\.(attn[12]\.to_(q|k|v|out\.0)|ff\.net\.(0\.proj|2)|proj_in|proj_out)$")
_FULL = re.compile(rf"{_TRANSFORMER.pattern}|\.resnets\.\d+\.(time_emb_proj|conv_shortcut)$")
_LARGE_CONV = re.compile(r"\.resnets\.\d+\.conv[12]$|\.(down|up)samplers\.\d+\.conv$")
_TEXT_ATTENTION = re.compile(r"\.self_attn\.(q|k|v|out)_proj$")
_TEXT_ALL = re.compile(r"\.self_attn\.(q|k|v|out)_proj$|\.mlp\.fc[12]$")


@dataclass(frozen=True)
class ModelSizes:
    """A model's sizes.

    Attributes:
        denoiser: parameters.
        text: parameters of the text encoder, or of both.
        vae: parameters.
        channels: width of the denoiser's first level.
        text_width: numbers per token that the text encoders give together.
        lora: parameters of the LoRA that the settings ask for.
        units: the denoiser's parts, by what they keep in a step.
        adapted: numbers in the weights that adapters go on.
        known: False where the model is not on this machine, or pickled, and the sizes of a usual one stand in.
        name: of that usual one; empty for a known model.
    """

    denoiser: int
    text: int
    vae: int
    channels: int
    text_width: int
    lora: int
    units: UnetUnits
    known: bool
    adapted: int
    name: str = ""


def model_sizes(model: ModelSettings, lora: LoraSettings, *, inpainting: bool = False) -> ModelSizes:
    """The sizes of the settings' model. Raises UserError(field="model.base") when the base cannot be a model.

    ``inpainting``: whether an inpainting model will do, which can only be drawn with.
    """
    parts = _file_shapes(model, inpainting) or _folder_shapes(model)
    if parts is None:
        usual = usual_model(model.base)
        return ModelSizes(
            denoiser=usual.denoiser,
            text=usual.text,
            vae=VAE_PARAMETERS,
            channels=CHANNELS,
            text_width=usual.text_width,
            lora=usual.lora(lora),
            units=usual.units,
            known=False,
            adapted=usual.adapted[lora.target],
            name=usual.name,
        )
    unet = parts["unet"]
    texts = {part: shapes for part, shapes in parts.items() if part.startswith("text_encoder")}
    try:
        channels, inputs = (unet["conv_in.weight"][side] for side in (0, 1))
        text_width = sum(_text_width(shapes) for shapes in texts.values())
    except (KeyError, IndexError, StopIteration) as error:
        message = f"model.base: {model.base} lacks weights that every such model has ({error})."
        raise UserError("model.broken", message, "Get the model again.", "model.base") from error
    if inputs == INPAINTING_CHANNELS and not inpainting:
        raise inpainting_refused(model.base, "model.base")
    parameters, adapted = _lora_sizes(unet, texts, lora)
    return ModelSizes(
        denoiser=_parameters(unet),
        text=sum(_parameters(shapes) for shapes in texts.values()),
        vae=_parameters(parts["vae"]),
        channels=channels,
        text_width=text_width,
        lora=parameters,
        units=unet_units(unet),
        known=True,
        adapted=adapted,
    )


def local_folder(model: ModelSettings) -> Path | None:
    """The model's folder on this machine; None where it is still to be downloaded, or made of a single file.

    Raises UserError when the base can be neither.
    """
    path = MODEL_DIR if model.base == "demo" else home_path(model.base)
    if path.is_dir():
        if not (path / "model_index.json").is_file():
            message = f"model.base: {model.base} is a folder, but not a model."
            hint = (
                "Choose a folder in diffusers layout: model_index.json, unet, vae, text_encoder, tokenizer, scheduler."
            )
            raise UserError("model.not_a_model", message, hint, "model.base")
        return path
    if path.is_file():
        if not looks_like_a_file(model.base):
            message = f"model.base: {path.name} is not a .safetensors or .ckpt file."
            raise UserError("model.single_file", message, "Choose such a file, or a folder.", "model.base")
        return converted_folder(path)
    if looks_like_a_file(model.base):
        raise UserError("model.not_found", f"model.base: there is no file {path}.", "Check the path.", "model.base")
    if not HUB_ID.fullmatch(model.base):
        message = f"model.base: {model.base!r} is not a folder on this machine, and not a Hugging Face id (owner/name)."
        raise UserError("model.not_found", message, "Check the path, or use `demo`.", "model.base")
    return cached_folder(model.base, model.revision)


def _file_shapes(model: ModelSettings, inpainting: bool) -> dict[str, Shapes] | None:
    """Shapes by part of a model that comes as a single .safetensors file; None for any other."""
    path = home_path(model.base)
    is_readable = path.is_file() and path.suffix.lower() == ".safetensors"
    return part_shapes(path, inpainting=inpainting) if is_readable else None


def _folder_shapes(model: ModelSettings) -> dict[str, Shapes] | None:
    """Shapes by part of a model folder; None where there is none yet, or its weights are pickled."""
    folder = local_folder(model)
    if folder is None:
        return None
    second = ["text_encoder_2"] if (folder / "text_encoder_2").is_dir() else []
    parts = ("unet", "text_encoder", *second, "vae")
    try:
        if any((weights := weights_in(folder / part)) and not weights.safetensors for part in parts):
            return None  # pickled: what is in them is known when they are loaded
        return {part: _shapes(folder / part) for part in parts}
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f"model.base: the files of {folder} cannot be read: {error}."
        raise UserError("model.broken", message, "Get the model again.", "model.base") from error


def _shapes(folder: Path) -> Shapes:
    """Shapes of all tensors of the version of a part's weights that is read."""
    weights = weights_in(folder)
    if weights is None or weights.missing:
        raise ValueError(f"{folder.name} lacks {weights.missing[0] if weights else 'its weights'}")
    shapes: Shapes = {}
    for name in weights.names:
        shapes |= read_header(folder / name, refuse=partial(_unreadable, folder / name)).shapes
    return shapes


def _unreadable(path: Path, what: str) -> UserError:
    part, model = path.parent, path.parent.parent
    message = f"model.base: the {part.name} of {model} cannot be read: {path.name} {what}."
    return UserError("model.broken", message, "Get the model again; it may be incomplete.", "model.base")


def _parameters(shapes: Shapes) -> int:
    return sum(math.prod(shape) for shape in shapes.values())


def _text_width(text: Shapes) -> int:
    """Numbers per token that a text encoder gives. Raises StopIteration for weights of something else."""
    return next(shape[1] for name, shape in text.items() if name.endswith("token_embedding.weight"))


def _lora_sizes(unet: Shapes, texts: dict[str, Shapes], lora: LoraSettings) -> tuple[int, int]:
    """Parameters of the adapters, and numbers in the weights that they go on."""
    found: list[tuple[int, int]] = []
    if lora.train != "text_encoder":
        target = {"attention": _ATTENTION, "attention_ff": _TRANSFORMER, "full": _FULL}[lora.target]
        found += _adapters("unet", unet, target, lora)
        found += _adapters("unet", unet, _LARGE_CONV, lora)
    if lora.train != "unet":
        target = _TEXT_ATTENTION if lora.target == "attention" else _TEXT_ALL
        for part, text in texts.items():
            found += _adapters(part, text, target, lora)
    return sum(own for own, _ in found), sum(weight for _, weight in found)


def _adapters(part: str, shapes: Shapes, target: re.Pattern[str], lora: LoraSettings) -> Iterator[tuple[int, int]]:
    """For each adapter its own parameters and those of its layer's weight."""
    for name, shape in shapes.items():
        path = name.removesuffix(".weight")
        if part == "text_encoder":
            path = path.removeprefix("text_model.")  # older files; the layers are named without it
        layer = f"{part}.{path}"
        if not name.endswith(".weight") or not target.search(layer):
            continue
        rank = layer_rank(layer, lora, large_conv=target is _LARGE_CONV)
        if rank:
            yield adapter_parameters(lora.type, shape, rank, lora.lokr_factor), math.prod(shape)
