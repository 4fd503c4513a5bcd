"""The WD taggers of SmilingWolf, third generation: Danbooru tags of anime and illustrations.

Facts of the models: https://huggingface.co/SmilingWolf/wd-swinv2-tagger-v3 and its demo, the space
SmilingWolf/wd-tagger (white square, bicubic, BGR from 0 to 255).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trainer.captioners.base import Captioner, CaptionerKind
from trainer.captioners.onnx_tagger import Tagger, TaggerNetwork, check_list, check_package
from trainer.captioners.tag_lists import read_tags
from trainer.captioners.tagging import Category, TaggerOptions, TagWriter
from trainer.captioners.weights import tagger_file
from trainer.config_base import Probability, setting


class WdOptions(TaggerOptions):
    """Which tags are taken, and how they are written."""

    model: str = setting("SmilingWolf/wd-swinv2-tagger-v3", "Model", basic=True, min_length=1)
    """Folder, .onnx file or Hugging Face id of a WD tagger; this one is about 0.5 GB, the slower and slightly better
    SmilingWolf/wd-eva02-large-tagger-v3 1.3 GB."""
    general_threshold: Probability = setting(0.35, "Threshold for general tags", basic=True, also=("thresh",))
    """Tags that are less sure are left out. Lower: more tags, more of them wrong."""
    character_threshold: Probability = setting(0.85, "Threshold for characters", basic=True)
    """Names that are less sure are left out."""


def square(image: Image.Image, side_px: int) -> NDArray[np.float32]:
    """The picture in the middle of a white square: (H, W, 3) in BGR, from 0 to 255."""
    longest = max(image.size)
    canvas = Image.new("RGB", (longest, longest), (255, 255, 255))
    canvas.paste(image, ((longest - image.width) // 2, (longest - image.height) // 2))
    resized = canvas.resize((side_px, side_px), Image.Resampling.BICUBIC)
    return np.asarray(resized, dtype=np.float32)[:, :, ::-1]


def load(options: WdOptions) -> Captioner:
    """Open the tagger. Raises UserError when onnxruntime, the model or its list of tags is missing or broken."""
    check_package()
    file = tagger_file(options)
    tags = read_tags(file.with_name("selected_tags.csv"))
    network = TaggerNetwork(file, channels_last=True)
    check_list(network, tags, file)
    thresholds: dict[Category, float] = {}
    if options.general:
        thresholds["general"] = options.general_threshold
    if options.character:
        thresholds["character"] = options.character_threshold
    return Tagger(network, square, TagWriter(tags, thresholds, options))


KIND = CaptionerKind(
    label="WD tagger v3",
    about="Tags as on Danbooru: for anime and illustrations. Quick on a CPU too. The model is about 0.5 GB.",
    style="tags",
    options=WdOptions,
    load=load,
    runtime="onnx",
)
