"""What differs from batch to batch: all that the device's part of a step reads, drawn and looked up by the host."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

from torch import Tensor

from trainer.conditioning import Texts

Names = tuple[tuple[str, str], ...]
"""For each tensor its field, and its name in it where the field has several."""


@dataclass(frozen=True)
class StepInputs:
    """A batch as the step reads it.

    Attributes:
        latents: (B, 4, h, w) float32, scaled.
        noise: (B, 4, h, w) float32, what the step's target is made of.
        timesteps: (B,) int64 noise levels.
        sizes: (B, 6) as in ``data.training_set.Batch``.
        loss_weights: (B,) float32, how much each picture counts.
        texts: of the captions, for ``CaptionEncoder.encode``.
        added: (B, 4, h, w) float32, the noise that is added where it is another than ``noise``.
        masks: (B, 1, h, w) float32 from 0 to 1; None where everything counts.
        plain_texts: of the captions that are preserved; None where none are.
    """

    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    sizes: Tensor
    loss_weights: Tensor
    texts: Texts
    added: Tensor | None = None
    masks: Tensor | None = None
    plain_texts: Texts | None = None

    def tensors(self) -> tuple[Names, list[Tensor]]:
        """All tensors in one list, and what ``from_tensors`` needs to know of them."""
        named = list(self._named())
        return tuple(name for name, _ in named), [tensor for _, tensor in named]

    @staticmethod
    def from_tensors(names: Names, tensors: Sequence[Tensor]) -> StepInputs:
        """The way back."""
        values: dict[str, Tensor | Texts] = {}
        for (field, name), tensor in zip(names, tensors, strict=True):
            if name:
                texts = values.setdefault(field, {})
                assert isinstance(texts, dict)
                texts[name] = tensor
            else:
                values[field] = tensor
        return StepInputs(**values)  # type: ignore[arg-type]

    def _named(self) -> Iterator[tuple[tuple[str, str], Tensor]]:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, dict):
                for name, tensor in value.items():
                    yield (field.name, name), tensor
            elif value is not None:
                yield (field.name, ""), value
