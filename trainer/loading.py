"""Importing what takes seconds: torch and the libraries of models."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from trainer.config import ModelSettings
from trainer.reading_ahead import read_ahead

if TYPE_CHECKING:
    from trainer.recipe import Outcome


def load_train(model: ModelSettings | None = None) -> Callable[..., Outcome]:
    """``trainer.recipe.train``, imported when a command is about to train; meanwhile this model's files are read."""
    if model is not None:
        read_ahead(model)
    with _nothing_to_collect("trainer.recipe"):
        from trainer.recipe import train
    return train


@contextmanager
def _nothing_to_collect(module: str) -> Iterator[None]:
    """Import a module without looking for garbage, which is an eighth of the time and finds none.

    What was imported stays as long as the process: later collections pass it over.
    """
    if module in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
