"""BLIP (Li et al. 2022, arXiv:2201.12086): short sentences such as "a dog on a beach"; small enough for a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from trainer.captioners.base import Captioner, CaptionerKind, CaptionerOptions
from trainer.captioners.weights import weights_folder
from trainer.config_base import setting
from trainer.errors import UserError

_BEAMS = 3


class BlipOptions(CaptionerOptions):
    """Which weights, how captions begin, and how long they get."""

    model: str = setting("Salesforce/blip-image-captioning-base", "Model", basic=True)
    """Folder or Hugging Face id of the weights; about 1 GB."""
    prompt: str = setting("", "How captions begin", basic=True)
    """Such as "a photo of"; the model goes on from there."""
    max_new_tokens: int = setting(40, "Longest caption in tokens", ge=1, le=512)
    """A token is a short word or a part of a long one."""


class Blip:
    """A loaded BLIP model. Captions are found by beam search: the same picture always gets the same one."""

    def __init__(self, model: Any, processor: Any, options: BlipOptions) -> None:
        self._model = model
        self._processor = processor
        self._options = options

    def captions(self, images: Sequence[Image.Image], paths: Sequence[Path]) -> list[str]:
        import torch

        prompts = [self._options.prompt] * len(images) if self._options.prompt else None
        inputs = self._processor(images=list(images), text=prompts, return_tensors="pt").to(self._model.device)
        inputs["pixel_values"] = inputs["pixel_values"].to(self._model.dtype)
        with torch.inference_mode():
            tokens = self._model.generate(
                **inputs, max_new_tokens=self._options.max_new_tokens, num_beams=_BEAMS, do_sample=False
            )
        return [str(text).strip() for text in self._processor.batch_decode(tokens, skip_special_tokens=True)]


def load(options: BlipOptions) -> Captioner:
    """Load BLIP on the GPU where there is one. Raises UserError when the weights are missing or broken."""
    folder = weights_folder(options.model, "blip")

    from safetensors import SafetensorError
    from transformers import AutoProcessor, BlipForConditionalGeneration

    from trainer.devices import compute_dtype, pick_device

    device = pick_device()
    try:
        processor = AutoProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        network = BlipForConditionalGeneration.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, dtype=compute_dtype("auto", device)
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        message = f"The captioner's model {options.model} cannot be loaded: {str(error).strip().splitlines()[0]}"
        raise UserError("caption.model_broken", message, "Download it again.", "model") from error
    return Blip(network.to(device).eval(), processor, options)


KIND = CaptionerKind(
    label="BLIP",
    about="Describes each picture in one short sentence. The model is about 1 GB.",
    style="prose",
    options=BlipOptions,
    load=load,
)
