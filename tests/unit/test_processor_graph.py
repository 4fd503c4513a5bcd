"""Functions that are recorded on the CPU and replayed, held against calling them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from trainer.processor_graph import _LINES_OF_A_PART, DIRECT, ProcessorGraph


class Seen(TorchDispatchMode):
    """The operations that are called within."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[Any] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations.append(func)
        return func(*args, **kwargs or {})


def test_gradients_are_added_where_they_lie_and_follow_weights_and_inputs() -> None:
    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.SiLU(), nn.Flatten(), nn.Linear(128, 4))
    total = torch.zeros(())

    def add(x: Tensor, y: Tensor) -> Tensor:
        loss = functional.mse_loss(net(x), y)
        loss.backward()
        total.add_(loss.detach())
        return total

    inputs = torch.randn(2, 3, 4, 4), torch.randn(2, 4)
    add(*inputs)
    weights = list(net.parameters())
    before = [total.clone(), *(each.grad.clone() for each in weights)]
    graph = ProcessorGraph(torch.enable_grad()(add), inputs)
    after = [total, *(each.grad for each in weights)]
    assert all(torch.equal(*pair) for pair in zip(before, after, strict=True)), "recording changes nothing"

    places = [each.grad.data_ptr() for each in weights]
    for number in range(3):
        with torch.no_grad():
            for each in weights:
                each.add_(0.1)
        inputs = torch.randn(2, 3, 4, 4), torch.randn(2, 4)
        before = [total.clone(), *(each.grad.clone() for each in weights)]
        replayed = [graph.replay(inputs).clone(), *(each.grad.clone() for each in weights)]
        with torch.no_grad():
            for place, value in zip([total, *(each.grad for each in weights)], before, strict=True):
                place.copy_(value)
        called = [add(*inputs), *(each.grad for each in weights)]
        assert all(torch.equal(*pair) for pair in zip(called, replayed, strict=True)), number
    assert [each.grad.data_ptr() for each in weights] == places


def test_what_a_replay_returns_can_learn() -> None:
    """It is no tensor of the inference mode."""
    output = ProcessorGraph(lambda x: x * 2, [torch.ones(3)]).replay([torch.ones(3)])
    weight = nn.Parameter(torch.ones(3))
    (output * weight).sum().backward()
    assert torch.equal(weight.grad, torch.full((3,), 2.0))


def test_dropout_draws_anew_and_recording_draws_nothing() -> None:
    def dropped(x: Tensor) -> Tensor:
        return functional.dropout(x, 0.5)

    ones = torch.ones(64)
    torch.manual_seed(7)
    graph = ProcessorGraph(dropped, [ones])
    replayed = [graph.replay([ones]).clone() for _ in range(2)]
    torch.manual_seed(7)
    called = [dropped(ones) for _ in range(2)]
    assert all(torch.equal(*pair) for pair in zip(called, replayed, strict=True))
    assert not torch.equal(*replayed)


def test_checkpoints_draw_the_same_again_in_each_replay() -> None:
    """The generator is set back in the backward pass, twice, and is afterwards where a call would leave it."""
    torch.manual_seed(3)
    weight = nn.Parameter(torch.randn(8, 8))
    weight.grad = torch.zeros(8, 8)

    def block(x: Tensor) -> Tensor:
        return functional.dropout(x @ weight, 0.5).sin()

    def step(x: Tensor) -> Tensor:
        for _ in range(3):
            x = checkpoint(block, x, use_reentrant=False, preserve_rng_state=True)
        loss = (x * functional.dropout(torch.ones_like(x), 0.5)).square().sum()
        loss.backward()
        return loss.detach() + torch.rand(())

    given = torch.randn(5, 8)
    graph = ProcessorGraph(torch.enable_grad()(step), [given])
    assert not weight.grad.any()
    for seed in (7, 8):
        results = []
        for run in (step, lambda x: graph.replay([x]).clone()):
            torch.manual_seed(seed)
            loss = run(given)
            results.append((loss, weight.grad.clone(), torch.rand(2)))
            weight.grad.zero_()
        assert all(torch.equal(*pair) for pair in zip(*results, strict=True))


def test_views_in_the_same_memory_and_lists_of_tensors() -> None:
    kept = torch.arange(12.0).view(3, 4)

    def mixed(x: Tensor) -> Tensor:
        made = x.new_zeros(3, 4)
        made[1:].t().add_(x)
        first, *rest = torch.split(made + kept, 1)
        torch._foreach_add_([kept[0], kept[1]], [first[0], rest[0][0]])
        return torch.cat([first, *rest]).as_strided((2, 3), (1, 2), 1)

    inputs = torch.tensor([[1.0, 2.0]])
    start = kept.clone()
    graph = ProcessorGraph(mixed, [inputs])
    assert torch.equal(kept, start)
    replayed = graph.replay([inputs * 3]).clone(), kept.clone()
    kept.copy_(start)
    assert torch.equal(mixed(inputs * 3), replayed[0]) and torch.equal(kept, replayed[1])


def test_what_is_made_on_the_way_is_let_go() -> None:
    """Two thousand results, of which one is needed at a time, while they are recorded and in each replay."""
    alive: list[StorageWeakRef] = []
    calls: list[int] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **kwargs or {})
            alive[:] = [each for each in [*alive, StorageWeakRef(result.untyped_storage())] if not each.expired()]
            calls.append(len(alive))
            return result

    def chain(x: Tensor) -> Tensor:
        for _ in range(2000):
            x = x.neg()
        return x

    with Watch():
        graph = ProcessorGraph(chain, [torch.ones(4)])
    assert max(calls) <= 10 and len(calls) >= 2000
    calls.clear()
    with Watch():
        result = graph.replay([torch.full((4,), 2.0)])
    assert max(calls) <= 10 and len(calls) >= 2000
    assert torch.equal(result, torch.full((4,), 2.0))


def test_an_input_and_what_lies_outside_may_be_the_result() -> None:
    kept = torch.zeros(2)
    assert torch.equal(ProcessorGraph(lambda x: x, [torch.ones(3)]).replay([torch.arange(3.0)]), torch.arange(3.0))
    graph = ProcessorGraph(lambda x: kept.add_(x), [torch.ones(2)])
    assert [graph.replay([torch.ones(2)]).tolist() for _ in range(2)] == [[1.0, 1.0], [2.0, 2.0]]


def test_results_are_passed_from_part_to_part() -> None:
    """The first results are read again after many thousand lines, in another order."""
    steps = 3 * _LINES_OF_A_PART + 7

    def reread(x: Tensor) -> Tensor:
        made = [x + number for number in range(steps)]
        total = x * 0
        for number, each in enumerate(reversed(made)):
            total = total + each * (number % 5)
        return total

    inputs = [torch.tensor([0.5, -2.0], dtype=torch.float64)]
    graph = ProcessorGraph(reread, [torch.zeros(2, dtype=torch.float64)])
    assert torch.equal(graph.replay(inputs), reread(*inputs))


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (lambda x: x * x.sum().item(), "reads numbers"),
        (lambda x: x[x > 0], "reads numbers"),
        (lambda x: x + torch.tensor(2.0), "Python's numbers"),
        (lambda x: x + torch.randn(3, generator=torch.Generator()), "generator of its own"),
        (lambda x: [torch.manual_seed(5), x + torch.randn(3)][1], "state of the function's own"),
    ],
)
def test_what_a_replay_could_not_follow_is_refused(function: Any, why: str) -> None:
    with pytest.raises(RuntimeError, match=why):
        ProcessorGraph(function, [torch.ones(3)])


def test_views_are_taken_once_and_follow_what_they_show() -> None:
    """Of what lies outside once for all replays; of what is made, once in each."""
    kept = torch.arange(4.0).view(2, 2)

    def mixed(x: Tensor) -> Tensor:
        kept.add_(x)
        first, second = kept.t().split(1)
        doubled = x * 2
        return first @ doubled.view(2, 1) + second @ doubled.view(2, 1) + doubled.view(2, 1)

    recorded = ProcessorGraph(mixed, [torch.zeros(2)])
    seen = Seen()
    for given in (torch.tensor([1.0, 2.0]), torch.tensor([5.0, -3.0])):
        before = kept.clone()
        with seen:
            replayed = recorded.replay([given])
        after = kept.clone()
        kept.copy_(before)
        assert torch.equal(replayed, mixed(given)) and torch.equal(after, kept)
    calls = [str(each) for each in seen.operations]
    assert calls.count("aten.as_strided.default") == 2  # one in each
    assert not {"aten.t.default", "aten.split.Tensor", "aten.view.default"} & set(calls)


def test_numbers_read_in_another_format() -> None:
    """As bytes, and as complex numbers; of what was made within and of what lies outside."""
    kept = torch.arange(4.0)

    def mixed(x: Tensor) -> Tensor:
        made = x * 3
        numbers = made.view(torch.int32).view(2, 2).bitwise_and(0x7FF00000).t().reshape(4).view(torch.float32)
        turned = torch.view_as_complex(made.view(2, 2)).conj() * torch.view_as_complex(kept.view(2, 2))
        return numbers + torch.view_as_real(turned.resolve_conj()).view(4)

    given = torch.tensor([1.5, -2.25, 1e9, 0.1])
    assert torch.equal(ProcessorGraph(mixed, [torch.zeros(4)]).replay([given]), mixed(given))


def test_what_an_operation_reads_is_there_until_its_views_are_taken() -> None:
    """The first argument is read for the last time by an operation that takes views of the others before."""

    def mixed(x: Tensor) -> Tensor:
        first, second, third = x + 1, x + 2, x + 3
        return torch.addmm(first.view(1, 4), second.view(1, 4), third.outer(third)) + torch.cat([second, third])[4:]

    given = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert torch.equal(ProcessorGraph(mixed, [torch.zeros(4)]).replay([given]), mixed(given))


def test_parts_of_a_result_are_let_go_one_by_one() -> None:
    """A normalisation's statistics outlive its output: only what is read later stays."""
    sizes: list[int] = []
    alive: list[StorageWeakRef] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **kwargs or {})
            made = result if isinstance(result, tuple) else [result]
            alive[:] = [each for each in alive if not each.expired()]
            alive.extend(StorageWeakRef(each.untyped_storage()) for each in made)
            sizes.append(len(alive))
            return result

    def step(x: Tensor) -> Tensor:
        deviations = []
        for _ in range(20):
            x, _, deviation = torch.native_layer_norm(x, [8], None, None, 1e-5)
            deviations.append(deviation)
        return torch.cat([x.reshape(-1), torch.cat(deviations).reshape(-1)])

    given = torch.randn(3, 8)
    graph = ProcessorGraph(step, [given])
    with Watch():
        replayed = graph.replay([given])
    assert torch.equal(replayed, step(given))
    assert 20 <= max(sizes) <= 20 + 6  # twenty deviations, and what one normalisation reads and gives


def test_what_is_called_directly_is_the_operation() -> None:
    """Each function, with the arguments of the operation that it stands for, calls that one alone."""
    x, w, b = torch.ones(2, 4, 3, 3), torch.ones(4, 4, 1, 1), torch.ones(4)
    m = torch.ones(4, 4)
    arguments: dict[str, tuple[Any, ...]] = {
        "as_strided": (m, [2], [1]),
        "bmm": (torch.ones(1, 4, 4), torch.ones(1, 4, 4)),
        "cat": ([m, m], 1),
        "convolution": (x, w, b, [1, 1], [0, 0], [1, 1], False, [0, 0], 1),
        "native_group_norm": (x, b, b, 2, 4, 9, 2, 1e-5),
        "native_layer_norm": (m, [4], b, b, 1e-5),
        "new_empty": (m, [3]),
    }
    numbers = {"addmm": 3, "addmm_": 3, "clone": 1, "gelu": 1}
    for operation, function in DIRECT.items():
        name = operation._schema.name.removeprefix("aten::")
        given = arguments.get(name) or (m,) * numbers.get(name, 2)
        with torch.inference_mode(), Seen() as seen:
            function(*given)
        assert seen.operations == [operation]
