"""Pictures of a replayed denoiser are those of the called one to the bit, whatever changes between them."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.tiny_models import tiny_model
from tests.unit.capture_checker import Function, RecordedGraph
from tests.unit.test_drawing import lora_for
from trainer import generate, replaying
from trainer.drawing import Progress
from trainer.errors import UserError
from trainer.generate import Painter
from trainer.live_picture import live_picture
from trainer.lora.file import LoraFile, read_lora, write_lora
from trainer.memory_savers import NO_SAVERS, Savers
from trainer.pictures import LoraUse, PictureSettings
from trainer.replaying import Replaying

CPU = torch.device("cpu")
STAR = PictureSettings(prompt="a red star", negative="green", steps=2, guidance=4.0, width=64, height=64)


class Maker:
    """Makes graphs of the CPU, and knows them."""

    def __init__(self) -> None:
        self.graphs: list[weakref.ref[RecordedGraph]] = []
        self.error: RuntimeError | None = None

    def __call__(self, function: Function, inputs: Sequence[Tensor]) -> RecordedGraph:
        if self.error is not None:
            raise self.error
        graph = RecordedGraph(function, inputs)
        self.graphs.append(weakref.ref(graph))
        return graph

    @property
    def alive(self) -> int:
        return sum(each() is not None for each in self.graphs)


class Pair:
    """A model that is called, and the same one that is replayed."""

    def __init__(self, kind: str, folder: Path) -> None:
        model = str(tiny_model(kind, folder / "model"))
        self.maker = Maker()
        self.called = Painter(model, CPU)
        self.replayed = Painter(model, CPU, make_graph=self.maker)
        self.loras = [lora_for(self.called.family, folder / f"{seed}.safetensors", seed) for seed in (1, 2)]

    def use(self, *uses: tuple[int, float, str]) -> None:
        loras = [LoraUse(path=str(self.loras[index]), weight=weight, parts=parts) for index, weight, parts in uses]
        self.called.use(loras)
        self.replayed.use(loras)

    def check(self, seed: int = 1, count: int = 1, **changes: Any) -> bytes:
        """Draw with both; returns the bytes of the first picture."""
        settings, seeds = STAR.model_copy(update=changes), list(range(seed, seed + count))
        called = self.called.draw_together(settings, seeds)
        replayed = self.replayed.draw_together(settings, seeds)
        for one, other in zip(called, replayed, strict=True):
            assert np.array_equal(np.asarray(one), np.asarray(other))
        return called[0].tobytes()

    def captures(self, count: int = 1, **changes: Any) -> int:
        """How many captures it takes to draw something twice."""
        before = len(self.maker.graphs)
        assert self.check(1, count, **changes) != self.check(2, count, **changes)
        return len(self.maker.graphs) - before


@pytest.fixture(scope="module", params=["sd1", "sdxl"])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair("sd1", tmp_path)


def test_the_second_picture_of_a_size_is_captured(both: Pair) -> None:
    maker = both.maker
    for captured, seed in enumerate((1, 2, 3)):
        both.check(seed)
        assert len(maker.graphs) == min(captured, 1)
    assert both.captures(guidance=1.0, sampler="pndm") == 1  # which keeps what was predicted, here as it is
    assert both.captures(count=2, width=72, sampler="euler_a") == 1
    assert both.captures(count=2, width=72, sampler="heun", steps=3, guidance=9.0) == 0


def test_a_second_pass_and_a_long_prompt_are_sizes_of_their_own(pair: Pair) -> None:
    assert pair.captures() == 1
    assert pair.captures(hires_scale=1.5, hires_upscaler="latent") == 1
    assert pair.captures(prompt="word " * 100, max_token_length=225) == 1


def test_strengths_change_without_a_capture(both: Pair) -> None:
    assert both.captures(height=72) == 1
    both.use((0, 0.6, ""))
    assert both.captures(height=72) == 1
    seen = set()
    for weight in (0.61, -1.4, 0.0):
        both.use((0, weight, ""))
        before = len(both.maker.graphs)
        seen.add(both.check(height=72))
        assert len(both.maker.graphs) == before
    assert len(seen) == 3
    both.use((1, 0.6, ""), (0, 0.6, ""))
    assert both.captures(height=72) == 1
    before = len(both.maker.graphs)
    both.use()
    both.check(height=72)
    assert len(both.maker.graphs) == before


def test_weights_that_change_in_place_are_read_anew(pair: Pair) -> None:
    """Strengths by block, and DoRA, which is added into the weights as LoHa and LoKr are."""
    plain = pair.check(1)
    assert pair.captures() == 1
    seen = {plain}
    for weight in (0.5, 0.9, -2.0):
        pair.use((0, weight, "text_encoder:0,unet.mid_block:1.2"))
        seen.add(pair.check(1))
    lora = read_lora(pair.loras[1])
    layers = {
        key: replace(layer, magnitude=torch.full((layer.up.shape[0], 1), 0.8)) for key, layer in lora.layers.items()
    }
    write_lora(pair.loras[1], LoraFile(layers, {}), precision=None)
    pair.use((1, 1.0, ""))
    seen.add(pair.check(1))
    pair.use()
    assert pair.check(1) == plain
    assert len(seen) == 5 and len(pair.maker.graphs) == 1


def test_loras_that_are_forgotten_or_replaced(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their memory is never read again, though their file or their name is."""
    monkeypatch.setattr(generate, "KEPT_LORAS", 0)
    for _ in range(2):
        for index in (0, 1):
            pair.use((index, 0.8, ""))
            pair.check(1)
            pair.check(2)
    lora = read_lora(pair.loras[0])
    write_lora(pair.loras[0], LoraFile(dict(list(lora.layers.items())[:3]), {}), precision=None)
    pair.use((0, 0.8, ""))
    assert pair.captures() == 1
    assert pair.maker.alive <= replaying.MOST_GRAPHS


def test_few_graphs_are_kept_those_used_last(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replaying, "MOST_GRAPHS", 2)
    assert [pair.captures(width=width) for width in (64, 72, 64, 80, 64, 72)] == [1, 1, 0, 1, 0, 1]
    assert pair.maker.alive == 2 and "held: 2" in pair.replayed.replays
    monkeypatch.setattr(replaying, "MOST_SEEN", 1)
    pair.check(1, width=88)
    pair.check(1, width=96)
    assert [pair.captures(width=width) for width in (64, 88)] == [0, 1]


def test_when_capturing_fails_it_is_told_once_and_all_goes_on(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    pair.captures()
    pair.maker.error = RuntimeError("operation not permitted when stream is capturing\nmore of it")
    with caplog.at_level(logging.WARNING, "trainer.replaying"):
        assert pair.captures(width=72) == 0
        assert pair.captures(width=80) == 0
    (said,) = [record.message for record in caplog.records]
    assert said == pair.replayed.replays and "operation not permitted" in said and "more of it" not in said
    assert pair.maker.alive == 0


def test_graphs_give_way_when_the_memory_runs_out(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Those of other sizes too, but only what was too much is not captured any more."""
    family: Any = pair.replayed._whole
    decode = type(family).decode_latents

    def decode_with_room(latents: Tensor) -> Tensor:
        if latents.shape[-1] == 9 and pair.maker.alive:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return decode(family, latents)

    monkeypatch.setattr(family, "decode_latents", decode_with_room)
    assert pair.captures(width=64) == 1
    assert pair.captures(width=72) == 0
    assert pair.maker.alive == 0 and [each.levelname for each in caplog.records] == ["WARNING"]
    assert pair.captures(width=64) == 1
    assert pair.maker.alive == 1 and "held: 1" in pair.replayed.replays


def test_memory_that_runs_out_in_a_capture(pair: Pair) -> None:
    assert pair.captures(width=64) == 1
    pair.maker.error = torch.OutOfMemoryError("CUDA out of memory")
    assert pair.captures(width=80) == 0
    assert pair.maker.alive == 0
    pair.maker.error = None
    assert [pair.captures(width=width) for width in (80, 64)] == [0, 1]


def test_memory_that_runs_out_without_graphs_is_told(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(latents: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as short:
        short.setattr(pair.replayed._whole, "decode_latents", no_room)
        with pytest.raises(UserError, match="memory"):
            pair.replayed.draw(STAR, 1)
    assert pair.captures() == 0
    assert pair.captures(width=72) == 1


def test_savers_move_the_model_so_nothing_is_captured(pair: Pair) -> None:
    pair.captures()
    pair.replayed.save_memory(Savers(texts_rest=True, parts_take_turns=True))
    assert pair.maker.alive == 0 and pair.replayed.replays == ""
    assert pair.captures() == 0
    pair.replayed.save_memory(NO_SAVERS)
    assert pair.captures() == 1


def test_a_picture_that_is_ended_leaves_all_in_order(pair: Pair) -> None:
    def stop(_: Progress) -> None:
        raise KeyboardInterrupt

    for seed in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            pair.replayed.draw(STAR, seed, stop)
    pair.check(1)
    assert len(pair.maker.graphs) == 1


def test_the_live_picture_is_shown_of_a_replay_too(both: Pair) -> None:
    def shown(painter: Painter) -> list[Image.Image]:
        seen: list[Image.Image] = []
        painter.draw(STAR, 5, lambda each: seen.append(live_picture(painter.family, each.step, STAR.guidance)))
        return seen

    both.use()
    both.captures()
    called, replayed = shown(both.called), shown(both.replayed)
    assert len(called) == 2 and [each.tobytes() for each in called] == [each.tobytes() for each in replayed]


def test_a_denoiser_that_is_told_the_guidance_is_called() -> None:
    family: Any = SimpleNamespace(reads_guidance=True, name="sd1")
    assert "guidance" in Replaying(family, Maker()).in_words
    assert Replaying(family, Maker()).name == "sd1"


def test_on_the_cpu_nothing_is_captured(pair: Pair) -> None:
    assert pair.called.replays == ""
