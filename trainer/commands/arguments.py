"""Argument forms that several commands share."""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path

from trainer.errors import UserError
from trainer.runs.store import Workspace

DEFAULT_WORKSPACE = Path(__file__).resolve().parents[2] / "workspace"


def add_workspace(parser: argparse.ArgumentParser) -> None:
    """``--workspace DIR``; without it ``LORA_ATELIER_WORKSPACE`` or the folder beside the program."""
    parser.add_argument("--workspace", type=Path, default=None, help="folder for runs, caches and results")


def workspace_of(args: argparse.Namespace) -> Workspace:
    """The workspace that the arguments or the environment name."""
    folder = args.workspace or os.environ.get("LORA_ATELIER_WORKSPACE") or DEFAULT_WORKSPACE
    return Workspace(Path(folder).expanduser().resolve())


def parse_pair(text: str, option: str) -> tuple[str, float]:
    """Split ``FILE=NUMBER``, the number any finite one. Raises UserError."""
    name, _, number = text.rpartition("=")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not name or not math.isfinite(value):
        raise UserError(
            "cli.pair", f"{option} {text!r} is not of the form FILE=NUMBER.", f"Example: {option} my.safetensors=0.8"
        )
    return name, value
