"""Where a result goes: a file or a folder that is complete or not there, and never in place of something else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trainer.errors import Problem
from trainer.lora.adapter_settings import CONFIG_NAME, TENSORS_NAME
from trainer.lora.keys import PREFIXES
from trainer.lora.outputs import ALLOW_HINT, lora_file_problems
from trainer.outputs import new_output

_ADAPTER_NAMES = {TENSORS_NAME, CONFIG_NAME, "README.md", *PREFIXES}


def check_target(source: Path, out: Path, *, folder: bool, overwrite: bool) -> list[Problem]:
    """What speaks against writing to ``out``. A folder is only ever replaced when it is that of an adapter."""
    if not folder:
        return lora_file_problems(out, [source], overwrite=overwrite)
    if out.suffix == ".safetensors":
        message = f"out: {out} is a file's name; PEFT keeps an adapter in a folder."
        return [Problem("out.name", message, "Give a folder's name.", "out")]
    if out.resolve() == source.resolve():
        return [Problem("out.input", f"out: {out} is what is read.", "Choose another name.", "out")]
    if not out.exists():
        return []
    if not out.is_dir():
        return [Problem("out.exists", f"out: {out} is a file already.", "Choose another name.", "out")]
    if not overwrite:
        return [Problem("out.exists", f"out: {out} exists already.", ALLOW_HINT, "out")]
    if not _is_adapter_folder(out):
        message = f"out: {out} holds other things than an adapter and is not replaced."
        return [Problem("out.exists", message, "Choose another name.", "out")]
    if source.resolve().is_relative_to(out.resolve()):
        return [Problem("out.exists", f"out: {out} holds the LoRA itself.", "Choose another name.", "out")]
    return []


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """Yield a new folder beside ``out``, which takes the place of ``out`` in the end; removed on an exception."""
    with new_output(out) as beside:
        beside.mkdir()
        yield beside


def _is_adapter_folder(folder: Path) -> bool:
    inside = list(folder.iterdir())
    parts = [path for path in inside if path.is_dir()]
    return {path.name for path in inside} <= _ADAPTER_NAMES and all(
        {path.name for path in part.iterdir()} <= _ADAPTER_NAMES for part in parts
    )
