"""Two runs with one thing edited between them: exactly that is computed again, and the log says so."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.recipe.tiny_runs import make_pictures, of_type, train_here
from trainer.demo import MODEL_DIR
from trainer.runs.store import Workspace

COUNT = 4


def edit_caption(folder: Path) -> dict[str, Any]:
    (folder / "1.txt").write_text("something else")
    return {}


def edit_picture(folder: Path) -> dict[str, Any]:
    path = folder / "2.png"
    with Image.open(path) as picture:
        changed = picture.copy()
    changed.putpixel((5, 5), (1, 2, 3))
    changed.save(path)
    return {}


def edit_vae(folder: Path) -> dict[str, Any]:
    vae = folder.parent / "vae"
    shutil.copytree(MODEL_DIR / "vae", vae)
    file = vae / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    weights["encoder.conv_in.bias"] = weights["encoder.conv_in.bias"] + torch.tensor(0.01, dtype=torch.float16)
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, file)
    return {"model__vae": str(vae)}


def edit_resolution(folder: Path) -> dict[str, Any]:
    return {"dataset__resolution": 72}


def edit_nothing(folder: Path) -> dict[str, Any]:
    return {}


@pytest.mark.parametrize(
    ("edit", "pictures_again", "captions_again"),
    [
        (edit_nothing, 0, 0),
        (edit_caption, 0, 1),
        (edit_picture, 1, 0),
        (edit_vae, COUNT, 0),
        (edit_resolution, COUNT, 0),
    ],
)
def test_exactly_what_changed_is_computed_again(
    edit: Callable[[Path], dict[str, Any]],
    pictures_again: int,
    captions_again: int,
    tmp_path: Path,
    workspace: Workspace,
    config_of: Callable[..., Any],
) -> None:
    folder = make_pictures(tmp_path / "pictures", COUNT, side=80)
    settings = {"dataset__sources": [{"path": str(folder)}], "dataset__buckets": {"min": 64, "step": 8}}
    settings |= {"train__max_steps": 1}
    first = workspace.create_run(config_of(**settings))
    train_here(first)
    assert outcomes(first) == {"picture": (0, COUNT), "caption": (0, COUNT)}
    second = workspace.create_run(config_of(**settings, **edit(folder)))
    train_here(second)
    expected = {"picture": pictures_again, "caption": captions_again}
    assert outcomes(second) == {noun: (COUNT - count, count) for noun, count in expected.items()}
    log = second.log_path.read_text()
    for noun, count in expected.items():
        cached = COUNT - count
        assert f"{cached} {noun}{'' if cached == 1 else 's'} from the cache, {count} encoded anew" in log


def outcomes(run: Any) -> dict[str, tuple[int, int]]:
    """(cached, encoded) as the run's events tell them, by what was cached."""
    told = [event for event in of_type(run, "progress") if "encoded" in event]
    return {str(event["what"]).split()[1].rstrip("s"): (event["cached"], event["encoded"]) for event in told}
