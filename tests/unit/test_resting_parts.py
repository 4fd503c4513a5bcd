"""Parts that rest in main memory are on the device whenever they compute. The device is only written down here."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from trainer.drawing import draw
from trainer.generate import Painter
from trainer.memory_savers import NO_SAVERS, Savers
from trainer.pictures import PictureSettings
from trainer.resting_parts import arranged

GPU = torch.device("cuda")
STAR = PictureSettings(prompt="a red star", negative="green", steps=2, guidance=4.0, seed=7, width=64, height=64)


@pytest.fixture(scope="module")
def painter() -> Painter:
    return Painter("demo", torch.device("cpu"))


@pytest.fixture
def written(painter: Painter, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Where the parts are, in place of moving them; each part checks it whenever it computes."""
    family: Any = painter.family
    where = {"denoiser": "cuda", "text": "cuda", "vae": "cuda", "most": "0"}

    def move(**parts: torch.device) -> None:
        where.update({part: device.type for part, device in parts.items() if device is not None})
        where["most"] = str(max(int(where["most"]), list(where.values()).count("cuda")))

    def checked(part: str, method: Any) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            assert where[part] == "cuda", f"{part} computes while it is on the {where[part]}"
            return method(*args, **options)

        return call

    monkeypatch.setattr(family, "move", move)
    for module, part, name in (
        (family.denoiser, "denoiser", "forward"),
        (family.text_encoder, "text", "forward"),
        (family.vae, "vae", "decode"),
        (family.vae, "vae", "encode"),
    ):
        monkeypatch.setattr(module, name, checked(part, getattr(module, name)))
    return where


@pytest.mark.parametrize(
    ("savers", "at_rest", "most"),
    [
        (NO_SAVERS, {"denoiser": "cuda", "text": "cuda", "vae": "cuda"}, 3),
        (Savers(texts_rest=True), {"denoiser": "cuda", "text": "cpu", "vae": "cuda"}, 3),
        (Savers(texts_rest=True, parts_take_turns=True), {"denoiser": "cuda", "text": "cpu", "vae": "cpu"}, 1),
    ],
)
def test_parts_come_when_they_compute_and_the_picture_stays(
    painter: Painter, written: dict[str, str], savers: Savers, at_rest: dict[str, str], most: int
) -> None:
    family = arranged(painter.family, GPU, savers)
    written["most"] = "0"
    (picture,) = draw(family, STAR, [7])
    assert {part: written[part] for part in at_rest} == at_rest
    assert int(written["most"]) == (0 if savers == NO_SAVERS else most)
    latents = family.encode_pixels(torch.zeros(1, 3, 64, 64))
    assert latents.shape == (1, 4, 8, 8)
    arranged(painter.family, GPU, NO_SAVERS)
    assert np.array_equal(np.asarray(picture), np.asarray(painter.draw(STAR, 7)))


def test_they_go_back_where_drawing_fails(painter: Painter, written: dict[str, str]) -> None:
    family = arranged(painter.family, GPU, Savers(texts_rest=True, parts_take_turns=True))
    with pytest.raises(RuntimeError):
        family.decode_latents(torch.zeros(1, 5, 8, 8))
    assert (written["denoiser"], written["vae"]) == ("cuda", "cpu")
    arranged(painter.family, GPU, NO_SAVERS)


def test_tiles_change_a_large_picture_a_little(painter: Painter) -> None:
    """A picture above the VAE's own size; below it nothing changes."""
    side = 2 * painter.family.vae.config.sample_size
    large = STAR.model_copy(update={"width": side, "height": side})
    plain = [np.asarray(painter.draw(settings, 7), dtype=float) for settings in (STAR, large)]
    painter.save_memory(Savers(tiles=True))
    tiled = [np.asarray(painter.draw(settings, 7), dtype=float) for settings in (STAR, large)]
    painter.save_memory(NO_SAVERS)
    assert np.array_equal(plain[0], tiled[0])
    assert 0 < np.abs(plain[1] - tiled[1]).mean() < 8
    assert np.array_equal(plain[1], np.asarray(painter.draw(large, 7)))
