"""Settings of other trainers as a config: every file in ``kinds/`` reads one kind, and its ``KIND`` says what it is."""

from __future__ import annotations

import importlib
import pkgutil

from trainer.imports import kinds
from trainer.imports.base import ConfigKind


def _found() -> dict[str, ConfigKind]:
    names = sorted(module.name for module in pkgutil.iter_modules(kinds.__path__))
    return {name: importlib.import_module(f"{kinds.__name__}.{name}").KIND for name in names}


CONFIG_KINDS: dict[str, ConfigKind] = _found()
