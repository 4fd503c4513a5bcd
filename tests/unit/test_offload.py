"""Blocks that come when they are used: the same numbers to the bit, two blocks at once, the next one foreseen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.recipe.single_steps import batch_of, made_of, values
from trainer import block_fetching, offload
from trainer.config import Config
from trainer.families import load_family
from trainer.offload import offload_blocks, spread
from trainer.quantize import quantize_denoiser
from trainer.recipe import train_step

CPU = torch.device("cpu")


class Late:
    """A device of its own: a block arrives when it is waited for, and what is there before is no number."""

    multiple_bytes = block_fetching.ALIGNED_BYTES

    def __init__(self) -> None:
        self.started: list[int] = []
        self.log: list[tuple[str, int]] = []
        self.places: set[int] = set()
        self._sizes: dict[int, int] = {}

    def keep(self, block: Tensor) -> Tensor:
        kept = block.clone()
        self._sizes[kept.data_ptr()] = len(self._sizes)
        return kept

    def moved(self, kept: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
        return kept

    def start(self, kept: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        target.fill_(255)
        self.started.append(self._sizes[kept.data_ptr()])
        self.log.append(("start", self.started[-1]))
        self.places.add(target.data_ptr())
        return kept, target

    def wait(self, started: tuple[Tensor, Tensor]) -> None:
        source, target = started
        target.copy_(source)


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> Late:
    late = Late()
    monkeypatch.setattr(offload, "host_memory_for", lambda device: late)
    return late


def steps(
    config: Config,
    monkeypatch: pytest.MonkeyPatch,
    between: Callable[[Any], None] | None = None,
    *,
    alike: bool = False,
) -> list[Any]:
    """Losses, and the LoRA after two steps. ``alike``: layers compute as offloaded ones do, and stay where they are."""

    def load(*arguments: Any, **named: Any) -> Any:
        family = load_family(*arguments, **named)
        quantize_denoiser(family.denoiser, config.model.quantize)
        offload_blocks(family.denoiser, config.model.offload, CPU)
        if alike:
            block_fetching.blocks_of(family.denoiser)
        return family

    monkeypatch.setattr("tests.recipe.single_steps.load_family", load)
    ingredients, learning, trainables = made_of(config)
    told = []
    for _ in range(2):
        told.append(train_step(ingredients, learning, batch_of).tolist())
        if between is not None:
            between(ingredients.family)
    return [*told, *(each.detach().clone() for each in values(trainables))]


def config_of(share: float, quantize: str, checkpointing: str, lora: dict[str, Any]) -> Config:
    return Config.model_validate(
        {
            "model": {"offload": share, "quantize": quantize},
            "lora": {"rank": 4, "target": "full", **lora},
            "train": {"gradient_checkpointing": checkpointing},
            "dataset": {"cache": {"to_disk": False}},
        }
    )


def same(first: list[Any], second: list[Any]) -> bool:
    return all(
        torch.equal(one, other) if isinstance(one, Tensor) else one == other
        for one, other in zip(first, second, strict=True)
    )


@pytest.mark.parametrize(
    ("share", "quantize", "checkpointing", "lora"),
    [
        (0.5, "none", "off", {}),
        (1.0, "none", "all", {}),
        (1.0, "int8", "off", {"train": "both"}),
        (1.0, "none", "off", {"type": "dora"}),
    ],
)
def test_steps_are_the_same_to_the_bit(
    copies: Late,
    monkeypatch: pytest.MonkeyPatch,
    share: float,
    quantize: str,
    checkpointing: str,
    lora: dict[str, Any],
) -> None:
    plain = steps(config_of(0, quantize, checkpointing, lora), monkeypatch)
    alike = steps(config_of(0, quantize, checkpointing, lora), monkeypatch, alike=True)
    assert not copies.started
    found = steps(config_of(share, quantize, checkpointing, lora), monkeypatch)
    assert same(alike, found)
    assert len(copies.places) == block_fetching.PLACES
    for step, offloaded in zip(plain[:2], found[:2], strict=True):  # sums in another order
        assert offloaded == pytest.approx(step, rel=1e-5)


@pytest.mark.parametrize("checkpointing", ["off", "all"])
def test_the_next_block_is_foreseen(copies: Late, monkeypatch: pytest.MonkeyPatch, checkpointing: str) -> None:
    """In the second step each copy begins while another block computes, and no block comes twice in a pass, nor
    once more to be computed again."""
    ends: list[int] = []
    use = block_fetching.Fetching._weights

    def used(self: Any, number: int) -> Any:
        copies.log.append(("use", number))
        return use(self, number)

    monkeypatch.setattr(block_fetching.Fetching, "_weights", used)
    steps(config_of(1.0, "none", checkpointing, {}), monkeypatch, lambda family: ends.append(len(copies.log)))
    second = copies.log[ends[0] : ends[1]]
    starts = [number for what, number in second if what == "start"]
    blocks = len(set(copies.started))
    assert blocks > 20 and len(starts) == 2 * (blocks - 2)
    assert len(set(starts[: blocks - 2])) == blocks - 2
    computing = -1
    for what, number in second:
        if what == "use":
            computing = number
        else:
            assert number != computing


def test_a_denoiser_that_is_moved_gives_the_memory_back(copies: Late, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(1.0, "none", "off", {})
    plain = steps(config, monkeypatch)
    held: list[int] = []

    def pause(family: Any) -> None:
        family.move(denoiser="cpu")
        held.append(sum(each.numel() for each in family.denoiser.parameters() if not each.requires_grad))

    assert same(plain, steps(config, monkeypatch, pause))
    whole = load_family(config.model, device=CPU, dtype=torch.float32).denoiser
    assert held[0] < 0.2 * sum(each.numel() for each in whole.parameters())


def test_shares_are_spread() -> None:
    sizes = [10] * 8
    assert spread(sizes, 0) == [] and spread(sizes, 1) == list(range(8))
    assert spread(sizes, 0.5) == [0, 2, 4, 6] or spread(sizes, 0.5) == [1, 3, 5, 7]
    chosen = spread([5, 50, 5, 50, 100, 5, 30], 0.4)
    assert sum([5, 50, 5, 50, 100, 5, 30][each] for each in chosen) / 245 == pytest.approx(0.4, abs=0.15)


def test_the_processor_has_nothing_to_offload() -> None:
    family = load_family(Config().model, device=CPU, dtype=torch.float32)
    before = [id(each) for each in family.denoiser.parameters()]
    offload_blocks(family.denoiser, 1.0, CPU)
    assert [id(each) for each in family.denoiser.parameters()] == before
