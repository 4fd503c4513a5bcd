"""What commands that write a LoRA file share: where it goes, in which number format, on which device it is computed."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from trainer.accelerators import DEVICES
from trainer.errors import Problem, UserError

T = TypeVar("T")

PRECISIONS = ("float", "fp16", "bf16")


def add_result_arguments(parser: argparse.ArgumentParser, *, precision_help: str) -> None:
    """``--out --save-precision --device --overwrite``."""
    add = parser.add_argument
    add("--out", type=Path, required=True, help="new .safetensors file")
    add("--save-precision", "--precision", choices=PRECISIONS, default=None, help=precision_help)
    add("--device", choices=DEVICES, default="auto", help="where it is computed; auto is a GPU where there is one")
    add("--overwrite", action="store_true", help="replace the file where it exists")


def attempt(problems: list[Problem], action: Callable[[], T]) -> T | None:
    """What ``action`` returns; where it finds the input wrong, None, and the problems are added to the list."""
    try:
        return action()
    except UserError as error:
        problems += error.problems
        return None
