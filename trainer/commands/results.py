"""What commands that write a LoRA file share: where it goes, in which number format, on which device it is computed."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from trainer.errors import Problem, UserError

T = TypeVar("T")

PRECISIONS = ("float", "fp16", "bf16")
DEVICES = ("auto", "cpu", "cuda")


def add_result_arguments(parser: argparse.ArgumentParser, *, precision_help: str) -> None:
    """``--out --save-precision --device --overwrite``."""
    add = parser.add_argument
    add("--out", type=Path, required=True, help="new .safetensors file")
    add("--save-precision", "--precision", choices=PRECISIONS, default=None, help=precision_help)
    add("--device", choices=DEVICES, default="auto", help="where it is computed; auto is a GPU where there is one")
    add("--overwrite", action="store_true", help="replace the file where it exists")


def out_file_problems(out: Path, inputs: list[Path], *, overwrite: bool) -> Iterator[Problem]:
    """What speaks against writing a LoRA to ``out``: its ending, an input in its place, or another file there."""
    if out.suffix.lower() != ".safetensors":
        yield Problem("out.suffix", f"out: {out} must end in .safetensors.", "Correct the name.", "out")
    elif out.is_dir():
        yield Problem("out.exists", f"out: {out} is a folder.", "Choose another name.", "out")
    elif any(out.resolve() == given.resolve() for given in inputs):
        yield Problem("out.input", f"out: {out} is what is read.", "Choose another name.", "out")
    elif out.exists() and not overwrite:
        hint = "Choose another name, or allow it to be overwritten (--overwrite)."
        yield Problem("out.exists", f"out: {out} exists already.", hint, "out")


def attempt(problems: list[Problem], action: Callable[[], T]) -> T | None:
    """What ``action`` returns; where it finds the input wrong, None, and the problems are added to the list."""
    try:
        return action()
    except UserError as error:
        problems += error.problems
        return None
