"""The model as it is looked at: without dropout, for validation and for drawing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from trainer.families.base import Family


@contextmanager
def without_dropout(family: Family) -> Iterator[None]:
    """Inside, the model is in evaluation mode; afterwards it is as it was."""
    modules = [family.denoiser, *family.text_encoders.values()]
    were_training = [module.training for module in modules]
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for module, was_training in zip(modules, were_training, strict=True):
            module.train(was_training)
