"""LoRAs of any kind added into the weights of a loaded model, and taken out again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from trainer.config import MergedLora
from trainer.errors import Problem, UserError
from trainer.families.base import Family
from trainer.lora.file import LoraFile, fit_names, read_lora
from trainer.lora.layers import Layer, add_changes
from trainer.lora.strengths import Strength


class WeightPatches:
    """What is added to a model's weights. The untouched ones are kept in main memory, and come back to the bit."""

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        """``modules``: the model's layers by kohya key."""
        self._modules = modules
        self._originals: dict[str, Tensor] = {}

    @torch.no_grad()
    def use(self, loras: Sequence[tuple[LoraFile, float | Strength]]) -> None:
        """Let these be what is added, in place of what was; each relative to the untouched weights.

        The sums are computed in float32 and rounded to the weights' own format. Layers must fit.
        """
        changes: dict[str, list[tuple[Layer, float]]] = {}
        for lora, strength in loras:
            for key, layer in lora.layers.items():
                ratio = strength.of(key) if isinstance(strength, Strength) else strength
                changes.setdefault(key, []).append((layer, ratio))
        for key in self._originals.keys() - changes.keys():
            self._weight(key).copy_(self._originals.pop(key))
        for key, parts in changes.items():
            weight = self._weight(key)
            original = self._originals.get(key)
            if original is None:
                original = self._originals[key] = weight.to("cpu", copy=True)
            weight.copy_(add_changes(original.to(weight.device), parts, torch.float32))

    def _weight(self, key: str) -> Tensor:
        weight = self._modules[key].weight
        assert isinstance(weight, Tensor)
        return weight.data


def merge_before_training(family: Family, loras: list[MergedLora]) -> None:
    """Add LoRA files to the weights of a loaded model, in which they stay.

    Raises UserError, with every problem, when a file cannot be read or does not fit the model.
    """
    if not loras:
        return
    modules = layers_by_key(family)
    read: list[tuple[LoraFile, float]] = []
    problems: list[Problem] = []
    for number, merged in enumerate(loras):
        field = f"lora.merge_before_training.{number}.path"
        try:
            lora = fit_names(read_lora(Path(merged.path).expanduser()), modules)
            check_fits(lora, modules, Path(merged.path).name)
        except UserError as error:
            problems += [Problem(each.code, each.message, each.hint, field) for each in error.problems]
        else:
            read.append((lora, merged.ratio))
    if problems:
        raise UserError.many(problems)
    WeightPatches(modules).use(read)


def layers_by_key(family: Family) -> dict[str, nn.Module]:
    """The layers of a model that LoRAs can change, by kohya key."""
    return {
        family.lora_key(part, path): module
        for part, model_part in {"unet": family.denoiser, **family.text_encoders}.items()
        for path, module in model_part.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    }


def check_fits(lora: LoraFile, modules: Mapping[str, nn.Module], name: str) -> None:
    """Raise UserError when a layer of the file has no place in the model, or another shape."""
    wrong = [key for key, layer in lora.layers.items() if key not in modules or not layer.fits(shape_of(modules[key]))]
    wrong += lora.unknown
    if wrong:
        raise UserError(
            "lora.wrong_model",
            f"{name} is not for this model: {len(wrong)} of its layers do not fit, such as {wrong[0]}.",
            "Choose the model that it was trained on, or another LoRA.",
        )


def shape_of(module: nn.Module) -> tuple[int, ...]:
    """The shape of a layer's weight."""
    assert isinstance(module.weight, Tensor)
    return tuple(module.weight.shape)
