"""The difference of two models as a LoRA: what a fine-tuned model has that the one it was made from has not.

Layer by layer the difference is decomposed and its largest singular values are kept. Source of the procedure, the
clamping included: sd-scripts' ``networks/extract_lora_from_models.py``, after cloneofsimo/lora's ``cli_svd.py``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainer.devices import use_threads_for
from trainer.errors import Problem, UserError
from trainer.families.unet import takes_lora
from trainer.lora.decompose import Decomposition, layer_of, of_matrix
from trainer.lora.extract_progress import ExtractProgress
from trainer.lora.file import LoraFile, Precision, network_metadata
from trainer.lora.layers import Layer, LoraLayer, plain_shape
from trainer.lora.model_weights import ModelWeights, Weight
from trainer.lora.tensor_file import DTYPES
from trainer.runs.events import EventSink

EXTRACT_KEY = "lora_atelier_extract"
"""Metadata key of what a file was extracted from: JSON with names and hashes of the models, and the settings."""

_NAMED = 3
_SMALLEST_HALF = 2.0**-24  # between two neighbouring fp16 numbers near zero

Pair = tuple[Weight, Weight]
"""A weight of the base and the same one of the tuned model."""


@dataclass(frozen=True)
class ExtractSettings:
    """What is kept of a difference.

    Attributes:
        rank: of linear layers and 1x1 convolutions, at most their own size.
        conv_rank: of 3x3 convolutions; None leaves them out, and with them the linear layers of ResNets.
        clamp_quantile: values of the factors beyond this quantile are cut off there; 1 cuts nothing.
        min_diff: a text encoder in which nothing changed by more is left out.
        exact: never use the fast decomposition.
    """

    rank: int
    conv_rank: int | None = None
    clamp_quantile: float = 0.99
    min_diff: float = 0.0
    exact: bool = False

    def problems(self) -> Iterator[Problem]:
        """What is wrong with the numbers."""
        for name, value in (("rank", self.rank), ("conv_rank", self.conv_rank)):
            if value is not None and value < 1:
                yield Problem("extract.rank", f"{name}: {value} is not allowed; it is 1 or more.", "Give a rank.", name)
        if not 0.5 < self.clamp_quantile <= 1:
            message = f"clamp_quantile: {self.clamp_quantile:g} is not allowed; it is above 0.5 and up to 1."
            yield Problem("extract.clamp_quantile", message, "Use 0.99, or 1 to cut nothing.", "clamp_quantile")
        if not 0 <= self.min_diff < math.inf:
            message = f"min_diff: {self.min_diff:g} is not allowed; it is 0 or more."
            yield Problem("extract.min_diff", message, "Use 0 to keep every change.", "min_diff")


@dataclass(frozen=True)
class LayerReport:
    """What became of a layer.

    Attributes:
        module: its name in the LoRA.
        shape: of the weight.
        rank: of the LoRA.
        norm: Frobenius norm of the difference.
        norm_kept: share of it that lies in the singular values that are kept.
        error: Frobenius norm of what the LoRA as it is saved does wrong, next to the difference's.
    """

    module: str
    shape: tuple[int, ...]
    rank: int
    norm: float
    norm_kept: float
    error: float


@dataclass(frozen=True)
class ExtractReport:
    """What became of the difference.

    Attributes:
        layers: those in the LoRA.
        unchanged: names of layers without a difference that rounding would not explain; they are not in the LoRA.
        left_out: text encoders that are left out, with the largest difference in each.
        not_carried: Frobenius norm of the difference in weights that such a LoRA has no place for (norms, biases,
            embeddings; without ``conv_rank`` convolutions), next to the norm of the whole difference.
    """

    layers: list[LayerReport]
    unchanged: list[str]
    left_out: dict[str, float]
    not_carried: float

    @property
    def error(self) -> float:
        """What the LoRA does wrong in its layers together, next to the norm of their differences."""
        whole = math.fsum(layer.norm**2 for layer in self.layers)
        return math.sqrt(math.fsum((layer.norm * layer.error) ** 2 for layer in self.layers) / whole)


def extract_lora(
    base: ModelWeights,
    tuned: ModelWeights,
    settings: ExtractSettings,
    *,
    precision: Precision,
    device: torch.device,
    events: EventSink,
) -> tuple[LoraFile, ExtractReport]:
    """The LoRA that makes ``tuned`` out of ``base`` as nearly as it can.

    Args:
        base: the model to apply the LoRA to.
        tuned: the model to come to.
        settings: what is kept.
        precision: number format of the result's factors.
        device: where layers are decomposed, one at a time.
        events: gets the progress.

    Raises UserError when the models are of different families or builds, are equal, or hold numbers that are none.
    """
    pairs = _pairs(base, tuned)
    use_threads_for(sum(math.prod(weight.shape) for weight in base.weights.values()))
    targets = [pair for pair in pairs if _is_target(pair[0], conv=settings.conv_rank is not None)]
    rest = [pair for pair in pairs if not _is_target(pair[0], conv=settings.conv_rank is not None)]
    left_out = _equal_text_encoders(targets, settings.min_diff)
    progress = ExtractProgress([_work(pair, settings) for pair in targets], events)
    layers: dict[str, Layer] = {}
    reports: list[LayerReport] = []
    unchanged: list[str] = []
    dropped = 0.0
    for number, pair in enumerate(targets):
        module = base.lora_key(pair[0])
        change, is_change = _difference(pair)
        if pair[0].part in left_out:
            dropped += float(change.double().square().sum())
        elif not is_change:
            unchanged.append(module)
        else:
            layers[module], report = _extracted(module, change, settings, DTYPES[precision], device)
            reports.append(report)
        progress.tell(number)
    if not layers:
        raise _nothing(base, tuned, left_out)
    other = dropped + math.fsum(float(_difference(pair)[0].double().square().sum()) for pair in rest)
    whole = other + math.fsum(report.norm**2 for report in reports)
    outcome = ExtractReport(reports, unchanged, left_out, math.sqrt(other / whole))
    return LoraFile(layers, _metadata(base, tuned, layers, settings, outcome)), outcome


def with_origins(lora: LoraFile, *, base: str, tuned: str) -> LoraFile:
    """The same LoRA, with the SHA-256 of the models that it was extracted from in its metadata."""
    record = json.loads(lora.metadata[EXTRACT_KEY])
    record["extracted_from"]["base"]["sha256"] = base
    record["extracted_from"]["tuned"]["sha256"] = tuned
    return LoraFile(lora.layers, {**lora.metadata, EXTRACT_KEY: json.dumps(record, ensure_ascii=False)}, lora.unknown)


def widest_of(models: list[ModelWeights]) -> Precision:
    """The number format that holds the weights of these models."""
    dtypes = {weight.dtype for model in models for weight in model.weights.values()}
    if dtypes <= {torch.float16}:
        return "fp16"
    return "bf16" if dtypes <= {torch.bfloat16} else "float"


def _pairs(base: ModelWeights, tuned: ModelWeights) -> list[Pair]:
    """The weights of both. Raises UserError when they are not the same ones."""
    if base.family != tuned.family:
        message = f"The models are of different families: {base.name} is {base.title}, {tuned.name} is {tuned.title}."
        raise UserError("extract.families", message, "Choose the model that the tuned one was made from.", "base")
    misfits = [
        f"{part}.{name} ({_sides(weight.shape)} and {_sides(tuned.weights[part, name].shape)})"
        for (part, name), weight in base.weights.items()
        if (part, name) in tuned.weights and plain_shape(weight.shape) != plain_shape(tuned.weights[part, name].shape)
    ]
    lone = [".".join(key) for key in base.weights.keys() ^ tuned.weights.keys() if _is_layer(key)]
    told = [
        f"{len(names)} weights {what} ({', '.join(sorted(names)[:_NAMED])}{' ...' if len(names) > _NAMED else ''})"
        for names, what in ((misfits, "differ in shape"), (lone, "are only in one of them"))
        if names
    ]
    if told:
        message = f"The models are of different builds: {'; '.join(told)}."
        raise UserError("extract.shapes", message, "Choose the model that the tuned one was made from.", "base")
    return [(weight, tuned.weights[key]) for key, weight in base.weights.items() if key in tuned.weights]


def _is_layer(key: tuple[str, str]) -> bool:
    """Whether a weight is one that LoRAs are for: some files lack a text encoder's last norm or projection."""
    part, name = key
    return name.endswith(".weight") and takes_lora(part, name.removesuffix(".weight"), conv=True)


def _is_target(weight: Weight, *, conv: bool) -> bool:
    return weight.name.endswith(".weight") and takes_lora(weight.part, weight.path, conv=conv)


def _difference(pair: Pair) -> tuple[Tensor, bool]:
    """``tuned - base`` in float32, shaped like the base's weight, and whether rounding alone does not explain it."""
    old, new = (weight.load().float() for weight in pair)
    change = new.reshape(old.shape) - old
    if not bool(torch.isfinite(change).all()):
        broken = "base" if not bool(torch.isfinite(old).all()) else "tuned"
        message = f"{broken}: {pair[0].part}.{pair[0].name} holds NaN or infinity."
        raise UserError("extract.broken", message, "Get the model again; it is broken.", broken)
    return change, bool(_beyond_rounding(change, old, new.reshape(old.shape), pair).any())


def _beyond_rounding(change: Tensor, old: Tensor, new: Tensor, pair: Pair) -> Tensor:
    """Where a difference is more than a number format's last digit: the same weights may be saved in two formats."""
    step = max(torch.finfo(weight.dtype).eps for weight in pair)
    smallest = _SMALLEST_HALF if any(weight.dtype == torch.float16 for weight in pair) else 0.0
    return change.abs() > step * torch.maximum(old.abs(), new.abs()) + smallest


def _equal_text_encoders(targets: list[Pair], min_diff: float) -> dict[str, float]:
    """The text encoders in which nothing changed by more than ``min_diff``, with the largest difference in each."""
    largest: dict[str, float] = {}
    changed: set[str] = set()
    for pair in (pair for pair in targets if pair[0].part != "unet"):
        part = pair[0].part
        change, is_change = _difference(pair)
        most = float(change.abs().max())
        largest[part] = max(most, largest.get(part, 0.0))
        if is_change and most > min_diff:
            changed.add(part)
    return {part: value for part, value in largest.items() if part not in changed}


def _extracted(
    module: str, change: Tensor, settings: ExtractSettings, dtype: torch.dtype, device: torch.device
) -> tuple[LoraLayer, LayerReport]:
    shape = tuple(change.shape)
    matrix = change.to(device).flatten(1)
    rank = min(_rank_for(shape, settings), *matrix.shape)
    found = of_matrix(matrix, rank, exact=settings.exact)
    up, down = (factor.to(dtype) for factor in _clamped(found, rank, settings.clamp_quantile))
    norm = math.sqrt(found.energy)
    wrong = torch.linalg.vector_norm(torch.addmm(matrix, up.float(), down.float(), alpha=-1), dtype=torch.float64)
    report = LayerReport(module, shape, rank, norm, found.kept(rank), float(wrong) / norm)
    return layer_of(up.cpu(), down.cpu(), shape, float(rank)), report


def _rank_for(shape: tuple[int, ...], settings: ExtractSettings) -> int:
    is_large = len(plain_shape(shape)) == 4
    return settings.conv_rank if is_large and settings.conv_rank is not None else settings.rank


def _clamped(found: Decomposition, rank: int, quantile: float) -> tuple[Tensor, Tensor]:
    """The factors, without the values beyond a quantile of them all and of their negatives.

    Cut as sd-scripts cuts, where ``up`` carries the singular values; only then do both get the root of these. That
    changes nothing in their product, and factors of like size lose least in 16-bit formats. There the negatives do not
    count, so that the limit depends on the signs that a decomposition happens to give its vectors.
    """
    up, down = found.left[:, :rank] * found.values[:rank], found.right[:rank]
    if quantile < 1:
        sizes = torch.cat([up.flatten(), down.flatten()]).abs().cpu().numpy()
        limit = float(np.quantile(sizes, 2 * quantile - 1))
        up, down = up.clamp(-limit, limit), down.clamp(-limit, limit)
    root = found.values[:rank].sqrt()
    inverse = torch.where(root > 0, 1 / root, 0)
    return up * inverse, root[:, None] * down


def _work(pair: Pair, settings: ExtractSettings) -> int:
    """How long a layer takes, roughly: the products of its matrix with as many columns as are wanted, and reading."""
    shape = pair[0].shape
    return math.prod(shape) * (_rank_for(shape, settings) + 64)


def _nothing(base: ModelWeights, tuned: ModelWeights, left_out: dict[str, float]) -> UserError:
    message = f"{tuned.name} has no change against {base.name} that a LoRA could hold"
    if any(left_out.values()):
        message += f"; its text encoder differs by {max(left_out.values()):.3g} at most, which min_diff leaves out"
    return UserError("extract.equal", f"{message}.", "Check that these are the two models you mean.", "tuned")


def _metadata(
    base: ModelWeights,
    tuned: ModelWeights,
    layers: dict[str, Layer],
    settings: ExtractSettings,
    outcome: ExtractReport,
) -> dict[str, str]:
    """What other tools need to know of the file, and where it is from."""
    side = tuned.resolution_px
    modelspec = {
        "sai_model_spec": "1.0.1",
        "architecture": f"{tuned.architecture}/lora",
        "implementation": "diffusers",
        "title": f"{tuned.name} minus {base.name}",
        "resolution": f"{side}x{side}",
        "prediction_type": {"v_prediction": "v"}.get(tuned.prediction_type, tuned.prediction_type),
    }
    record: dict[str, Any] = {
        "extracted_from": {"base": {"name": base.name}, "tuned": {"name": tuned.name}},
        **asdict(settings),
        "left_out": sorted(outcome.left_out),
        "error": round(outcome.error, 6),
        "not_carried": round(outcome.not_carried, 6),
    }
    return {
        **network_metadata(layers, tuned.base_model_version),
        "ss_sd_model_name": base.name,
        "ss_training_comment": f"extracted: {tuned.name} minus {base.name}",
        **{f"modelspec.{name}": value for name, value in modelspec.items()},
        EXTRACT_KEY: json.dumps(record, ensure_ascii=False),
    }


def _sides(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
