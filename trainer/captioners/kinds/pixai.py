"""The PixAI taggers: Danbooru tags, newer characters than WD's, and the series these belong to.

Facts of the exports to ONNX:
- v0.9, https://huggingface.co/deepghs/pixai-tagger-v0.9-onnx, exported by ``zoo/pixai_tagger`` of deepghs/imgutils: the
  picture is stretched to the model's square; ``selected_tags.csv`` has the series of a character in the column ``ips``,
  ``thresholds.csv`` a threshold for each category.
- v1.0, https://huggingface.co/bdsqlsz/pixai-tagger-v1.0-ONNX: the picture lies in the middle of a black square;
  ``config.json`` has the tags, how many of them are of which category, and the thresholds. Other exports of it have a
  ``selected_tags.csv`` instead. The thresholds advised on its card are the defaults where a file has none.

Both take colours from -1 to 1, as (3, H, W).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trainer.captioners.base import Captioner, CaptionerKind
from trainer.captioners.onnx_tagger import Tagger, TaggerNetwork, check_list, check_package
from trainer.captioners.tag_lists import broken_list, read_tags, read_thresholds
from trainer.captioners.tagging import Category, Tag, TaggerOptions, TagWriter
from trainer.captioners.weights import tagger_file
from trainer.config_base import setting
from trainer.files import json_object

_V09: dict[Category, float] = {"general": 0.3, "character": 0.85}
_V1: dict[Category, float] = {"general": 0.17, "character": 0.27, "style": 0.15, "copyright": 0.24, "meta": 0.17}


class PixaiOptions(TaggerOptions):
    """Which tags are taken, and how they are written."""

    model: str = setting("deepghs/pixai-tagger-v0.9-onnx", "Model", basic=True, min_length=1)
    """Folder, .onnx file or Hugging Face id of an export to ONNX: v0.9 is 1.3 GB,
    v1.0 (bdsqlsz/pixai-tagger-v1.0-ONNX) 2 GB."""
    series: bool = setting(True, "Series")
    """What the characters belong to."""
    style: bool = setting(False, "Style tags")
    """Names of styles and artists; only v1.0 knows them."""
    meta: bool = setting(False, "Meta tags")
    """What is said about the file, such as highres; only v1.0 knows them."""


def stretched(image: Image.Image, side_px: int) -> NDArray[np.float32]:
    """The picture stretched to a square: (3, H, W) from -1 to 1."""
    return _normalised(image.resize((side_px, side_px), Image.Resampling.BILINEAR))


def letterboxed(image: Image.Image, side_px: int) -> NDArray[np.float32]:
    """The whole picture in the middle of a black square: (3, H, W) from -1 to 1."""
    factor = min(side_px / image.width, side_px / image.height)
    width, height = max(1, int(image.width * factor)), max(1, int(image.height * factor))
    canvas = Image.new("RGB", (side_px, side_px))
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    canvas.paste(resized, ((side_px - width) // 2, (side_px - height) // 2))
    return _normalised(canvas)


def _normalised(image: Image.Image) -> NDArray[np.float32]:
    return np.asarray(image, dtype=np.float32).transpose(2, 0, 1) / 127.5 - 1


def load(options: PixaiOptions) -> Captioner:
    """Open the tagger. Raises UserError when onnxruntime, the model or its list of tags is missing or broken."""
    check_package()
    file = tagger_file(options)
    config = file.with_name("config.json")
    listed = _tags_of_config(config) if "tags" in json_object(config) else None
    tags = listed or read_tags(file.with_name("selected_tags.csv"))
    network = TaggerNetwork(file, channels_last=False)
    check_list(network, tags, file)
    is_v1 = any(tag.category == "copyright" for tag in tags)
    advised = {**(_V1 if is_v1 else _V09), **_own_thresholds(file)}
    writer = TagWriter(tags, _thresholds(options, advised), options, series=options.series)
    return Tagger(network, letterboxed if is_v1 else stretched, writer)


def _thresholds(options: PixaiOptions, advised: dict[Category, float]) -> dict[Category, float]:
    """The threshold of each category that is wanted."""
    chosen: dict[Category, tuple[bool, float | None]] = {
        "general": (options.general, options.general_threshold),
        "character": (options.character, options.character_threshold),
        "copyright": (options.series, None),
        "style": (options.style, None),
        "meta": (options.meta, None),
    }
    return {
        category: advised[category] if threshold is None else threshold
        for category, (wanted, threshold) in chosen.items()
        if wanted and category in advised
    }


def _own_thresholds(file: Path) -> dict[Category, float]:
    own = json_object(file.with_name("config.json")).get("category_best_threshold")
    if isinstance(own, dict):
        return {category: float(own[category]) for category in get_args(Category) if category in own}
    table = file.with_name("thresholds.csv")
    return read_thresholds(table) if table.is_file() else {}


def _tags_of_config(config: Path) -> list[Tag]:
    """The tags of v1.0's ``config.json``. Raises UserError when they do not fit their categories."""
    values: dict[str, Any] = json_object(config)
    try:
        categories = [category for category, count in values["tags_split"] for _ in range(count)]
        tags = [Tag(str(name), category) for name, category in zip(values["tags"], categories, strict=True)]
    except (KeyError, TypeError, ValueError) as error:
        raise broken_list(config, "tags and categories do not fit together") from error
    unknown = {*categories} - {*get_args(Category)}
    if unknown:
        raise broken_list(config, f"the category {min(unknown)} is not known")
    return tags


KIND = CaptionerKind(
    label="PixAI tagger",
    about="Tags as on Danbooru, with newer characters and their series: for anime. The model is 1.3 GB or more.",
    style="tags",
    options=PixaiOptions,
    load=load,
    runtime="onnx",
)
