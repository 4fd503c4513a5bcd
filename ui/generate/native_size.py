"""The size that a model was trained at, read from its settings or the header of its file. Never torch."""

from __future__ import annotations

from pathlib import Path

from trainer.demo import MODEL_DIR
from trainer.errors import UserError
from trainer.files import read_json
from trainer.hub import cached_folder
from trainer.hub_names import HUB_ID
from trainer.single_file.configs import standard
from trainer.single_file.header import read_header
from trainer.single_file.kinds import identify, prediction
from trainer.usual_models import usual_model

VAE_SCALE = 8
_USUAL_SIDES_PX = {"Stable Diffusion XL": 1024, "Stable Diffusion 2": 768}
"""By name; the others were trained at 512."""


def native_side(model: str) -> int | None:
    """Pixels along a side of the pictures that a model was trained on; None where nothing tells.

    Args:
        model: `demo`, a folder, a single file or a hub id, as in ``PictureSettings.model``.
    """
    path = MODEL_DIR if model == "demo" else Path(model).expanduser()
    try:
        if path.is_file():
            return _of_file(path)
        if not path.is_dir() and HUB_ID.fullmatch(model):
            folder = cached_folder(model, None)
            return _USUAL_SIDES_PX.get(usual_model(model).name, 512) if folder is None else _of_folder(folder)
        return _of_folder(path)
    except (OSError, ValueError, KeyError, TypeError, UserError):
        return None  # a broken model is told of when it is used


def _of_folder(folder: Path) -> int:
    cells = read_json(folder / "unet" / "config.json")["sample_size"]
    levels = len(read_json(folder / "vae" / "config.json")["block_out_channels"])
    return int(cells) * 2 ** (levels - 1)


def _of_file(path: Path) -> int:
    header = read_header(path)
    layout = identify(path, header.shapes, inpainting=True)
    said = {"prediction_type": "epsilon", **layout.guess, **prediction(header.shapes, header.metadata)}
    usual = standard(layout.family, "unet")["sample_size"]
    return int(layout.sample_sizes.get(said["prediction_type"], usual)) * VAE_SCALE
