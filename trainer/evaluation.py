"""The model as it is looked at: without dropout, for validation and for drawing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from trainer.families.base import Family


@contextmanager
def without_dropout(family: Family) -> Iterator[None]:
    """Inside, the model is in evaluation mode; afterwards it is as its denoiser was."""
    was_training = family.denoiser.training
    family.train(False)
    try:
        yield
    finally:
        family.train(was_training)
