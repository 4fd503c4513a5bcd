"""Safetensors files: read with plain messages for broken ones, written with the same bytes every time.

The safetensors library puts metadata in the order of a randomly seeded hash map, so the same LoRA saved twice gives two
different files. The format is simple (8 bytes header length, JSON header, tensor bytes), so the writing is done here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from trainer.errors import UserError
from trainer.files import atomic_path
from trainer.single_file.header import read_header

DTYPES: dict[str, torch.dtype] = {"fp16": torch.float16, "bf16": torch.bfloat16, "float": torch.float32}
"""Number formats by the names that people and other tools use for them."""

_NAMES: dict[torch.dtype, str] = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


@dataclass(frozen=True)
class Entry:
    """One tensor to write. ``load`` is called when its turn comes, so that a large file is never whole in memory."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    load: Callable[[], Tensor]

    @property
    def size_bytes(self) -> int:
        count = 1
        for side in self.shape:
            count *= side
        return count * self.dtype.itemsize


def entry(name: str, tensor: Tensor) -> Entry:
    """An entry for a tensor that is in memory already."""
    return Entry(name, tensor.dtype, tuple(tensor.shape), lambda: tensor)


@contextmanager
def open_tensors(path: Path) -> Iterator[Any]:
    """Open a safetensors file for reading tensor by tensor. Raises UserError when it is missing, broken or none."""
    if not os.path.isfile(path):  # noqa: PTH113 - Path.is_file raises for names that none can have
        raise UserError("lora.missing", f"There is no file {path}.", "Check the path.")
    read_header(path, refuse=partial(_unreadable, path))
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            yield file
    except (SafetensorError, OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, f"is not a readable .safetensors file ({error})") from error


def _unreadable(path: Path, what: str) -> UserError:
    return UserError(
        "lora.broken", f"{path.name} {what}.", "The download may be incomplete, or the file is of another kind."
    )


def dtype_of(part: Any, name: str) -> torch.dtype:
    """The number format of a tensor slice, without reading it. Raises UserError for one that cannot be written."""
    given = part.get_dtype()
    found = next((dtype for dtype, known in _NAMES.items() if known == given), None)
    if found is None:
        raise UserError(
            "tensor.format", f"{name} holds numbers of the format {given}.", "Save it as fp16 or bf16 first."
        )
    return found


def layout(entries: list[Entry]) -> list[Entry]:
    """The order in which tensors are written, the safetensors library's own: widest number format first, then name."""
    return sorted(entries, key=lambda item: (-item.dtype.itemsize, item.name))


def header(entries: list[Entry], metadata: dict[str, str]) -> bytes:
    """The start of the file: length and JSON, padded with spaces to a multiple of 8 bytes. Entries in file order."""
    table: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    offset = 0
    for item in entries:
        end = offset + item.size_bytes
        table[item.name] = {"dtype": _NAMES[item.dtype], "shape": list(item.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def tensor_bytes(tensor: Tensor) -> bytes:
    """The tensor's numbers as they lie in the file (little endian, row by row)."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""


def write_tensors(path: Path, entries: list[Entry], metadata: dict[str, str]) -> None:
    """Write a safetensors file atomically; the same input gives the same bytes in any process."""
    ordered = layout(entries)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(header(ordered, metadata))
        for item in ordered:
            tensor = item.load()
            if tensor.dtype != item.dtype or tuple(tensor.shape) != item.shape:
                raise ValueError(f"{item.name} came as {tensor.dtype} {tuple(tensor.shape)}, announced was {item}")
            file.write(tensor_bytes(tensor))
