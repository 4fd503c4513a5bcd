"""What lies in a safetensors file, by its header: names, shapes and formats; nothing is loaded. Never torch.

The format (https://github.com/huggingface/safetensors#format): 8 bytes header length, a JSON header, tensor bytes, each
tensor's right behind another's. Files come from anywhere: what is looked at is bounded, and anything odd is refused
before a tensor is read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from trainer.errors import UserError

Shapes = dict[str, tuple[int, ...]]
"""Shape of every tensor by its name."""
Span = tuple[int, int]
"""The first byte, and the one after the last."""
Refusal = Callable[[str], UserError]
"""Makes the error for a file from what is wrong with it."""

LENGTH_BYTES = 8
"""At the start of a file: how long its header is."""
_LARGEST_HEADER_BYTES = 100_000_000  # the safetensors library's own limit
_MOST_TENSORS = 100_000
"""SDXL with every layer of it in a LoRA has some 6,000."""
_LONGEST_NAME = 500
_BITS: dict[str, int] = {
    "F64": 64, "I64": 64, "U64": 64, "C64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16, "I16": 16,
    "U16": 16, "I8": 8, "U8": 8, "BOOL": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip
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
    spans: dict[str, Span]


def read_header(path: Path, *, field: str = "model.base", refuse: Refusal | None = None) -> Header:
    """Read and check a safetensors header.

    Args:
        path: the file.
        field: the field to blame.
        refuse: makes the error, where it is to be another than ``broken``.

    Raises UserError for a file that is missing, cut off, broken or none.
    """
    refuse = refuse or (lambda what: broken(path, what, field))
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            text = _header_text(file, size, refuse)
    except OSError as error:
        raise refuse(f"cannot be read ({error.strerror or error})") from error
    try:
        table = json.loads(text.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_number)
    except _DoubledError as error:
        raise refuse(f"names {_shown(str(error))} twice in its header") from error
    except (ValueError, RecursionError) as error:  # JSON and UTF-8; brackets in brackets without end
        raise refuse("has a header that is not JSON") from error
    return _checked(table, LENGTH_BYTES + len(text), size, refuse)


def header_length(start: bytes) -> int:
    """Bytes of the JSON header, told by the first ``LENGTH_BYTES`` of a file."""
    return int.from_bytes(start[:LENGTH_BYTES], "little")


def broken(path: Path, what: str, field: str, hint: str = _INCOMPLETE) -> UserError:
    """The error for a model file that cannot be used: ``what`` follows the file's name."""
    return UserError("model.broken", f"{field}: {path.name} {what}.", hint, field)


def _header_text(file: BinaryIO, size: int, refuse: Refusal) -> bytes:
    start = file.read(64)
    length = header_length(start)
    for mark, what in _STRANGERS:
        if start.startswith(mark):
            raise refuse(what)
    if len(start) < LENGTH_BYTES:
        raise refuse("is too short for a .safetensors file")
    if length > _LARGEST_HEADER_BYTES:
        raise refuse(f"announces a header of {length:,} bytes; no .safetensors file has more than 100 MB")
    if length > size - LENGTH_BYTES:
        raise refuse("is cut off within its header")
    file.seek(LENGTH_BYTES)
    return file.read(length)


class _DoubledError(Exception):
    """A name that stands twice in a JSON object."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _DoubledError(next(name for name in names if names.count(name) > 1))
    return found


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no JSON")


def _checked(table: Any, data_start: int, size: int, refuse: Refusal) -> Header:
    if not isinstance(table, dict):
        raise refuse("has a header that does not describe tensors")
    metadata = table.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise refuse("has metadata that is not text")
    if len(table) > _MOST_TENSORS:
        raise refuse(f"announces {len(table):,} tensors; no model of Stable Diffusion has as many")
    if not all(map(_is_text, [*table, *metadata, *metadata.values()])) or any(len(n) > _LONGEST_NAME for n in table):
        raise refuse("has names that are no text, or too long")
    if not all(map(_is_entry, table.values())):
        raise refuse("has a header that does not describe tensors")
    shapes: Shapes = {name: tuple(entry["shape"]) for name, entry in table.items()}
    formats: dict[str, str] = {name: entry["dtype"] for name, entry in table.items()}
    spans: dict[str, Span] = {name: tuple(entry["data_offsets"]) for name, entry in table.items()}
    _check_spans(spans, size - data_start, refuse)
    for name, (begin, end) in spans.items():
        bits = math.prod(shapes[name]) * _BITS.get(formats[name], 0)
        if min(shapes[name], default=0) < 0 or (formats[name] in _BITS and bits != 8 * (end - begin)):
            raise refuse(f"has a header that does not describe its tensors ({_shown(name)})")
    in_file = {name: (data_start + begin, data_start + end) for name, (begin, end) in spans.items()}
    return Header(shapes, formats, metadata, in_file)


def _is_entry(entry: Any) -> bool:
    """Whether this is a tensor's line of the table: format, shape and place."""
    if not isinstance(entry, dict) or not isinstance(entry.get("dtype"), str):
        return False
    numbers = [entry.get("shape"), entry.get("data_offsets")]
    if not all(isinstance(each, list) and all(type(side) is int for side in each) for each in numbers):
        return False
    return len(entry["data_offsets"]) == 2


def _check_spans(spans: dict[str, Span], data_bytes: int, refuse: Refusal) -> None:
    """Refuse tensors that lie over each other, apart, or beyond the end of the file."""
    last = max((end for _, end in spans.values()), default=0)
    if last > data_bytes:
        raise refuse(f"is cut off: {last - data_bytes:,} of {last:,} bytes of weights are missing")
    place = 0
    for name, (begin, end) in sorted(spans.items(), key=lambda item: item[1]):
        if begin != place or end < begin:
            raise refuse(f"has a header that does not describe its tensors ({_shown(name)})")
        place = end
    if place != data_bytes:
        raise refuse(f"has {data_bytes - place:,} bytes that belong to none of its tensors")


def _is_text(text: str) -> bool:
    """Whether it can be written down: JSON may hold halves of characters."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _shown(name: str) -> str:
    return name[:80].encode("ascii", "backslashreplace").decode("ascii")
