"""Taggers as ONNX files: a picture as the model wants it goes in, a probability for each tag comes out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trainer.captioners.batches import Batches
from trainer.captioners.tagging import TagWriter
from trainer.errors import UserError

Prepare = Callable[[Image.Image, int], NDArray[np.float32]]
"""A picture, and the side in pixels, to what the model takes of one picture."""

_CUDA = "CUDAExecutionProvider"
_ANSWERS = ("prediction", "predictions", "output", "logits")  # of exports with several outputs, in this order


class TaggerNetwork:
    """An ONNX file, opened on the GPU where onnxruntime has one."""

    def __init__(self, file: Path, *, channels_last: bool) -> None:
        """Open it. Raises UserError when the file cannot be used.

        Args:
            channels_last: whether it must take (B, H, W, 3), and not (B, 3, H, W).
        """
        self._session = _open(file)
        self._input = self._session.get_inputs()[0]
        outputs = {output.name: output for output in self._session.get_outputs()}
        self._output = next((outputs[name] for name in _ANSWERS if name in outputs), next(iter(outputs.values())))
        shape = self._input.shape
        colours, *sides = (shape[-1], *shape[1:-1]) if channels_last else shape[1:]
        if len(shape) != 4 or colours != 3 or len({*sides}) != 1 or not isinstance(sides[0], int):
            message = f"{file} takes an input of shape {shape}; this captioner's models take another."
            raise UserError("caption.wrong_type", message, "Choose the captioner made for it.", "model")
        self.side_px: int = sides[0]
        """Pictures must be squares of this size."""

    @property
    def tags(self) -> int | None:
        """How many tags it answers for; None where the file leaves it open."""
        size = self._output.shape[-1]
        return size if isinstance(size, int) else None

    def probabilities(self, pictures: NDArray[np.float32]) -> NDArray[np.float32]:
        """(B, tags), for prepared pictures."""
        numbers = np.float16 if self._input.type == "tensor(float16)" else np.float32
        most = self._input.shape[0] if isinstance(self._input.shape[0], int) else len(pictures)
        parts = [pictures[start : start + most].astype(numbers) for start in range(0, len(pictures), most)]
        answers = [self._session.run([self._output.name], {self._input.name: part})[0] for part in parts]
        raw = np.concatenate(answers).astype(np.float32)
        # exports leave the last sigmoid in or out, and not all say so by the name
        is_logits = self._output.name == "logits" or raw.min() < 0 or raw.max() > 1
        return 1 / (1 + np.exp(-raw.clip(-80, 80))) if is_logits else raw


class Tagger:
    """A tagger with its list of tags."""

    def __init__(self, network: TaggerNetwork, prepare: Prepare, writer: TagWriter) -> None:
        self._network = network
        self._prepare = prepare
        self._writer = writer
        self._batches = Batches(self._together)

    def captions(self, images: Sequence[Image.Image], paths: Sequence[Path]) -> list[str]:
        """Tags of each picture. Raises UserError when not even one picture fits the memory."""
        return self._batches.captions(images, paths)

    def _together(self, images: Sequence[Image.Image], paths: Sequence[Path]) -> list[str]:
        pictures = np.stack([self._prepare(image, self._network.side_px) for image in images])
        return [self._writer.caption(row) for row in self._network.probabilities(pictures)]


def check_list(network: TaggerNetwork, tags: Sequence[object], file: Path) -> None:
    """Raises UserError when the model and its list of tags do not belong together."""
    if network.tags is not None and network.tags != len(tags):
        message = f"{file} has {network.tags} answers, but its list has {len(tags)} tags."
        raise UserError("caption.wrong_tags", message, "Take both files from the same model.", "model")


def check_package() -> None:
    """Raises UserError when onnxruntime cannot be used; before anything is downloaded."""
    try:
        import onnxruntime  # noqa: F401
    except ImportError as error:
        message = f"Taggers need the package onnxruntime, which cannot be loaded: {error}"
        hint = "`pip install onnxruntime`; for an NVIDIA GPU `pip install onnxruntime-gpu` in its place."
        raise UserError("caption.package_missing", message, hint, "captioner") from error


def has_gpu() -> bool:
    """Whether onnxruntime is there, and computes on a GPU."""
    try:
        import onnxruntime
    except ImportError:
        return False
    return _CUDA in onnxruntime.get_available_providers()


def _open(file: Path) -> Any:
    import onnxruntime
    from onnxruntime.capi.onnxruntime_pybind11_state import (
        Fail,
        InvalidArgument,
        InvalidGraph,
        InvalidProtobuf,
        NotImplemented,
        RuntimeException,
    )

    providers = ["CPUExecutionProvider"]
    if has_gpu():
        onnxruntime.preload_dlls()  # finds the CUDA libraries that torch brings
        providers.insert(0, _CUDA)
    try:
        return onnxruntime.InferenceSession(str(file), providers=providers)
    except (Fail, InvalidArgument, InvalidGraph, InvalidProtobuf, NotImplemented, RuntimeException) as error:
        message = f"The tagger {file} cannot be loaded: {str(error).strip().splitlines()[0]}"
        raise UserError("caption.model_broken", message, "Download it again.", "model") from error
