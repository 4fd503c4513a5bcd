"""Reading single files tensor by tensor: safetensors, and pickled checkpoints without running anything of theirs."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from trainer.errors import UserError
from trainer.single_file.header import Header, Shapes, broken, read_header
from trainer.single_file.names import Source

_FORMATS: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
_FULL_PRECISION_HINT = "Choose the fp16, bf16 or fp32 version of the model."
_PICKLE_HINT = "Choose the .safetensors version of the model, or save it as one."


class Tensors(Protocol):
    """The tensors of an open file."""

    def get(self, name: str) -> Tensor:
        """A whole tensor."""

    def rows(self, name: str, begin: int, end: int) -> Tensor:
        """Some rows of a tensor."""


@dataclass(frozen=True)
class Checkpoint:
    """An open single file.

    Attributes:
        shapes: shape of every tensor.
        dtypes: number format of every tensor that is made of floating-point numbers.
        metadata: what a safetensors file says about itself; empty for pickles.
        tensors: the weights, each read when it is asked for.
    """

    shapes: Shapes
    dtypes: dict[str, torch.dtype]
    metadata: dict[str, str]
    tensors: Tensors

    def dtype(self, path: Path, name: str, field: str) -> torch.dtype:
        """A weight's number format. Raises UserError(field) for one that a model folder cannot have."""
        if name not in self.dtypes:
            what = f"holds weights in a compressed number format ({name})"
            raise broken(path, what, field, _FULL_PRECISION_HINT)
        return self.dtypes[name]

    def weight(self, source: Source) -> Tensor:
        """A weight as a model folder has it."""
        if source.third is not None:
            rows = self.shapes[source.name][0] // 3
            return self.tensors.rows(source.name, source.third * rows, (source.third + 1) * rows)
        tensor = self.tensors.get(source.name)
        return (tensor.T.contiguous() if source.transposed else tensor).reshape(source.shape(self.shapes))


@contextmanager
def open_checkpoint(path: Path, *, field: str = "model.base") -> Iterator[Checkpoint]:
    """Open a ``.safetensors`` or ``.ckpt`` file, or the ``.bin`` of a part.

    Raises UserError(field) for a file that is broken or holds more than weights.
    """
    if path.suffix.lower() in (".ckpt", ".bin"):
        yield _pickled(path, field)
        return
    header = read_header(path, field=field)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            yield _safe(header, file)
    except SafetensorError as error:
        raise broken(path, f"is not a readable .safetensors file ({error})", field) from error


@dataclass(frozen=True)
class _SafeTensors:
    file: Any

    def get(self, name: str) -> Tensor:
        return self.file.get_tensor(name)

    def rows(self, name: str, begin: int, end: int) -> Tensor:
        return self.file.get_slice(name)[begin:end]


def _safe(header: Header, file: Any) -> Checkpoint:
    dtypes = {name: _FORMATS[given] for name, given in header.formats.items() if given in _FORMATS}
    return Checkpoint(header.shapes, dtypes, header.metadata, _SafeTensors(file))


@dataclass(frozen=True)
class _PickledTensors:
    weights: dict[str, Tensor]

    def get(self, name: str) -> Tensor:
        return self.weights[name].contiguous()

    def rows(self, name: str, begin: int, end: int) -> Tensor:
        return self.weights[name][begin:end].contiguous()


def _pickled(path: Path, field: str) -> Checkpoint:
    try:
        # mapped, not read: only the tensors that are used come into memory
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        what = "holds more than weights: code or objects that would have to be run; it was not opened"
        raise broken(path, what, field, _PICKLE_HINT) from error
    except (RuntimeError, OSError, EOFError, ValueError, TypeError, LookupError, AttributeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise broken(path, f"is not a readable {path.suffix} file ({reason[:200]})", field, _PICKLE_HINT) from error
    while isinstance(loaded, Mapping) and isinstance(loaded.get("state_dict"), Mapping):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, Mapping):
        raise broken(path, "holds no table of weights", field, _PICKLE_HINT)
    weights = {str(name): value for name, value in loaded.items() if isinstance(value, Tensor)}
    shapes = {name: tuple(value.shape) for name, value in weights.items()}
    dtypes = {name: value.dtype for name, value in weights.items() if value.dtype in _FORMATS.values()}
    return Checkpoint(shapes, dtypes, {}, _PickledTensors(weights))


def unsupported(path: Path, field: str) -> UserError:
    """The error for a file that is neither .safetensors nor .ckpt."""
    message = f"{field}: {path.name} is not a .safetensors or .ckpt file."
    return UserError("model.single_file", message, "Choose such a file, or a folder in diffusers layout.", field)
