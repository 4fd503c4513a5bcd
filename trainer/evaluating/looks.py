"""Pictures and prompts as vectors of CLIP or DINOv2, to tell how alike they are.

Similarity to the dataset is the mean cosine of every picture drawn with every training picture, and prompt adherence
the mean cosine of a picture and its prompt, as in DreamBooth (Ruiz et al. 2023, 2208.12242, 4.2: DINO, CLIP-I and
CLIP-T).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from trainer.captioners.networks import load_part
from trainer.captioners.options import ModelOptions
from trainer.captioners.weights import weights_folder
from trainer.devices import in_float64
from trainer.errors import UserError

MODEL_TYPES = ("clip", "dinov2", "dinov2_with_registers")
_AT_ONCE = 16
_HINT = "Give a folder or a Hugging Face id of a CLIP or DINOv2 model in safetensors, or leave out similarity."


class Looks:
    """A loaded model that looks at pictures, and reads prompts if it is a CLIP."""

    def __init__(self, model: str, device: torch.device) -> None:
        """Load it in float32. Raises UserError(field="model")."""
        from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

        try:
            folder = weights_folder(ModelOptions(model=model), MODEL_TYPES, writes=False)
            network = _part(AutoModel, folder, model, use_safetensors=True)
            self._reads = network.config.model_type == "clip"
            self._processor = _part(AutoImageProcessor, folder, model)
            self._tokenizer: Any = _part(AutoTokenizer, folder, model) if self._reads else None
        except UserError as error:
            problems = [replace(each, code="evaluation.model", hint=_HINT, field="model") for each in error.problems]
            raise UserError.many(problems) from error
        self._network = network.to(device).eval()
        self._device = device

    @property
    def reads(self) -> bool:
        """Whether it can compare pictures with prompts."""
        return self._reads

    @torch.no_grad()
    def pictures(self, images: Sequence[Image.Image]) -> Tensor:
        """(N, D) float64 vectors of length 1, on the CPU."""
        found = []
        for start in range(0, len(images), _AT_ONCE):
            pixels = self._processor(images=list(images[start : start + _AT_ONCE]), return_tensors="pt")["pixel_values"]
            pixels = pixels.to(self._device, self._network.dtype)
            output = self._network.get_image_features(pixels) if self._reads else self._network(pixels)
            found.append(_unit(output.pooler_output))  # of DINOv2 the class token
        return torch.cat(found)

    @torch.no_grad()
    def prompts(self, texts: Sequence[str]) -> Tensor:
        """(N, D) float64 vectors of length 1, on the CPU; only where ``reads``. Long prompts are cut off."""
        length = self._network.config.text_config.max_position_embeddings
        tokens = self._tokenizer(list(texts), padding=True, truncation=True, max_length=length, return_tensors="pt")
        return _unit(self._network.get_text_features(**tokens.to(self._device)).pooler_output)


def mean_cosine(ours: Tensor, theirs: Tensor) -> float:
    """The mean cosine of each of (N, D) with each of (M, D) vectors of length 1."""
    return float(ours.mean(dim=0) @ theirs.mean(dim=0))


def _unit(vectors: Tensor) -> Tensor:
    return normalize(in_float64(vectors), dim=-1).cpu()


def _part(kind: Any, folder: Path, model: str, **options: Any) -> Any:
    return load_part(
        model, lambda: kind.from_pretrained(folder, local_files_only=True, trust_remote_code=False, **options)
    )
