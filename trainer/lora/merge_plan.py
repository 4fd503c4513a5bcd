"""What goes where when LoRAs are merged into a model: found from names and shapes alone, before anything is computed.

A model is a folder in diffusers layout or a single file. Either way a LoRA's layer is looked for by its kohya key among
the weights as a folder would name them; where they lie, perhaps as a third of a fused projection, is a ``Spot``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer.errors import Problem, UserError
from trainer.files import read_json
from trainer.lora.file import LoraFile, fit_names, read_lora
from trainer.lora.inspect import family_of
from trainer.lora.keys import PREFIXES, kohya_key
from trainer.lora.merge_weights import Change
from trainer.lora.strengths import Strength
from trainer.lora.weight_file import WeightSource, open_weights
from trainer.single_file.kinds import identify
from trainer.single_file.names import Source

CAST_PARTS = (*PREFIXES, "vae")
"""Parts of a model that a number format to save in applies to."""

_NAMED = 5


@dataclass(frozen=True)
class Spot:
    """Where a weight lies: the file, what of it, and the weight's shape in a model folder."""

    file: WeightSource
    source: Source
    shape: tuple[int, ...]


@dataclass
class Base:
    """An open model.

    Attributes:
        path: the folder or the file.
        parts: by the part's name, the spots of its weights by their names in a model folder; where a folder has
            several files of the same weights (shards aside), each name has several.
        files: every open file, with its part; None for that of a whole model.
    """

    path: Path
    parts: dict[str, dict[str, list[Spot]]]
    files: list[tuple[str | None, WeightSource]]

    @property
    def is_file(self) -> bool:
        """Whether it is a single file."""
        return self.path.is_file()

    def spot(self, part: str, name: str) -> Spot:
        """Where a weight lies; of variants (``model.fp16.safetensors`` beside ``model.safetensors``) the plain one."""
        return min(self.parts[part][name], key=lambda spot: len(spot.file.path.name))

    @property
    def tensors_of_parts(self) -> set[tuple[Path, str]]:
        """The tensors that belong to a part, rather than to training or to other tools."""
        return {
            (spot.file.path, spot.source.name)
            for names in self.parts.values()
            for spots in names.values()
            for spot in spots
        }


@dataclass
class MergePlan:
    """Which tensor changes by what.

    Attributes:
        changes: by file and tensor.
        layers: for each LoRA the number of its layers that have a place in the model.
        unknown: for each LoRA, by its path, the tensors that were not understood.
        left_out: for each LoRA, by its path, the layers that have no place, where that is allowed.
    """

    changes: dict[tuple[Path, str], list[Change]] = field(default_factory=dict)
    layers: list[int] = field(default_factory=list)
    unknown: dict[str, list[str]] = field(default_factory=dict)
    left_out: dict[str, list[str]] = field(default_factory=dict)


@contextmanager
def open_base(path: Path) -> Iterator[Base]:
    """Open a model folder or single file. Raises UserError("base") when it is neither, or broken."""
    with ExitStack() as stack:
        yield _open_file(path, stack) if path.is_file() else _open_folder(path, stack)


def _open_file(path: Path, stack: ExitStack) -> Base:
    file = stack.enter_context(open_weights(path))
    shapes = {name: stored.shape for name, stored in file.table.items()}
    layout = identify(path, shapes, field="base", inpainting=True)
    parts = {
        part: {name: [Spot(file, source, source.shape(shapes))] for name, source in names.items()}
        for part, names in layout.names(shapes).items()
    }
    return Base(path, parts, [(None, file)])


def _open_folder(path: Path, stack: ExitStack) -> Base:
    model_index(path)
    base = Base(path, {}, [])
    for part in (part for part in CAST_PARTS if (path / part).is_dir()):
        spots: dict[str, list[Spot]] = base.parts.setdefault(part, {})
        for weights in weight_files(path / part):
            file = stack.enter_context(open_weights(weights))
            base.files.append((part, file))
            for name, stored in file.table.items():
                spots.setdefault(name, []).append(Spot(file, Source(name), stored.shape))
    return base


def model_index(folder: Path) -> dict[str, Any]:
    """The model folder's list of parts. Raises UserError when it is none."""
    try:
        index = read_json(folder / "model_index.json")
    except (OSError, ValueError):
        index = None
    if not isinstance(index, dict):
        hint = "Choose a folder in diffusers layout, or a .safetensors or .ckpt file."
        raise UserError("model.not_a_model", f"base: {folder} is not a model.", hint, "base")
    return index


def weight_files(part_dir: Path) -> list[Path]:
    """The safetensors files of a part of the model. Raises UserError when its weights come as pickles only."""
    files = sorted(path for path in part_dir.glob("*.safetensors") if "non_ema" not in path.name)
    if not files:
        message = f"base: {part_dir.name} has no .safetensors weights in {part_dir}."
        raise UserError("model.no_safetensors", message, "Save the model as safetensors first.", "base")
    return files


def plan_merge(base: Base, loras: list[tuple[Path, Strength]], *, allow_partial: bool = False) -> MergePlan:
    """Find the place of every LoRA layer.

    Args:
        base: the model.
        loras: files and their strengths.
        allow_partial: leave out layers that have no place in the model, where most have one.

    Raises UserError with one problem for each LoRA that does not fit the model.
    """
    places = _places(base)
    plan = MergePlan()
    problems: list[Problem] = []
    for path, strength in loras:
        read = read_lora(path)
        lora = fit_names(read, places)
        try:
            strength.check(list(lora.layers), path.name)
            strangers = _strangers(path, lora, places, base, allow_partial=allow_partial)
        except UserError as error:
            problems += error.problems
            continue
        if strangers:
            plan.left_out[str(path)] = strangers
        if lora.unknown:
            plan.unknown[str(path)] = lora.unknown
        plan.layers.append(len(lora.layers) - len(strangers))
        _add(plan, lora, strength, places)
    if problems:
        raise UserError.many(problems)
    return plan


def _add(plan: MergePlan, lora: LoraFile, strength: Strength, places: dict[str, list[Spot]]) -> None:
    for module, layer in lora.layers.items():
        amount = strength.of(module)
        for spot in places.get(module, []) if amount else []:
            key = (spot.file.path, spot.source.name)
            plan.changes.setdefault(key, []).append(Change(layer, amount, spot.source))


def _places(base: Base) -> dict[str, list[Spot]]:
    """By kohya key: where the weights of the model's layers are."""
    sdxl = "text_encoder_2" in base.parts
    places: dict[str, list[Spot]] = {}
    for part in (part for part in base.parts if part in PREFIXES):
        for name, spots in base.parts[part].items():
            if name.endswith(".weight"):
                places.setdefault(kohya_key(part, name.removesuffix(".weight"), sdxl=sdxl), []).extend(spots)
    return places


def _strangers(
    path: Path, lora: LoraFile, places: dict[str, list[Spot]], base: Base, *, allow_partial: bool
) -> list[str]:
    """Layers without a place. Raises UserError when there are some and they may not be left out, or shapes differ."""
    strangers = sorted(module for module in lora.layers if module not in places)
    misfits = [
        f"{module} ({_sides(layer.weight_shape)}, the model has {_sides(spot.shape)})"
        for module, layer in lora.layers.items()
        for spot in places.get(module, [])
        if not layer.fits(spot.shape)
    ]
    mostly = 2 * len(strangers) < len(lora.layers)
    if misfits or (strangers and not (allow_partial and mostly)):
        raise UserError.many([_does_not_fit(path, lora, strangers, misfits, base, mostly=mostly)])
    compressed = [
        spot.source.name
        for module in lora.layers
        for spot in places.get(module, [])
        if spot.file.table[spot.source.name].dtype is None
    ]
    if compressed:
        message = f"base: {base.path.name} holds weights in a compressed number format ({compressed[0]})."
        raise UserError("merge.format", message, "Choose the fp16, bf16 or fp32 version of the model.", "base")
    return strangers


def _does_not_fit(
    path: Path, lora: LoraFile, strangers: list[str], misfits: list[str], base: Base, *, mostly: bool
) -> Problem:
    listed = [*strangers, *misfits]
    names = ", ".join(listed[:_NAMED]) + (f" and {len(listed) - _NAMED} more" if len(listed) > _NAMED else "")
    counts = [
        f"{len(found)} of {len(lora.layers)} layers {what}"
        for found, what in ((strangers, "are not in the model"), (misfits, "have another shape"))
        if found
    ]
    made_for = f" (made for: {family_of(lora)})"
    hint = "Use the model it was made for."
    if mostly and not misfits:
        hint = "Use the model it was made for, or leave these layers out (--allow-partial)."
    message = f"{path.name}{made_for} does not fit {base.path.name}: {' and '.join(counts)}: {names}."
    return Problem("merge.no_fit", message, hint, "lora")


def _sides(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
