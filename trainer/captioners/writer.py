"""Captioning with models of transformers that take a picture and, if at all, the beginning of a text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from trainer.captioners.batches import Batches
from trainer.captioners.networks import check_packages, load_network, load_processor
from trainer.captioners.options import WriterOptions
from trainer.captioners.weights import weights_folder

_BEAMS = 3


class Writer:
    """A loaded model. Captions are found by beam search: the same picture always gets the same one."""

    def __init__(self, network: Any, processor: Any, options: WriterOptions, prompt: str) -> None:
        """Take the parts; an empty ``prompt`` is none."""
        self._network = network
        self._processor = processor
        self._options = options
        self._prompt = prompt
        self._batches = Batches(self._together)

    def captions(self, images: Sequence[Image.Image], paths: Sequence[Path]) -> list[str]:
        """A text for each picture. Raises UserError when not even one picture fits the memory."""
        return self._batches.captions(images, paths)

    def _together(self, images: Sequence[Image.Image], paths: Sequence[Path]) -> list[str]:
        import torch

        prompts = [self._prompt] * len(images) if self._prompt else None
        inputs = self._processor(images=list(images), text=prompts, return_tensors="pt").to(self._network.device)
        inputs["pixel_values"] = inputs["pixel_values"].to(self._network.dtype)
        with torch.inference_mode():
            tokens = self._network.generate(
                **inputs, max_new_tokens=self._longest(inputs), num_beams=_BEAMS, do_sample=False
            )
        return [str(text).strip() for text in self._processor.batch_decode(tokens, skip_special_tokens=True)]

    def _longest(self, inputs: Any) -> int:
        """The longest caption in tokens: what was asked for, or as far as the model can count."""
        positions = getattr(self._network.config.get_text_config(), "max_position_embeddings", None)
        begun = inputs["input_ids"].shape[1] if "input_ids" in inputs else 1
        wanted = self._options.max_new_tokens
        return wanted if positions is None else max(1, min(wanted, positions - begun))


def load_writer(options: WriterOptions, model_type: str, network_class: str, prompt: str) -> Writer:
    """Load a model with its processor, on the GPU where there is one.

    Args:
        model_type: what ``config.json`` must say it is.
        network_class: name of its class in transformers.
        prompt: what captions begin with, or the model's word for a task.

    Raises:
        UserError: the weights are missing, broken or too large for the memory.
    """
    check_packages(options)
    folder = weights_folder(options, (model_type,))

    import transformers

    processor = load_processor(folder, transformers.AutoProcessor, options)
    return Writer(load_network(folder, getattr(transformers, network_class), options), processor, options, prompt)
