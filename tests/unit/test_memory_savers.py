"""What is done to make pictures fit, by table; the numbers behind it counted in the models themselves."""

from __future__ import annotations

import pytest
import torch
from diffusers import AutoencoderKL
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.unit.step_memory import Alive
from trainer import memory_savers
from trainer.families.sd import FULL_VAE
from trainer.generate import Painter
from trainer.memory_savers import NO_SAVERS, Savers, choose_savers, needed_bytes
from trainer.model_sizes import ModelSizes
from trainer.usual_models import usual_model

GIB = 1 << 30
USUAL = {"vae": 84_000_000, "channels": 320, "lora": 0, "known": True, "adapted": 0}
SD1 = ModelSizes(denoiser=860_000_000, text=123_000_000, text_width=768, units=usual_model("sd15").units, **USUAL)
SDXL = ModelSizes(denoiser=2_567_000_000, text=817_000_000, text_width=2048, units=usual_model("sdxl").units, **USUAL)
TURNS = Savers(texts_rest=True, parts_take_turns=True)
ALL = Savers(texts_rest=True, parts_take_turns=True, tiles=True)


@pytest.mark.parametrize(
    ("room_gib", "sizes", "side", "batch", "on_gpu", "expected"),
    [
        (12, SDXL, 1024, 1, True, NO_SAVERS),  # 6.8 GB of weights, 4.2 to decode
        (10, SDXL, 1024, 1, True, Savers(texts_rest=True)),
        (8, SDXL, 1024, 1, True, TURNS),  # the denoiser alone is 5.1
        (8, SDXL, 1536, 1, True, Savers(texts_rest=True, tiles=True)),  # decoding alone would be 9.5
        (3, SDXL, 1024, 1, True, ALL),  # does not fit anyhow
        (4, SD1, 512, 1, True, NO_SAVERS),
        (8, SD1, 2048, 1, True, Savers(texts_rest=True, tiles=True)),
        (8, SD1, 2048, 8, True, ALL),
        (16, SD1, 512, 1, False, NO_SAVERS),
        (8, SD1, 1024, 1, False, Savers(tiles=True)),  # parts in the machine's memory have nowhere to go
        (1, SDXL, 1024, 1, False, Savers(tiles=True)),
    ],
)
def test_choices(room_gib: float, sizes: ModelSizes, side: int, batch: int, on_gpu: bool, expected: Savers) -> None:
    assert choose_savers(int(room_gib * GIB), sizes, (side, side), batch, on_gpu=on_gpu) == expected


@pytest.mark.parametrize("on_gpu", [True, False])
def test_less_room_never_changes_less(on_gpu: bool) -> None:
    """What is chosen fits wherever something fits; pictures keep their pixels as long as they can."""
    for sizes in (SD1, SDXL):
        for side in (512, 1024, 2048):
            chosen = [choose_savers(gib * GIB, sizes, (side, side), on_gpu=on_gpu) for gib in range(40, 0, -1)]
            tiles = [savers.tiles for savers in chosen]
            assert tiles == sorted(tiles)
            for gib, savers in zip(range(40, 0, -1), chosen, strict=True):
                fits = needed_bytes(savers, sizes, (side, side), 1, on_gpu=on_gpu) <= gib * GIB
                assert fits or savers == (ALL if on_gpu else Savers(tiles=True))


def test_what_changes_pixels_is_said() -> None:
    assert NO_SAVERS.in_words == []
    assert [("tiles" in line, "changes" in line) for line in Savers(tiles=True).in_words] == [(True, True)]
    assert len(ALL.in_words) == 2 and len(TURNS.in_words) == 1


def test_decoding_takes_what_is_said() -> None:
    """Counted over the tensors of a VAE of the usual size, which are not computed."""
    with FakeTensorMode(), torch.no_grad():
        vae = AutoencoderKL.from_config(FULL_VAE).eval()
        with Alive(vae) as alive:
            vae.decode(torch.zeros(1, 4, 32, 32))
    assert 0.9 < alive.most / (256 * 256 * memory_savers._DECODING_BYTES) < 1.1


def test_denoising_takes_no_more_than_is_said() -> None:
    """Counted in the demo model, which has the plan of Stable Diffusion 1.x at a tenth of its width."""
    denoiser = Painter("demo", torch.device("cpu")).family.denoiser
    latents, text = torch.zeros(2, 4, 32, 32), torch.zeros(2, 77, denoiser.config.cross_attention_dim)
    with torch.no_grad(), Alive(denoiser) as alive:
        denoiser(latents, torch.tensor(5), encoder_hidden_states=text)
    numbers = 2 * 32 * 32 * denoiser.config.block_out_channels[0] * memory_savers._DENOISING_NUMBERS
    assert 0.5 < alive.most / (numbers * 4) < 1.2
