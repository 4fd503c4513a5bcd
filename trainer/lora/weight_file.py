"""Weight files of any size: read by blocks of rows, written progressively, so that neither is ever whole in memory.

What is read is read, not mapped into memory: mapped pages count as the program's memory until the system takes them
back. The format (https://github.com/huggingface/safetensors#format): 8 bytes header length, JSON header, tensor bytes.
"""

from __future__ import annotations

import json
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from trainer.single_file.header import Header, broken, read_header
from trainer.single_file.tensors import Checkpoint, open_checkpoint

FORMATS: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
"""Number formats that can be computed with, by their names in files; others are passed on as they are."""

_PICKLED: dict[torch.dtype, str] = {
    **{dtype: name for name, dtype in FORMATS.items()},
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
}
_WIDTHS = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2}
_COPIED_BYTES = 4 << 20

Block = Tensor | memoryview
"""Some rows of a tensor, or the bytes of some, as they go into a file."""


@dataclass(frozen=True)
class Stored:
    """One tensor in a file: its number format as safetensors names it (``F16``), its shape and its size."""

    format: str
    shape: tuple[int, ...]
    size_bytes: int

    @property
    def dtype(self) -> torch.dtype | None:
        """The number format; None for one that cannot be computed with."""
        return FORMATS.get(self.format)


@dataclass(frozen=True, eq=False)
class WeightSource(ABC):
    """An open weight file.

    Attributes:
        path: where it is.
        table: its tensors, in the order in which they lie there.
        metadata: what a safetensors file says about itself.
    """

    path: Path
    table: dict[str, Stored]
    metadata: dict[str, str]

    @abstractmethod
    def rows(self, name: str, begin: int, end: int) -> Tensor:
        """Rows of a tensor that has a ``dtype``, as memory of their own."""

    @abstractmethod
    def raw(self, name: str) -> Iterator[memoryview]:
        """The tensor's bytes as they lie in the file; each piece is good until the next one is asked for."""


@contextmanager
def open_weights(path: Path, *, field: str = "base") -> Iterator[WeightSource]:
    """Open a ``.safetensors`` or ``.ckpt`` file. Raises UserError(field): broken, or more than weights."""
    with ExitStack() as stack:
        checkpoint = stack.enter_context(open_checkpoint(path, field=field))  # for safetensors the library's own checks
        if path.suffix.lower() == ".ckpt":
            yield _Pickled.of(path, checkpoint)
        else:
            file = stack.enter_context(path.open("rb", buffering=0))
            yield _Safetensors.of(path, file, read_header(path, field=field), field)


@dataclass(frozen=True, eq=False)
class _Safetensors(WeightSource):
    file: Any
    header: Header

    @classmethod
    def of(cls, path: Path, file: Any, header: Header, field: str) -> _Safetensors:
        table = {}
        for name, (begin, end) in sorted(header.spans.items(), key=lambda item: item[1]):
            stored = Stored(header.formats[name], header.shapes[name], end - begin)
            if stored.dtype is not None and math.prod(stored.shape) * stored.dtype.itemsize != stored.size_bytes:
                raise broken(path, f"has a header that does not describe its tensors ({name[:80]})", field)
            table[name] = stored
        return cls(path, table, header.metadata, file, header)

    def rows(self, name: str, begin: int, end: int) -> Tensor:
        stored = self.table[name]
        shape = (end - begin, *stored.shape[1:])
        block = torch.empty(shape, dtype=stored.dtype)
        row_bytes = math.prod(stored.shape[1:]) * block.element_size()
        self._read(self.header.spans[name][0] + begin * row_bytes, _bytes_of(block))
        return block

    def raw(self, name: str) -> Iterator[memoryview]:
        begin, end = self.header.spans[name]
        buffer = memoryview(bytearray(min(_COPIED_BYTES, end - begin)))
        for place in range(begin, end, _COPIED_BYTES):
            piece = buffer[: min(_COPIED_BYTES, end - place)]
            self._read(place, piece)
            yield piece

    def _read(self, place: int, into: memoryview) -> None:
        self.file.seek(place)
        done = 0
        while done < len(into):
            count = self.file.readinto(into[done:])
            if not count:
                raise broken(self.path, "became shorter while it was read", "base")
            done += count


@dataclass(frozen=True, eq=False)
class _Pickled(WeightSource):
    """A ``.ckpt``: only torch can read it, which maps it into memory."""

    checkpoint: Checkpoint

    @classmethod
    def of(cls, path: Path, checkpoint: Checkpoint) -> _Pickled:
        table = {}
        for name, shape in checkpoint.shapes.items():
            dtype = checkpoint.tensors.get(name).dtype
            if dtype in _PICKLED:
                table[name] = Stored(_PICKLED[dtype], shape, math.prod(shape) * dtype.itemsize)
        return cls(path, table, {}, checkpoint)

    def rows(self, name: str, begin: int, end: int) -> Tensor:
        return self.checkpoint.tensors.rows(name, begin, end).clone()

    def raw(self, name: str) -> Iterator[memoryview]:
        everything = _bytes_of(self.checkpoint.tensors.get(name))
        for place in range(0, len(everything), _COPIED_BYTES):
            yield everything[place : place + _COPIED_BYTES]


@dataclass(frozen=True)
class Item:
    """One tensor to write. ``blocks`` is called when its turn comes, and each block is written before the next."""

    name: str
    stored: Stored
    blocks: Callable[[], Iterator[Block]]


def write_weights(path: Path, items: list[Item], metadata: dict[str, str]) -> None:
    """Write a safetensors file, tensor by tensor, and see it safely on the disk.

    Wide number formats come first, so that every tensor lies at a multiple of its width; otherwise the order is kept.
    """
    ordered = sorted(items, key=lambda item: -_WIDTHS.get(item.stored.format, 1))
    with path.open("wb") as file:
        file.write(_header(ordered, metadata))
        for item in ordered:
            _write(file, item)
        file.flush()
        os.fsync(file.fileno())


def size_of_file(items: list[Item], metadata: dict[str, str]) -> int:
    """How large the file will be, in bytes."""
    return len(_header(items, metadata)) + sum(item.stored.size_bytes for item in items)


def _write(file: BinaryIO, item: Item) -> None:
    written = 0
    for block in item.blocks():
        data = _bytes_of(block) if isinstance(block, Tensor) else block
        file.write(data)
        written += len(data)
    if written != item.stored.size_bytes:
        raise ValueError(f"{item.name} came as {written} bytes, announced was {item.stored}")


def _header(items: list[Item], metadata: dict[str, str]) -> bytes:
    table: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    offset = 0
    for item in items:
        end = offset + item.stored.size_bytes
        shape = list(item.stored.shape)
        table[item.name] = {"dtype": item.stored.format, "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _bytes_of(tensor: Tensor) -> memoryview:
    flat = tensor.detach().contiguous().reshape(-1)
    return memoryview(flat.view(torch.uint8).numpy().data) if flat.numel() else memoryview(b"")
