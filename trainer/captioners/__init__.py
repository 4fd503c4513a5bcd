"""Captioners by name: every file in ``kinds/`` is one, and its ``KIND`` says what it is."""

from __future__ import annotations

import importlib
import pkgutil

from trainer.captioners import kinds
from trainer.captioners.base import CaptionerKind


def _found() -> dict[str, CaptionerKind]:
    names = sorted(module.name for module in pkgutil.iter_modules(kinds.__path__))
    return {name: importlib.import_module(f"{kinds.__name__}.{name}").KIND for name in names}


CAPTIONERS: dict[str, CaptionerKind] = _found()
