"""BLIP (Li et al. 2022, arXiv:2201.12086): short sentences such as "a dog on a beach"; small enough for a CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

from trainer.captioners.base import Captioner, CaptionerKind, CaptionerOptions
from trainer.captioners.weights import weights_folder
from trainer.errors import UserError

_MAX_NEW_TOKENS = 40
_BEAMS = 3


class Blip:
    """A loaded BLIP model. Captions are found by beam search: the same picture always gets the same one."""

    def __init__(self, model: Any, processor: Any, prompt: str | None) -> None:
        self._model = model
        self._processor = processor
        self._prompt = prompt or None

    def caption(self, image: Image.Image, path: Path) -> str:
        import torch

        inputs = self._processor(images=image, text=self._prompt, return_tensors="pt").to(self._model.device)
        inputs["pixel_values"] = inputs["pixel_values"].to(self._model.dtype)
        with torch.inference_mode():
            tokens = self._model.generate(**inputs, max_new_tokens=_MAX_NEW_TOKENS, num_beams=_BEAMS, do_sample=False)
        return str(self._processor.decode(tokens[0], skip_special_tokens=True)).strip()


def load(options: CaptionerOptions) -> Captioner:
    """Load BLIP on the GPU where there is one. Raises UserError when the weights are missing or broken."""
    model = options.model or KIND.model
    folder = weights_folder(model, "blip")

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
        message = f"The captioner's model {model} cannot be loaded: {str(error).strip().splitlines()[0]}"
        raise UserError("caption.model_broken", message, "Download it again.", "model") from error
    return Blip(network.to(device).eval(), processor, options.prompt)


KIND = CaptionerKind(
    label="BLIP",
    about="Describes each picture in one short sentence. The model is about 1 GB.",
    load=load,
    model="Salesforce/blip-image-captioning-base",
    prompt='How captions begin, such as "a photo of"',
)
