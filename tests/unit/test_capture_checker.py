"""The checker finds what a CUDA graph cannot hold, and the CPU's graph is as strict as one."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.unit.capture_checker import NotCapturable, RecordedGraph, check_capturable

Function = Callable[[Tensor], Tensor]
GIVEN = torch.arange(12.0).reshape(3, 4) + 1


def grows(counter: Iterator[int]) -> Function:
    return lambda given: given.repeat(next(counter), 1)


def changing_number(counter: Iterator[int]) -> Function:
    return lambda given: given * next(counter)


def other_weights(counter: Iterator[int]) -> Function:
    kept = [torch.ones(4), torch.ones(4)]
    return lambda given: given * kept[next(counter) % 2]


FAULTS: dict[str, tuple[Function, str]] = {
    "item": (lambda given: given * given.sum().item(), "waits for numbers"),
    "branch": (lambda given: given if given.sum() > 0 else -given, "waits for numbers"),
    "nonzero": (lambda given: given.nonzero(), "waits for numbers"),
    "mask": (lambda given: given[given > 3], "waits for numbers"),
    "host": (lambda given: given + torch.tensor([1.0, 2.0, 3.0, 4.0]), "numbers of the host"),
    "copy": (lambda given: given.to("meta"), "between devices"),
    "random": (lambda given: given + torch.randn(4), "random"),
    "dropout": (lambda given: functional.dropout(given, 0.5), "random"),
    "attention": (
        lambda given: functional.scaled_dot_product_attention(*[given[None, None]] * 3, dropout_p=0.5),
        "random",
    ),
    "shapes": (grows(iter(range(1, 9))), "differs from run to run"),
    "numbers": (changing_number(iter(range(1, 9))), "differs from run to run"),
    "weights": (other_weights(iter(range(1, 9))), "lies elsewhere"),
    "storage": (lambda given: given.set_(given.clone().untyped_storage(), 0, (3, 4)) + 1, "another storage|elsewhere"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_found(name: str) -> None:
    function, said = FAULTS[name]
    with torch.no_grad(), pytest.raises(NotCapturable, match=said):
        check_capturable(function, [GIVEN.clone()])


def test_the_replay_is_the_function_of_other_inputs() -> None:
    weight = torch.randn(4, 4, generator=torch.Generator().manual_seed(1))

    def function(given: Tensor) -> Tensor:
        hidden = functional.silu(functional.linear(given, weight))
        hidden += given[:, [1, 0, 3, 2]] if given.shape[0] > 9 else given.flip(1)
        return functional.scaled_dot_product_attention(*[hidden[None, None]] * 3)[0, 0] * 0.7

    graph = RecordedGraph(function, [GIVEN])
    for number in (2, 3):
        given = GIVEN / number
        assert torch.equal(graph.replay([given]), function(given))
    weight.mul_(2)
    assert torch.equal(graph.replay([GIVEN]), function(GIVEN))


def test_a_result_is_overwritten_and_numbers_are_old() -> None:
    factor = [2.0]
    graph = RecordedGraph(lambda given: given * factor[0], [GIVEN])
    first = graph.replay([GIVEN])
    factor[0] = 5.0
    second = graph.replay([GIVEN + 1])
    assert first is second and torch.equal(second, (GIVEN + 1) * 2)


def test_memory_that_was_given_back_is_not_read() -> None:
    held = [torch.ones(4)]
    graph = RecordedGraph(lambda given: given * held[0], [GIVEN])
    held.clear()
    with pytest.raises(NotCapturable, match="given back"):
        graph.replay([GIVEN])
