"""Where a LoRA file or a merged model may go: checked before the work."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from trainer.errors import Problem

Form = Literal["file", "folder"]

ALLOW_HINT = "Choose another name, or allow it to be overwritten (--overwrite)."
_PICKLES = (".ckpt", ".pt", ".pth", ".bin")


def form_of(out: Path) -> Form:
    """A ``.safetensors`` file, or a model folder."""
    return "file" if out.suffix.lower() == ".safetensors" else "folder"


def lora_file_problems(out: Path, inputs: Iterable[Path], *, overwrite: bool) -> list[Problem]:
    """What speaks against writing a LoRA file to ``out``: its ending, a folder, an input, or another file there."""
    if out.suffix.lower() != ".safetensors":
        return [Problem("out.name", f"out: {out} must end in .safetensors.", "Correct the name.", "out")]
    if out.is_dir():
        return [Problem("out.exists", f"out: {out} is a folder already.", "Choose another name.", "out")]
    if any(out.resolve() == given.resolve() for given in inputs):
        return [Problem("out.input", f"out: {out} is what is read.", "Choose another name.", "out")]
    if out.exists() and not overwrite:
        return [Problem("out.exists", f"out: {out} exists already.", ALLOW_HINT, "out")]
    return []


def out_problems(out: Path, inputs: list[Path], *, overwrite: bool) -> list[Problem]:
    """What speaks against writing to ``out``: its kind, what is there already, or that it would touch an input."""
    if out.suffix.lower() in _PICKLES:
        message = f"out: {out.name} would be a pickle; models are written as .safetensors or as folders."
        return [Problem("merge.out", message, "Let the name end in .safetensors, or leave the ending out.", "out")]
    place = out.resolve()
    for given in inputs:
        path = given.resolve()
        if place == path or place.is_relative_to(path) or path.is_relative_to(place):
            message = f"out: {out} is, or lies within, or holds what is read ({given})."
            return [Problem("merge.out", message, "Choose another place.", "out")]
    return _taken(out, overwrite=overwrite)


def _taken(out: Path, *, overwrite: bool) -> list[Problem]:
    if not out.exists() or (out.is_dir() and form_of(out) == "folder" and not any(out.iterdir())):
        return []
    if out.is_dir() != (form_of(out) == "folder"):
        kind = "a folder" if out.is_dir() else "a file"
        return [Problem("merge.exists", f"out: {out} is {kind} already.", "Choose another name.", "out")]
    if not overwrite:
        return [Problem("merge.exists", f"out: {out} exists already.", ALLOW_HINT, "out")]
    if out.is_dir() and not (out / "model_index.json").is_file():
        message = f"out: {out} holds something else than a model, and is not overwritten."
        return [Problem("merge.exists", message, "Choose another name, or delete it yourself.", "out")]
    return []
