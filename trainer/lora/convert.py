"""A LoRA from one form to another: the same numbers under other names, and a word on all that is not the same."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trainer.errors import Problem, UserError
from trainer.files import write_json
from trainer.lora.adapter_settings import METADATA_KEY
from trainer.lora.conversion_notes import Note, loader_notes, look_at
from trainer.lora.file import LoraFile, Precision, network_metadata, read_lora, refuse_overflow, write_lora
from trainer.lora.forms import FORMS, Form, TensorFile, diffusers_file, peft_files, refusals
from trainer.lora.inspect import family_of
from trainer.lora.layers import Layer, LoraLayer
from trainer.lora.low_rank import as_lora
from trainer.lora.target import check_target, whole_folder
from trainer.lora.tensor_file import DTYPES, entry, write_tensors
from trainer.runs.events import EventSink

_VERSION_OF_FAMILY = {"sd1": "sd_v1", "sdxl": "sdxl_base_v1-0"}
"""``ss_base_model_version`` where a file lacks it; what an SD 2 model predicts cannot be seen in a LoRA."""


@dataclass(frozen=True)
class Conversion:
    """What to make of a LoRA.

    Attributes:
        form: names and files of the result.
        rank: LoHa and LoKr layers become LoRA layers of at most this rank; None leaves them.
        conv_rank: the same for convolutions larger than 1x1; None: ``rank``.
        precision: number format of the result; None keeps each tensor's.
    """

    form: Form
    rank: int | None = None
    conv_rank: int | None = None
    precision: Precision | None = None


def convert_lora(
    source: Path, out: Path, wanted: Conversion, *, overwrite: bool = False, events: EventSink
) -> dict[str, Any]:
    """Write a LoRA in another form; returns what was done as plain values.

    ``out`` is a .safetensors file for kohya and diffusers, and a folder for PEFT, with one adapter for each part of the
    model. Raises UserError, with every problem, when the file cannot be read or the form cannot hold it; nothing is
    written then.
    """
    problems = [*check_target(source, out, folder=wanted.form == "peft", overwrite=overwrite), *_check(wanted)]
    if problems:
        raise UserError.many(problems)
    events.emit("progress", what="reading", done=0, total=1)
    looked, lora = look_at(source), read_lora(source)
    changed, errors = _as_loras(lora, wanted, events)
    problems = refusals(changed, wanted.form)
    if problems:
        raise UserError.many(problems)
    family = family_of(lora)
    events.emit("progress", what="writing", done=0, total=1)
    metadata = _metadata(lora, changed, wanted.form, _VERSION_OF_FAMILY.get(family))
    files = _write(out, LoraFile(changed.layers, metadata), wanted)
    events.emit("progress", what="writing", done=1, total=1)
    notes = [*looked.notes, *_unknown(lora), *_approximated(errors), *loader_notes(changed, wanted.form)]
    return {
        "out": str(out),
        "files": files,
        "from": looked.naming,
        "to": wanted.form,
        "family": family,
        "layers": len(changed.layers),
        "kinds": changed.kinds,
        "notes": [vars(note) for note in notes],
        "error": errors,
        "unknown_keys": lora.unknown,
    }


def _check(wanted: Conversion) -> list[Problem]:
    problems = []
    if wanted.form not in FORMS:
        message = f"to: {wanted.form!r} is not one of {', '.join(FORMS)}."
        problems.append(Problem("convert.form", message, "Choose one of them.", "to"))
    for name, rank in (("rank", wanted.rank), ("conv_rank", wanted.conv_rank)):
        if rank is not None and rank < 1:
            message = f"{name}: {rank} is not allowed; a rank is 1 or more."
            problems.append(Problem("convert.rank", message, "Give a larger one.", name))
    if wanted.conv_rank is not None and wanted.rank is None:
        message = "conv_rank: it goes with a rank, which is not given."
        problems.append(Problem("convert.rank", message, "Give a rank too.", "rank"))
    return problems


def _as_loras(lora: LoraFile, wanted: Conversion, events: EventSink) -> tuple[LoraFile, dict[str, Any] | None]:
    """LoHa and LoKr layers made LoRA layers where a rank is given, and the error of each; None where nothing was."""
    others = [key for key, layer in lora.layers.items() if not isinstance(layer, LoraLayer)]
    if wanted.rank is None or not others:
        return lora, None
    layers: dict[str, Layer] = dict(lora.layers)
    rows: list[dict[str, Any]] = []
    whole = lost = 0.0
    for number, key in enumerate(others):
        events.emit("progress", what="decomposing", done=number, total=len(others))
        layer = lora.layers[key]
        large = layer.weight_shape[2:] not in ((), (1, 1))
        near = as_lora(layer, wanted.conv_rank or wanted.rank if large else wanted.rank)
        layers[key] = near.layer
        whole, lost = whole + near.norm**2, lost + near.lost**2
        row = {"layer": key, "kind": layer.name, "rank": near.layer.rank, "full_rank": near.full_rank}
        rows.append({**row, "norm": near.norm, "error": near.error})
    total = math.sqrt(lost / whole) if whole else 0.0
    worst = max(rows, key=lambda row: row["error"])
    return replace(lora, layers=layers), {"total": total, "largest": worst["error"], "layers": rows}


def _metadata(lora: LoraFile, changed: LoraFile, form: Form, version: str | None) -> dict[str, str]:
    """The source's own, without what is true of its form alone; with what other tools need where it lacks that."""
    kept = {key: value for key, value in lora.metadata.items() if key != METADATA_KEY}
    if form != "kohya":
        kept = {key: value for key, value in kept.items() if not key.startswith("sshs_")}  # of the bytes of the source
        kept.setdefault("format", "pt")
    known = network_metadata(changed.layers, None if "ss_base_model_version" in kept else version)
    base = {key: value for key, value in known.items() if not key.startswith("ss_network_")}
    network = {key: value for key, value in known.items() if key.startswith("ss_network_")}
    if changed is not lora:
        return {**base, **kept, **network}
    return {**base, **network, **kept} if form == "kohya" else {**base, **kept}


def _write(out: Path, lora: LoraFile, wanted: Conversion) -> list[str]:
    """Write the files of a form; returns their paths."""
    if wanted.form == "peft":
        files = peft_files(lora, lora.metadata)
        with whole_folder(out) as folder:
            for place, file in files.items():
                _write_one(folder / place, file, wanted.precision)
        return [str(out / place) for place in files]
    if wanted.form == "diffusers":
        _write_one(out, diffusers_file(lora, lora.metadata), wanted.precision)
    else:
        write_lora(out, lora, precision=wanted.precision)
    return [str(out)]


def _write_one(path: Path, file: TensorFile, precision: Precision | None) -> None:
    entries = file.entries
    if precision:
        entries = [entry(item.name, item.load().to(DTYPES[precision])) for item in entries]
    refuse_overflow(path, entries, precision)
    write_tensors(path, entries, file.metadata)
    for name, value in file.beside.items():
        write_json(path.parent / name, value)


def _unknown(lora: LoraFile) -> list[Note]:
    if not lora.unknown:
        return []
    listing = ", ".join(lora.unknown[:3]) + (" ..." if len(lora.unknown) > 3 else "")
    return [Note("unknown_keys", f"{len(lora.unknown)} tensors are not understood and left out: {listing}.", lost=True)]


def _approximated(errors: Mapping[str, Any] | None) -> list[Note]:
    if errors is None:
        return []
    text = (
        f"{len(errors['layers'])} layers are the nearest LoRA of the rank: "
        f"{errors['total']:.2%} of the change is missing, at most {errors['largest']:.2%} of a layer's."
    )
    return [Note("approximated", text, lost=errors["total"] > 1e-6)]
