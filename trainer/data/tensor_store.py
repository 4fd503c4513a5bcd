"""Tensors kept on disk under a key, one file each. What is missing, stale or damaged counts as not there."""

from __future__ import annotations

import hashlib
import json
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from trainer.lora.tensor_file import entry, write_tensors
from trainer.runs.events import EventSink
from trainer.single_file.header import LENGTH_BYTES, header_length

_FORMAT = "1"
_WRITERS = 8


class TensorStore:
    """A folder of safetensors files named after their keys.

    Each file holds its key and a hash of its tensors: a disk that lost power may keep a file's length and lose its
    content, and safetensors itself would read that as zeros.
    """

    def __init__(self, folder: Path | None, events: EventSink) -> None:
        """Without a folder nothing is kept."""
        self._folder = folder
        self._events = events
        self._writers = ThreadPoolExecutor(_WRITERS, thread_name_prefix="cache")
        self._writes: list[Future[None]] = []
        self._lock = threading.Lock()

    def read(self, key: str) -> dict[str, Tensor] | None:
        """The tensors of this key; None where there are none, or none that can be trusted."""
        if self._folder is None:
            return None
        try:
            data = self._path(self._folder, key).read_bytes()
            tensors = load(data)  # raises where the header is not whole
        except (OSError, SafetensorError):
            return None
        end = LENGTH_BYTES + header_length(data)
        metadata = json.loads(data[LENGTH_BYTES:end]).get("__metadata__")
        return tensors if metadata == _label(key, tensors) else None

    def write(self, key: str, tensors: dict[str, Tensor]) -> None:
        """Keep the tensors, which must not change any more. Does not wait: a flush to disk takes 10 ms and more.

        A full or read-only disk costs a warning and the cache, not the run.
        """
        if self._folder is not None:
            self._writes.append(self._writers.submit(self._write_now, self._folder, key, tensors))

    def __enter__(self) -> TensorStore:
        return self

    def __exit__(self, *error: object) -> None:
        self.flush()

    def flush(self) -> None:
        """Wait until everything is written."""
        writes, self._writes = self._writes, []
        for write in writes:
            write.result()

    def _write_now(self, folder: Path, key: str, tensors: dict[str, Tensor]) -> None:
        if self._folder is None:
            return
        try:
            entries = [entry(name, tensor) for name, tensor in tensors.items()]
            write_tensors(self._path(folder, key), entries, _label(key, tensors))
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        with self._lock:
            folder, self._folder = self._folder, None
        if folder is not None:  # the first of several writers to fail
            message = f"The cache in {folder} cannot be written: {error}."
            hint = "Training goes on without it. Free some space, or set dataset.cache.to_disk to false."
            self._events.emit("warning", code="cache.unwritable", message=message, hint=hint)

    @staticmethod
    def _path(folder: Path, key: str) -> Path:
        return folder / key[:2] / f"{key}.safetensors"


def hash_key(*parts: str | float | bool | list[int]) -> str:
    """One key for everything that a cached result depends on."""
    return hashlib.sha256(json.dumps([_FORMAT, *parts]).encode()).hexdigest()


def tell_outcome(events: EventSink, noun: str, how: str, *, total: int, done: int) -> None:
    """Emit the line that says what was not in the cache: ``11 pictures from the cache, 1 encoded anew``."""
    if total:
        cached = total - done
        what = f"{cached} {noun if cached == 1 else noun + 's'} from the cache, {done} {how} anew"
        events.emit("progress", what=what, done=total, total=total, cached=cached, encoded=done)


def _label(key: str, tensors: dict[str, Tensor]) -> dict[str, str]:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].detach().contiguous().flatten().view(torch.uint8).numpy().data)
    return {"key": key, "sha256": digest.hexdigest()}
