"""A part that is loaded late is as if it had been there from the start."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import nn

from trainer.families.lazy_part import LazyPart

CPU, META = torch.device("cpu"), torch.device("meta")


class Loads:
    """Makes a layer with random weights, and counts."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> nn.Linear:
        self.count += 1
        return nn.Linear(3, 2)


@pytest.fixture
def loads() -> Loads:
    return Loads()


@pytest.fixture
def part(loads: Loads) -> LazyPart[nn.Linear]:
    return LazyPart({"width": 3}, loads, dtype=torch.float32, device=CPU)


def test_it_is_loaded_once_and_frozen_when_it_is_used(part: LazyPart[nn.Linear], loads: Loads) -> None:
    assert part.config == {"width": 3} and part.loaded == [] and loads.count == 0
    module = part.module
    assert part.module is module and part.loaded == [module] and loads.count == 1
    assert not module.training and not any(each.requires_grad for each in module.parameters())


def test_what_is_asked_of_it_before_is_done_when_it_is_there(part: LazyPart[nn.Linear], loads: Loads) -> None:
    said: list[str] = []
    part.let("mode", lambda module: module.train(True))
    for word in ("one", "two"):
        part.let("word", lambda module, word=word: said.append(word))  # type: ignore[misc]
    part.move("meta")
    assert loads.count == 0 and said == [] and part.device == META
    assert part.module.weight.device == META and part.module.training
    assert said == ["two"]
    part.let("mode", lambda module: module.train(False))
    assert not part.module.training and loads.count == 1


def test_it_moves_with_what_is_asked(part: LazyPart[nn.Linear]) -> None:
    module = part.module
    part.move(META)
    assert module.weight.device == META == part.device


def test_loading_disturbs_no_draws(part: LazyPart[nn.Linear]) -> None:
    torch.manual_seed(5)
    expected = torch.rand(4)
    torch.manual_seed(5)
    assert part.module.weight.abs().sum() > 0
    assert torch.equal(torch.rand(4), expected)
    torch.manual_seed(5)
    nn.Linear(3, 2)
    assert not torch.equal(torch.rand(4), expected), "loading draws nothing: this test would see nothing"


def test_what_is_let_go_is_gone_and_comes_again_as_it_was_asked(part: LazyPart[nn.Linear], loads: Loads) -> None:
    part.let("mode", lambda module: module.train(True))
    gone = weakref.ref(part.module)
    part.release()
    gc.collect()
    assert gone() is None and part.loaded == [] and loads.count == 1
    assert part.module.training and loads.count == 2


def test_one_that_fails_to_load_is_tried_again() -> None:
    tries: list[int] = []

    def load() -> nn.Linear:
        tries.append(1)
        if len(tries) == 1:
            raise OSError("the disk is away")
        return nn.Linear(3, 2)

    part = LazyPart({}, load, dtype=torch.float32, device=CPU)
    with pytest.raises(OSError, match="away"):
        _ = part.module
    assert part.loaded == [] and part.module.in_features == 3
