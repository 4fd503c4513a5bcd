"""Many pictures from one picture process: its memory stays, and none of them is wrong.

``LORA_ATELIER_SOAK=500`` draws that many; the usual number is small. Memory is the resident set of the process, as the
system tells it, after the process has come to rest: it then collects garbage and gives back what malloc holds free.
The measure before is taken after a warm-up, when every LoRA file has been drawn with in every size, and combinations of
them too: for each new one oneDNN keeps code that it compiles, up to a number (``ONEDNN_PRIMITIVE_CACHE_CAPACITY``).
"""

from __future__ import annotations

import multiprocessing
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from tests.studio_answers import awaited
from tests.tiny_models import tiny_model
from tests.unit.test_studio import pixels, until
from trainer.config import ModelSettings
from trainer.families import load_family
from trainer.lora.file import LoraFile, write_lora
from trainer.lora.layers import Layer, LohaLayer, LokrLayer, LoraLayer
from trainer.lora.patches import layers_by_key, shape_of
from trainer.pictures import LoraUse, PictureSettings, read_settings
from trainer.runs.store import Workspace
from trainer.sampler_names import SAMPLER_NAMES, schedules_of
from trainer.studio import FINAL, Studio, read_answer

THOROUGH = "LORA_ATELIER_SOAK" in os.environ
PICTURES = int(os.environ.get("LORA_ATELIER_SOAK", "40"))
WARM_UP = 100 if THOROUGH else 20
COMPARED = 20 if THOROUGH else 4
GROWTH = 0.05
SIZES = ((64, 64), (96, 64), (64, 128), (128, 128))[: 4 if THOROUGH else 2]
FILES = 14 if THOROUGH else 10
"""Of the demo model; the process keeps 8 that it does not use."""
WORDS = ("a red star", "a (big:1.3) ring", "blue", "on green ground", "[moon]", "two boxes", "inside", "above a heart")
PARTS = ("", "", "text_encoder:0", "unet.mid_block:1.5,unet.up_blocks:0.2")


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    studio = Studio(Workspace(tmp_path_factory.mktemp("workspace")), idle_minutes=5)
    yield studio
    studio.let_go()


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """LoRA files by the model that they fit."""
    folder = tmp_path_factory.mktemp("models")
    sdxl = str(tiny_model("sdxl", folder / "sdxl"))
    return {"demo": _lora_files("demo", folder / "a"), sdxl: _lora_files(sdxl, folder / "b")[:3]}


@pytest.mark.slow
def test_memory_stays_and_no_picture_is_wrong(studio: Studio, sources: dict[str, list[Path]]) -> None:
    draw = random.Random(7)
    each = [(model, [file], size) for model in sources for file in sources[model] for size in SIZES]
    warm_up = [_settings(draw, *one) for one in each] + [_random_settings(draw, sources) for _ in range(WARM_UP)]
    _drawn(studio, warm_up)
    before = _resting_bytes(studio)
    pid, drawn = studio.info().pid, []
    while len(drawn) < PICTURES:
        some = [_random_settings(draw, sources) for _ in range(min(50, PICTURES - len(drawn)))]
        drawn += _drawn(studio, some)
        sys.stderr.write(f"{len(drawn)} pictures, {_resting_bytes(studio) / before:.3f} of the memory before\n")
    assert studio.info().pid == pid
    assert abs(_resting_bytes(studio) - before) < GROWTH * before
    context = multiprocessing.get_context("forkserver")  # torch is loaded once, and has drawn nothing in any child
    context.set_forkserver_preload(["trainer.generate"])
    for path in draw.sample(drawn, COMPARED):
        with context.Pool(1) as fresh:
            assert np.array_equal(fresh.apply(drawn_afresh, (str(path),)), pixels(str(path))), read_settings(path)


def drawn_afresh(path: str) -> np.ndarray:
    """The picture that a process draws which has drawn nothing else, from the settings in a picture's file."""
    from trainer.generate import Painter

    settings = PictureSettings.model_validate(read_settings(Path(path)))
    painter = Painter(settings.model, torch.device("cpu"))
    painter.use(settings.loras)
    return np.asarray(painter.draw(settings, settings.seed))


def _drawn(studio: Studio, wanted: list[PictureSettings]) -> list[Path]:
    """Ask for all at once, as a queue would; some previews and a cancelled request come in between."""
    requests = [studio.generate(settings) for settings in wanted]
    unwanted = studio.generate(wanted[0].model_copy(update={"count": 50}))
    for settings in wanted[::10]:
        studio.preview(settings, prompts=["a green box"], compare=True)
    studio.cancel(unwanted)
    answers = [awaited(studio, request, 600) for request in requests]
    assert [answer.error for answer in answers] == [[]] * len(requests)
    until(lambda: studio.answer(unwanted).state in FINAL)
    return [Path(picture) for answer in answers for picture in answer.pictures]


def _resting_bytes(studio: Studio) -> int:
    """The memory of the process once it has nothing to do, and has given back what it does not need."""
    until(lambda: not studio.pending())
    ended = max(read_answer(studio.answers_dir, path.stem).ended or 0.0 for path in studio.answers_dir.glob("*.json"))
    until(lambda: (studio.info().since or 0.0) > ended)
    return int(psutil.Process(studio.info().pid).memory_info().rss)


def _random_settings(draw: random.Random, sources: dict[str, list[Path]]) -> PictureSettings:
    model = draw.choices(list(sources), weights=(24, 1)[: len(sources)])[0]
    files = draw.choices(sources[model], k=draw.choice((0, 1, 1, 2, 3)))
    return _settings(draw, model, files, draw.choice(SIZES))


def _settings(draw: random.Random, model: str, files: list[Path], size: tuple[int, int]) -> PictureSettings:
    sampler = draw.choice(list(SAMPLER_NAMES))
    parts = {file: draw.choice(PARTS) if model == "demo" else "" for file in files}
    return PictureSettings(
        **_start(draw, files),
        prompt=", ".join(draw.choices(WORDS, k=draw.choice((1, 2, 40)))),
        negative=draw.choice(("", "green")),
        model=model,
        loras=[LoraUse(path=str(file), weight=round(draw.uniform(-1, 1.5), 2), parts=parts[file]) for file in files],
        width=size[0],
        height=size[1],
        steps=draw.randint(2, 3),
        guidance=draw.choice((1.0, 4.0, 7.5)),
        seed=draw.randrange(2**32),
        sampler=sampler,
        schedule=draw.choice(schedules_of(sampler)),
        clip_skip=draw.choice((1, 2)),
        max_token_length=draw.choice((75, 225)),
        weighted=draw.random() < 0.5,
    )


def _start(draw: random.Random, files: list[Path]) -> dict[str, Any]:
    """One in four starts from a picture, which lies beside the LoRA files; one in ten has a second pass."""
    if not files or draw.random() < 0.65:
        return {}
    if draw.random() < 0.3:
        return {"hires_scale": 1.5, "hires_strength": 0.6, "hires_upscaler": draw.choice(("latent", "lanczos"))}
    start, mask = files[0].parent / "start.png", files[0].parent / "mask.png"
    if not start.exists():
        Image.radial_gradient("L").convert("RGB").resize((90, 70)).save(start)
        Image.linear_gradient("L").resize((90, 70)).save(mask)
    masked = {"mask": str(mask), "inpaint_area": draw.choice(("whole", "masked"))} if draw.random() < 0.5 else {}
    return {"init_image": str(start), "strength": draw.uniform(0.4, 1), **masked}


def _lora_files(model: str, folder: Path) -> list[Path]:
    """LoRA, without and with convolutions, DoRA, LoHa and LoKr in turn."""
    modules = layers_by_key(load_family(ModelSettings(base=model), device=torch.device("cpu"), dtype=torch.float32))
    shapes = {key: shape_of(module) for key, module in modules.items() if _is_attention(key) or _is_conv(key)}
    paths = []
    for number in range(FILES):
        numbers = torch.Generator().manual_seed(number)
        kind = ("lora", "lora", "lora", "conv", "dora", "loha", "lokr")[number % 7]
        layers = {
            key: _layer(kind, shape, numbers) for key, shape in shapes.items() if kind == "conv" or not _is_conv(key)
        }
        paths.append(folder / f"{number}-{kind}.safetensors")
        write_lora(paths[-1], LoraFile(layers, {}), precision="fp16")
    return paths


def _is_attention(key: str) -> bool:
    return key.endswith(("attn2_to_q", "attn1_to_k", "self_attn_q_proj"))


def _is_conv(key: str) -> bool:
    return "resnets" in key and key.endswith("conv1")


def _layer(kind: str, shape: tuple[int, ...], numbers: torch.Generator) -> Layer:
    def some(*sides: int) -> torch.Tensor:
        return torch.randn(*sides, generator=numbers) * 0.3

    (out, into), rank = shape[:2], 4
    if kind == "loha":
        return LohaLayer(some(out, rank), some(rank, into), some(out, rank), some(rank, into), 2.0)
    if kind == "lokr":
        return LokrLayer(1.0, lokr_w1=some(2, 2), lokr_w2=some(out // 2, into // 2))
    down, up = some(rank, *shape[1:]), some(out, rank, *[1] * (len(shape) - 2))
    return LoraLayer(down, up, 2.0, some(1, into).abs() + 0.5 if kind == "dora" else None)
