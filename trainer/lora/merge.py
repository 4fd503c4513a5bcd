"""Merging LoRAs with each other, by what they do to the weights: see ``merge_modes.py`` for the ways there are."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trainer.errors import Problem, UserError
from trainer.lora.file import LoraFile, network_metadata, widest_precision
from trainer.lora.inspect import family_of
from trainer.lora.layers import LoraLayer, Shape
from trainer.lora.merge_modes import Combiner
from trainer.lora.merge_parts import Part, weight_shape_of
from trainer.lora.merge_recipe import MERGE_KEY
from trainer.lora.merge_settings import MODES, MergeSettings, Mode
from trainer.lora.strengths import Strength

__all__ = ["MERGE_KEY", "MODES", "MergeSettings", "MergeSource", "Mode", "merge_loras", "widest_precision"]

_SHARED_MODELSPEC = ("sai_model_spec", "architecture", "implementation", "resolution", "prediction_type")

BaseWeight = Callable[[str], Tensor]
"""Reads the base model's weight of a layer by its kohya key."""
Report = Callable[[int, int], None]
"""Is told how many layers are done, of how many."""


@dataclass(frozen=True)
class MergeSource:
    """A LoRA that is to be merged.

    Attributes:
        lora: the LoRA.
        strength: how much of it is wanted.
        name: its file's name, for messages and the result's metadata.
        sha256: of the file; empty where there is none.
    """

    lora: LoraFile
    strength: Strength
    name: str
    sha256: str = ""


@dataclass(frozen=True)
class PlannedLayer:
    """What makes up one layer of the result, and the shape of the weight that it is for."""

    module: str
    parts: list[Part]
    shape: Shape


def merge_loras(
    loras: Sequence[MergeSource | tuple[LoraFile, float | Strength]],
    settings: MergeSettings | None = None,
    *,
    device: torch.device | None = None,
    base_weight: BaseWeight | None = None,
    dtype: torch.dtype = torch.float32,
    report: Report | None = None,
) -> LoraFile:
    """One LoRA out of several with their strengths (any finite numbers).

    Args:
        loras: what to merge; kinds, ranks, alphas and sets of layers may differ.
        settings: see there; None: the exact sum.
        device: for decompositions; None: the CPU.
        base_weight: the base model's weights, which what a DoRA does depends on.
        dtype: number format of the result's factors.
        report: is told of the progress.

    Raises UserError when the LoRAs do not fit together, or nothing would be left.
    """
    settings = settings or MergeSettings()
    sources = [_source(each, number) for number, each in enumerate(loras)]
    plan = plan_layers(sources, settings, has_base=base_weight is not None)
    combiner = Combiner(settings, device or torch.device("cpu"))
    layers: dict[str, LoraLayer] = {}
    for number, planned in enumerate(plan):
        if report is not None:
            report(number, len(plan))
        parts = [_with_weight(part, planned.module, base_weight) for part in planned.parts]
        merged = combiner.combine(planned.module, parts, planned.shape)
        layers[planned.module] = LoraLayer(merged.down.to(dtype), merged.up.to(dtype), merged.alpha)
    return LoraFile(layers, _metadata(sources, settings, layers, combiner.kept))


def plan_layers(sources: Sequence[MergeSource], settings: MergeSettings, *, has_base: bool) -> list[PlannedLayer]:
    """The layers of the result and what makes them up, by name. Nothing is computed.

    Raises UserError with every reason why these cannot be merged in this way.
    """
    settings.check()
    _check_sources(sources, settings, has_base=has_base)
    by_module: dict[str, list[Part]] = {}
    keep_zero = settings.mode == "kohya"  # there the first one's alpha counts, ratio 0 or not
    for number, source in enumerate(sources):
        for module, layer in source.lora.layers.items():
            ratio = source.strength.of(module)
            if ratio or keep_zero:
                by_module.setdefault(module, []).append(Part(layer, ratio, number))
    if not any(part.ratio for parts in by_module.values() for part in parts):
        raise UserError("merge.nothing", "There is no LoRA with a strength other than 0.", "Raise a strength.", "lora")
    conv_transformers = any(source.lora.metadata.get("ss_base_model_version") == "sd_v1" for source in sources)
    planned, misfits = [], []
    for module, parts in sorted(by_module.items()):
        shape = weight_shape_of(module, parts, conv_transformers=conv_transformers)
        if shape is None:
            shapes = sorted({"x".join(map(str, part.layer.weight_shape)) for part in parts})
            misfits.append(f"{module} ({' and '.join(shapes)})")
        else:
            planned.append(PlannedLayer(module, parts, shape))
    if misfits:
        message = f"The LoRAs are for different models: {len(misfits)} layers differ in shape, such as {misfits[0]}."
        raise UserError("merge.shapes", message, "Merge LoRAs made for the same base model.", "lora")
    if settings.mode == "kohya":
        _check_ranks(planned)
    return planned


def _source(given: MergeSource | tuple[LoraFile, float | Strength], number: int) -> MergeSource:
    if isinstance(given, MergeSource):
        return given
    lora, strength = given
    return MergeSource(lora, strength if isinstance(strength, Strength) else Strength(strength), f"LoRA {number + 1}")


def _with_weight(part: Part, module: str, base_weight: BaseWeight | None) -> Part:
    if part.layer.magnitude is None or base_weight is None:
        return part
    return Part(part.layer, part.ratio, part.number, base_weight(module))


def _check_sources(sources: Sequence[MergeSource], settings: MergeSettings, *, has_base: bool) -> None:
    """Refuse what cannot be added up: all problems at once."""
    problems: list[Problem] = []
    families: dict[str, str] = {}
    for source in sources:
        if not all(math.isfinite(number) for number in source.strength.numbers):
            message = f"{source.name}: {source.strength} is not a finite strength."
            problems.append(Problem("merge.ratio", message, "Give numbers such as 0.8 or -1.", "lora"))
        try:
            source.strength.check(source.lora.layers, source.name)
        except UserError as error:
            problems += error.problems
        problem = _kind_problem(source, settings.mode, has_base=has_base)
        problems += [problem] if problem else []
        made_for = family_of(source.lora)
        if made_for != "unknown":
            families.setdefault(made_for, source.name)
    if len(families) > 1:
        listing = " and ".join(f"{name} is for {made_for}" for made_for, name in families.items())
        hint = "Merge within a family."
        problems.append(Problem("merge.families", f"The LoRAs are for different models: {listing}.", hint, "lora"))
    if problems:
        raise UserError.many(problems)


def _kind_problem(source: MergeSource, mode: Mode, *, has_base: bool) -> Problem | None:
    others = [kind for kind in source.lora.kinds if kind != "LoRA"]
    if others and mode == "kohya":
        message = f"mode: kohya knows LoRAs only, and {source.name} is a {' and '.join(others)}."
        return Problem("merge.kind", message, "Choose exact or svd.", "mode")
    if any("DoRA" in kind for kind in others) and not has_base:
        message = f"{source.name} is a {' and '.join(others)}: what it does depends on the base model."
        return Problem("merge.dora_base", message, "Name that model with --dora-base.", "dora_base")
    return None


def _check_ranks(planned: list[PlannedLayer]) -> None:
    for layer in planned:
        ranks = sorted({part.layer.rank for part in layer.parts})
        if len(ranks) > 1:
            listing = " and ".join(map(str, ranks))
            message = f"mode: kohya cannot merge different ranks ({layer.module} has {listing})."
            raise UserError("merge.ranks", message, "Choose exact or svd.", "mode")


def _metadata(
    sources: Sequence[MergeSource], settings: MergeSettings, layers: Mapping[str, LoraLayer], kept: dict[str, float]
) -> dict[str, str]:
    """What the merged file says of itself: what its sources agree on, their trigger words, and where it is from."""
    origins = [source.lora.metadata for source in sources]
    base = next((version for origin in origins if (version := origin.get("ss_base_model_version"))), None)
    metadata = network_metadata(layers, base)
    for key in (f"modelspec.{name}" for name in _SHARED_MODELSPEC):
        values = {origin[key] for origin in origins if key in origin}
        if len(values) == 1:
            metadata[key] = values.pop()
    triggers = [trigger for origin in origins if (trigger := origin.get("modelspec.trigger_phrase"))]
    if triggers:
        metadata["modelspec.trigger_phrase"] = ", ".join(dict.fromkeys(triggers))
    metadata["modelspec.merged_from"] = ", ".join(source.name for source in sources)
    metadata[MERGE_KEY] = json.dumps(_record(sources, settings, kept), ensure_ascii=False)
    return metadata


def _record(sources: Sequence[MergeSource], settings: MergeSettings, kept: dict[str, float]) -> dict[str, Any]:
    """What was done, complete enough to do it again; names of files without their folders."""
    given = {name: value for name, value in vars(settings.complete()).items() if value is not None}
    record: dict[str, Any] = {
        **given,
        "files": [source.name for source in sources],
        "sha256": [source.sha256 for source in sources],
        "ratios": [_ratio(source.strength) for source in sources],
    }
    if kept:
        record["kept_energy"] = {"smallest": min(kept.values()), "mean": sum(kept.values()) / len(kept)}
    return record


def _ratio(strength: Strength) -> float | str:
    return strength.overall if strength.is_uniform else str(strength)
