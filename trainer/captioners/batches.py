"""Several pictures at a time, and fewer where memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from trainer.errors import UserError

Describe = Callable[[Sequence[Image.Image], Sequence[Path]], list[str]]
"""Pictures and where they lie, to their captions."""


class Batches:
    """Describes as many pictures together as the memory holds; what was too much once is not tried again."""

    def __init__(self, describe: Describe) -> None:
        self._describe = describe
        self._most: int | None = None

    def captions(self, images: Sequence[Image.Image], paths: Sequence[Path]) -> list[str]:
        """A caption for each picture. Raises UserError when not even one picture fits the memory."""
        done: list[str] = []
        while len(done) < len(images):
            size = min(self._most or len(images), len(images) - len(done))
            part = slice(len(done), len(done) + size)
            texts = self._try(images[part], paths[part])
            if texts is not None:
                done += texts
            elif size == 1:
                raise UserError(
                    "caption.out_of_memory",
                    "The memory is too small for this captioner, even for one picture at a time.",
                    "Choose a smaller model, smaller weights (quantize) or shorter captions.",
                    "batch_size",
                )
            else:
                self._most = size // 2
        return done

    def _try(self, images: Sequence[Image.Image], paths: Sequence[Path]) -> list[str] | None:
        """The captions; None where memory ran out, what had been taken of it given back."""
        try:
            return self._describe(images, paths)
        except Exception as error:
            if not _ran_out(error):
                raise
        _give_back()
        return None


def _ran_out(error: Exception) -> bool:
    if type(error).__module__.startswith("onnxruntime"):
        return "Failed to allocate memory" in str(error) or "out of memory" in str(error)
    from trainer.devices import is_out_of_memory

    return is_out_of_memory(error)


def _give_back() -> None:
    from trainer.devices import give_back_cached_memory

    give_back_cached_memory()
