"""Layers of a UNet that are one or a few kernels on a GPU where PyTorch has many, written in Triton.

Between its products, a UNet normalises and gates. In 16 bits under autocast each of these takes up to seven kernels
that read and write the whole picture in float32. Here they read and write 16 bits once and compute in float32 between.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sysconfig
from pathlib import Path


def can_be_compiled() -> bool:
    """Whether there is what Triton asks for, as far as can be said without it: a C compiler, and Python's headers."""
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    headers = Path(sysconfig.get_path("include")) / "Python.h"
    return importlib.util.find_spec("triton") is not None and compiler is not None and headers.exists()
