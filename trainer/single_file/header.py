"""What lies in a safetensors file, by its header: names, shapes and formats; nothing is loaded. Never torch.

The format (https://github.com/huggingface/safetensors#format): 8 bytes header length, a JSON header, tensor bytes.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.errors import UserError

Shapes = dict[str, tuple[int, ...]]
"""Shape of every tensor by its name."""

_LARGEST_HEADER_BYTES = 100_000_000  # the safetensors library's own limit
_INCOMPLETE = "Download or copy it again; it may be incomplete."
_STRANGERS: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "is a Git LFS pointer, not the file itself"),
    (b"PK\x03\x04", "is a zip or pickle file with the wrong ending; a .ckpt, perhaps"),
    (b"<", "is a web page, not a model"),
)


@dataclass(frozen=True)
class Header:
    """A file's table of contents.

    Attributes:
        shapes: shape of every tensor.
        formats: number format of every tensor, as safetensors names it: ``F16``.
        metadata: what the file says about itself.
        spans: where each tensor's bytes begin and end in the file.
    """

    shapes: Shapes
    formats: dict[str, str]
    metadata: dict[str, str]
    spans: dict[str, tuple[int, int]]


def read_header(path: Path, *, field: str = "model.base") -> Header:
    """Read and check a safetensors header. Raises UserError(field) for a file that is cut off, broken or none."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(64)
            length = int.from_bytes(start[:8], "little")
            for mark, what in _STRANGERS:
                if start.startswith(mark):
                    raise broken(path, what, field)
            if len(start) < 8:
                raise broken(path, "is too short for a .safetensors file", field)
            if length > _LARGEST_HEADER_BYTES:
                what = f"announces a header of {length:,} bytes; no .safetensors file has more than 100 MB"
                raise broken(path, what, field)
            if length > size - 8:
                raise broken(path, "is cut off within its header", field)
            file.seek(8)
            table = json.loads(file.read(length))
    except OSError as error:
        raise broken(path, f"cannot be read ({error.strerror or error})", field) from error
    except (ValueError, RecursionError) as error:  # JSON and UTF-8; brackets in brackets without end
        raise broken(path, "has a header that is not JSON", field) from error
    return _checked(path, table, size - 8 - length, field)


def broken(path: Path, what: str, field: str, hint: str = _INCOMPLETE) -> UserError:
    """The error for a model file that cannot be used: ``what`` follows the file's name."""
    return UserError("model.broken", f"{field}: {path.name} {what}.", hint, field)


def _checked(path: Path, table: Any, data_bytes: int, field: str) -> Header:
    try:
        metadata = {str(name): str(value) for name, value in table.pop("__metadata__", {}).items()}
        shapes = {name: tuple(int(side) for side in entry["shape"]) for name, entry in table.items()}
        formats = {name: str(entry["dtype"]) for name, entry in table.items()}
        spans = {
            name: (int(begin), int(end)) for name, entry in table.items() for begin, end in [entry["data_offsets"]]
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise broken(path, "has a header that does not describe tensors", field) from error
    last = max((end for _, end in spans.values()), default=0)
    if last > data_bytes:
        raise broken(path, f"is cut off: {last - data_bytes:,} of {last:,} bytes of weights are missing", field)
    for name, (begin, end) in spans.items():
        odd_shape = any(side < 0 for side in shapes[name]) or (end > begin and not math.prod(shapes[name]))
        if begin < 0 or end < begin or odd_shape:
            raise broken(path, f"has a header that does not describe its tensors ({name[:80]})", field)
    start = path.stat().st_size - data_bytes
    in_file = {name: (start + begin, start + end) for name, (begin, end) in spans.items()}
    return Header(shapes, formats, metadata, in_file)
