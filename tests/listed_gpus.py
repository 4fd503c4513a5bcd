"""A driver that lists two GPUs, on machines without any."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def list_two_gpus(monkeypatch: pytest.MonkeyPatch, folder: Path, first: str = "A", second: str = "B") -> None:
    """Put ``nvidia-smi`` in front of all programs: GPU-aaaa and GPU-bbbb, by these names, and both may be used."""
    program = folder / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho '0, GPU-aaaa, {first}'\necho '1, GPU-bbbb, {second}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
