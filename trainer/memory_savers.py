"""What pictures take of a device's memory, and what is done to make them fit. Never torch.

Attention is not among the savers: torch computes it block by block (``scaled_dot_product_attention``), so that slicing
it would cost time and save nothing (diffusers' documentation, "Reduce memory usage").
"""

from __future__ import annotations

from dataclasses import dataclass

from trainer.model_sizes import ModelSizes

_CELL_PX = 8
_DENOISING_NUMBERS = 26
"""Numbers per latent cell, row of the batch and channel of the denoiser's first level that are alive at once. Counted
over a forward pass without gradients at 512 to 2048 px: 26 in Stable Diffusion 1.5, 16 in SDXL."""
_DECODING_BYTES = 3100
"""Per pixel, of a VAE of the usual size in float32. Counted likewise: 3076 to decode, 2572 to encode."""
_LIBRARIES = {"gpu": 1.3, "cpu": 2.0}
"""What is taken by copies that libraries make of all this. On the CPU decoding was seen to take 1.9 times what was
counted; the GPU's is a guess."""
_TILE_PX = 512 * 512
_BLENDED_BYTES = 36
"""Per pixel of a picture put together from tiles: the tiles, their rows and the result, three float32 numbers each."""


@dataclass(frozen=True)
class Savers:
    """What is done to save memory. All but tiles leave a picture as it is, to the bit.

    Attributes:
        texts_rest: text encoders stay in the machine's memory but while a prompt is encoded.
        parts_take_turns: only the part of the model that computes is on the GPU.
        tiles: large pictures are decoded in overlapping tiles.
    """

    texts_rest: bool = False
    parts_take_turns: bool = False
    tiles: bool = False

    @property
    def in_words(self) -> list[str]:
        """A line for each, for people."""
        said: list[str] = []
        if self.parts_take_turns:
            said.append("Only the part of the model that computes is on the GPU: slower.")
        elif self.texts_rest:
            said.append("The text encoders are on the GPU only while a prompt is read.")
        if self.tiles:
            said.append("Large pictures are decoded in tiles, which changes them a little.")
        return said


NO_SAVERS = Savers()
_ON_GPU = (
    NO_SAVERS,
    Savers(texts_rest=True),
    Savers(texts_rest=True, parts_take_turns=True),
    Savers(texts_rest=True, tiles=True),
    Savers(texts_rest=True, parts_take_turns=True, tiles=True),
)
"""By how much they change: first those that only cost time."""
_ON_CPU = (NO_SAVERS, Savers(tiles=True))


def choose_savers(
    room_bytes: int, sizes: ModelSizes, size_px: tuple[int, int], batch: int = 1, *, on_gpu: bool
) -> Savers:
    """The first way of drawing that fits, else the one that takes least.

    Args:
        room_bytes: for the model and its pictures together.
        sizes: of the model.
        size_px: width and height of the largest picture on the way.
        batch: pictures drawn at once.
        on_gpu: whether a GPU draws, in 16-bit numbers.
    """
    choices = _ON_GPU if on_gpu else _ON_CPU
    needed = ((savers, needed_bytes(savers, sizes, size_px, batch, on_gpu=on_gpu)) for savers in choices)
    return next((savers for savers, takes in needed if takes <= room_bytes), choices[-1])


def weight_bytes(sizes: ModelSizes, *, on_gpu: bool) -> int:
    """What the model itself takes; its VAE is float32."""
    return (sizes.text + sizes.denoiser) * (2 if on_gpu else 4) + sizes.vae * 4


def needed_bytes(savers: Savers, sizes: ModelSizes, size_px: tuple[int, int], batch: int, *, on_gpu: bool) -> int:
    """What model and pictures take at their most. Guidance doubles the denoiser's batch; decoding is one by one."""
    number = 2 if on_gpu else 4
    libraries = _LIBRARIES["gpu" if on_gpu else "cpu"]
    pixels = size_px[0] * size_px[1]
    text, denoiser, vae = sizes.text * number, sizes.denoiser * number, sizes.vae * 4
    rows = 2 * batch * pixels / _CELL_PX**2
    denoising = rows * sizes.channels * _DENOISING_NUMBERS * number * libraries
    decoding = pixels * _DECODING_BYTES * libraries
    if savers.tiles and pixels > _TILE_PX:
        decoding = _TILE_PX * _DECODING_BYTES * libraries + pixels * _BLENDED_BYTES
    if savers.parts_take_turns:
        return int(max(text, denoiser + denoising, vae + decoding))
    if savers.texts_rest:
        return int(denoiser + vae + max(text, denoising, decoding))
    return int(text + denoiser + vae + max(denoising, decoding))
