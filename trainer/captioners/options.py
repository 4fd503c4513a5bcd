"""Options that captioners with a model share: which weights, and how a text is written."""

from __future__ import annotations

from typing import Literal

from trainer.captioners.base import CaptionerOptions
from trainer.config_base import setting

WeightFormat = Literal["none", "int8", "nf4"]


class ModelOptions(CaptionerOptions):
    """Which weights. Captioners name their usual ones as the default of ``model``."""

    model: str = setting("", "Model", basic=True, min_length=1)
    """Folder or Hugging Face id of the weights. An id is downloaded once; a folder needs no network."""
    revision: str | None = setting(None, "Hub revision")
    """Branch, tag or commit of a Hugging Face id; empty for its newest version."""


class WriterOptions(ModelOptions):
    """How a model that writes texts is loaded, and how long they get."""

    max_new_tokens: int = setting(100, "Longest caption in tokens", also=("max_tokens",), ge=1, le=4096)
    """A token is a short word or a part of a long one; what goes on longer is cut off."""
    quantize: WeightFormat = setting("none", "Smaller weights", also=("load_in_8bit", "load_in_4bit"))
    """int8 halves the memory for the weights, nf4 quarters it; captions get slightly worse. Needs the package
    bitsandbytes."""
