"""What a conversion does not carry over as it was, in words: from a look at names, number formats and settings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trainer.lora.adapter_settings import AdapterSettings, adapter_files
from trainer.lora.file import LoraFile
from trainer.lora.forms import Form
from trainer.lora.keys import TensorName, naming, parse_name
from trainer.lora.layers import LoraLayer
from trainer.lora.tensor_file import open_tensors

_ORDINARY_STARTS = ("gaussian", "kaiming", "orthogonal")


@dataclass(frozen=True)
class Note:
    """One thing to tell.

    Attributes:
        code: stable name, such as ``alpha_folded``.
        message: one sentence.
        lost: whether something of the source is not in the result.
    """

    code: str
    message: str
    lost: bool = False


@dataclass(frozen=True)
class Source:
    """What a LoRA file or folder looks like before it is read.

    Attributes:
        naming: whose names its tensors have.
        notes: what reading it changes.
    """

    naming: str
    notes: list[Note]


def look_at(path: Path) -> Source:
    """Look at the headers of a LoRA's files. Raises UserError for files that cannot be read."""
    names: list[str] = []
    notes: list[Note] = []
    for file_path, part in adapter_files(path):
        with open_tensors(file_path) as file:
            formats = {name: str(file.get_slice(name).get_dtype()) for name in file.keys()}  # noqa: SIM118
            settings = AdapterSettings.of(file_path, dict(file.metadata() or {}))
        parsed = {name: found for name in formats if (found := parse_name(name, part))}
        names += parsed
        notes += _about_alphas(list(parsed.values()), settings)
        notes += _about_tensors(parsed, formats)
        notes += _about_settings(settings)
    return Source(naming(names), list({note.code: note for note in notes}.values()))


def loader_notes(lora: LoraFile, form: Form) -> Iterator[Note]:
    """What programs make of a LoRA in this form."""
    kinds = [kind for kind in lora.kinds if kind != "LoRA"]
    if form == "kohya":
        if any(layer.magnitude is not None for layer in lora.layers.values()):
            text = "diffusers leaves the DoRA magnitudes of kohya files out and draws something else without an error."
            yield Note("dora_in_kohya", text)
        if any(not isinstance(layer, LoraLayer) for layer in lora.layers.values()):
            yield Note("lycoris_in_kohya", f"diffusers cannot read {' and '.join(kinds)} under kohya's names.")
        return
    if form == "peft" and any(key.startswith(("lora_te_", "lora_te1_")) for key in lora.layers):
        yield Note("transformers_5", "The text encoder's layers are named as in transformers 5, which PEFT goes by.")
    strengths = {layer.scale for layer in lora.layers.values()}
    if form == "diffusers" and strengths != {1.0}:
        text = (
            "Alpha is kept in the metadata, which recent versions of diffusers and this program read; "
            "older ones and ComfyUI take the rank for it, which changes the strength."
        )
        yield Note("alpha_in_metadata", text)
    if form == "diffusers" and any(key.startswith("lora_unet_") for key in lora.layers):
        text = "ComfyUI does not find the attention layers of SD 1, SD 2 and SDXL under diffusers' names: keep kohya's."
        yield Note("comfyui", text)


def _about_alphas(names: list[TensorName], settings: AdapterSettings) -> Iterator[Note]:
    told = {name.module for name in names if name.role == "alpha"}
    missing = {name.module for name in names} - told
    if missing and not settings.has_alphas:
        yield Note("alpha_added", f"{len(missing)} layers have no alpha: the rank is written as alpha, as all take it.")
    if settings.is_rank_stabilized:
        yield Note("rslora_folded", "rsLoRA's alpha / sqrt(rank) is folded into alpha, so that every reader has it.")


def _about_tensors(names: dict[str, TensorName], formats: dict[str, str]) -> Iterator[Note]:
    mids = sum(name.role == "mid" for name in names.values())
    if mids:
        text = f"{mids} convolutions in three factors (lora_mid) are multiplied out into two, in float32."
        yield Note("mid_composed", text, lost=True)
    small = sorted({formats[name] for name in names if formats[name].startswith("F8")})
    if small:
        yield Note("fp8_widened", f"8 bit numbers ({', '.join(small)}) are written as fp16, each exactly.")


def _about_settings(settings: AdapterSettings) -> Iterator[Note]:
    start = settings.anywhere("init_lora_weights")
    unusual = [value for value in start if isinstance(value, str) and not value.startswith(_ORDINARY_STARTS)]
    if unusual:
        text = (
            f"The adapter was started with {unusual[0]}, which changes the base model's weights too: "
            "on the plain base it does something else, before and after the conversion."
        )
        yield Note("changed_base", text)
    if any(value for value in settings.anywhere("lora_dropout")):
        yield Note("dropout", "PEFT's lora_dropout, a setting of training, is not written.", lost=True)
