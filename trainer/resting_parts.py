"""A model of which only those parts are on the GPU that compute."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, cast

import torch
from torch import Tensor

from trainer.devices import give_back_memory
from trainer.families.base import Conditioning, Family
from trainer.memory_savers import Savers

Part = Literal["text", "vae"]


def arranged(family: Family, device: torch.device, savers: Savers) -> Family:
    """The family with its parts where ``savers`` have them, and coming to the device when they are asked.

    The denoiser is on the device whenever nothing else computes: it is called the most.
    """
    family.tile_decoding(savers.tiles)
    resting = {"text": savers.texts_rest, "vae": savers.parts_take_turns}
    homes: dict[Part, torch.device] = {
        part: torch.device("cpu") if resting[part] else device for part in ("text", "vae")
    }
    family.move(text=homes["text"], vae=homes["vae"])
    family.move(denoiser=device)
    if not any(resting.values()):
        return family
    return cast(Family, _Resting(family, device, homes, denoiser_gives_way=savers.parts_take_turns))


class _Resting:
    """Passes everything on to a family; before a text is encoded, or pixels are, what does it comes to the device."""

    def __init__(
        self, family: Family, device: torch.device, homes: dict[Part, torch.device], *, denoiser_gives_way: bool
    ) -> None:
        self._family = family
        self._device = device
        self._homes = homes
        self._denoiser_gives_way = denoiser_gives_way

    def __getattr__(self, name: str) -> Any:
        return getattr(self._family, name)

    def encode_captions(self, captions: list[str], **options: Any) -> Conditioning:
        with self._on_the_device("text"):
            return self._family.encode_captions(captions, **options)

    def encode_pixels(self, pixels: Tensor, **options: Any) -> Tensor:
        with self._on_the_device("vae"):
            return self._family.encode_pixels(pixels, **options)

    def decode_latents(self, latents: Tensor) -> Tensor:
        with self._on_the_device("vae"):
            return self._family.decode_latents(latents)

    @contextmanager
    def _on_the_device(self, part: Part) -> Iterator[None]:
        """A part that rests comes, in place of the denoiser where that gives way, and goes again."""
        if self._homes[part] == self._device:
            yield
            return
        try:
            self._move_denoiser(torch.device("cpu"))
            self._family.move(**{part: self._device})
            yield
        finally:
            self._family.move(**{part: self._homes[part]})
            give_back_memory(self._device)
            self._move_denoiser(self._device)

    def _move_denoiser(self, device: torch.device) -> None:
        if self._denoiser_gives_way:
            self._family.move(denoiser=device)
            give_back_memory(self._device)
