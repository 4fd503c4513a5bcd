"""What a base model is, told by names, shapes and settings: family, parts, number formats, what it predicts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.errors import UserError
from trainer.files import json_object
from trainer.single_file.header import Shapes, read_header
from trainer.single_file.kinds import Layout, identify, prediction
from trainer.weight_files import weights_in

_FIELD = "file"
_EMA = "model_ema."
_FORMATS = {
    "F32": "float", "F16": "fp16", "BF16": "bf16", "F64": "double", "F8_E4M3": "fp8", "F8_E5M2": "fp8",
}  # fmt: skip


def describe_file(path: Path) -> dict[str, Any]:
    """A single-file model, or what else a file with weights is. Raises UserError for a broken file."""
    header = _listing(path)
    answer: dict[str, Any] = {
        "file": path.name,
        "size_bytes": path.stat().st_size,
        "precision": _common_format(header.formats),
        "formats": dict(Counter(header.formats.values()).most_common()),
        "metadata": dict(sorted(header.metadata.items())),
    }
    try:
        layout = identify(path, header.shapes, field=_FIELD)
    except UserError as error:
        problem = error.problems[0]
        said = problem.message.removeprefix(f"{_FIELD}: {path.name} ").removesuffix(".")
        return {"what": "other", "family": "unknown", "said": said, "parts": {}, "warnings": [], **answer}
    return {"what": "model", "family": layout.family, **_told(layout, header), **answer}


def describe_folder(path: Path, family: str) -> dict[str, Any]:
    """A model folder in diffusers layout, which is of ``family``. Raises UserError for a broken one."""
    parts: dict[str, Any] = {}
    formats: Counter[str] = Counter()
    size = 0
    for folder in sorted(each for each in path.iterdir() if each.is_dir()):
        chosen = weights_in(folder)
        if chosen is None:
            continue
        size += sum((folder / name).stat().st_size for name in chosen.names if (folder / name).is_file())
        own: Counter[str] = Counter()
        numbers = 0
        for name in chosen.names if chosen.safetensors else ():
            header = read_header(folder / name, field=_FIELD)
            own.update(header.formats.values())
            numbers += _numbers(header.shapes)
        formats.update(own)
        parts[folder.name] = {"numbers": numbers or None, "precision": _common_format(Counter(own).elements())}
    scheduler = json_object(path / "scheduler" / "scheduler_config.json")
    zero = scheduler.get("rescale_betas_zero_snr")
    return {
        "what": "model",
        "file": path.name,
        "family": family,
        "size_bytes": size,
        "precision": _common_format(formats.elements()),
        "formats": dict(formats.most_common()),
        "parts": parts,
        "prediction": {"type": scheduler.get("prediction_type", "epsilon"), "zero_terminal_snr": bool(zero)},
        "vae": "included" if "vae" in parts else "missing",
        "ema": False,
        "warnings": [],
        "metadata": {},
    }


@dataclass(frozen=True)
class _Listing:
    """What a file holds: shapes and number formats by name, and what it says of itself."""

    shapes: Shapes
    formats: dict[str, str]
    metadata: dict[str, str]


def _listing(path: Path) -> _Listing:
    if path.suffix.lower() != ".ckpt":
        header = read_header(path, field=_FIELD)
        return _Listing(header.shapes, header.formats, header.metadata)
    from trainer.single_file.tensors import open_checkpoint  # torch, which a header does without

    with open_checkpoint(path, field=_FIELD) as checkpoint:
        formats = {name: str(dtype).removeprefix("torch.") for name, dtype in checkpoint.dtypes.items()}
        names = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "float64": "F64"}
        return _Listing(checkpoint.shapes, {name: names[given] for name, given in formats.items()}, {})


def _told(layout: Layout, header: _Listing) -> dict[str, Any]:
    parts = {}
    for part, (prefix, _) in layout.parts.items():
        own = [name for name in header.shapes if name.startswith(prefix)]
        formats = [header.formats[name] for name in own if name in header.formats]
        numbers = _numbers({name: header.shapes[name] for name in own})
        parts[part] = {"numbers": numbers, "precision": _common_format(formats)}
    said = prediction(header.shapes, header.metadata)
    guess = layout.guess.get("prediction_type", "epsilon")
    warnings = []
    if "prediction_type" not in said and layout.guess:
        message = f"The file does not say what it predicts; {guess} is likely."
        warnings.append({"code": "model.prediction_type", "message": message, "hint": "Set it where it is used."})
    has_ema = any(name.startswith(_EMA) for name in header.shapes)
    if has_ema:
        message = "The file holds averaged (EMA) weights besides, which nothing here uses."
        warnings.append({"code": "model.ema", "message": message, "hint": "Without them it would be smaller."})
    return {
        "parts": parts,
        "prediction": {
            "type": said.get("prediction_type", guess),
            "said": "prediction_type" in said,
            "zero_terminal_snr": bool(said.get("rescale_betas_zero_snr")),
        },
        "vae": "included",
        "ema": has_ema,
        "warnings": warnings,
    }


def _numbers(shapes: Shapes | Mapping[str, tuple[int, ...]]) -> int:
    return sum(math.prod(shape) for shape in shapes.values())


def _common_format(formats: Any) -> str:
    """The number format that most tensors have, ``mixed`` where another is used for more than a few."""
    counts = Counter(formats.values() if isinstance(formats, Mapping) else formats)
    if not counts:
        return "unknown"
    first, count = counts.most_common(1)[0]
    name = _FORMATS.get(first, first)
    return name if count >= 0.9 * sum(counts.values()) else "mixed"
