"""BLIP (Li et al. 2022, arXiv:2201.12086): short sentences such as "a dog on a beach"; small enough for a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from trainer.captioners.base import Captioner, CaptionerKind
from trainer.captioners.batches import Batches
from trainer.captioners.networks import load_network, load_processor
from trainer.captioners.options import WriterOptions
from trainer.captioners.weights import weights_folder
from trainer.config_base import setting

_BEAMS = 3


class BlipOptions(WriterOptions):
    """Which weights, how captions begin, and how long they get."""

    model: str = setting("Salesforce/blip-image-captioning-base", "Model", basic=True, min_length=1)
    """Folder or Hugging Face id of the weights; about 1 GB."""
    prompt: str = setting("", "How captions begin", basic=True)
    """Such as "a photo of"; the model goes on from there."""
    max_new_tokens: int = setting(40, "Longest caption in tokens", ge=1, le=512)
    """A token is a short word or a part of a long one; what goes on longer is cut off."""


class Blip:
    """A loaded BLIP model. Captions are found by beam search: the same picture always gets the same one."""

    def __init__(self, network: Any, processor: Any, options: BlipOptions) -> None:
        self._network = network
        self._processor = processor
        self._options = options
        self._batches = Batches(self._together)

    def captions(self, images: Sequence[Image.Image], paths: Sequence[Path]) -> list[str]:
        """A sentence for each picture. Raises UserError when not even one picture fits the memory."""
        return self._batches.captions(images, paths)

    def _together(self, images: Sequence[Image.Image], paths: Sequence[Path]) -> list[str]:
        import torch

        prompts = [self._options.prompt] * len(images) if self._options.prompt else None
        inputs = self._processor(images=list(images), text=prompts, return_tensors="pt").to(self._network.device)
        inputs["pixel_values"] = inputs["pixel_values"].to(self._network.dtype)
        with torch.inference_mode():
            tokens = self._network.generate(
                **inputs, max_new_tokens=self._options.max_new_tokens, num_beams=_BEAMS, do_sample=False
            )
        return [str(text).strip() for text in self._processor.batch_decode(tokens, skip_special_tokens=True)]


def load(options: BlipOptions) -> Captioner:
    """Load BLIP on the GPU where there is one. Raises UserError when the weights are missing or broken."""
    folder = weights_folder(options, ("blip",))

    from transformers import AutoProcessor, BlipForConditionalGeneration

    processor = load_processor(folder, AutoProcessor, options)
    return Blip(load_network(folder, BlipForConditionalGeneration, options), processor, options)


KIND = CaptionerKind(
    label="BLIP",
    about="Describes each picture in one short sentence. The model is about 1 GB; a CPU is enough.",
    style="prose",
    options=BlipOptions,
    load=load,
)
