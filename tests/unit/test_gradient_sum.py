"""Gradients of several processes added up: here of one, whose sums are what it gave."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch import nn

from trainer.gradient_sum import GradientSum
from trainer.weight_format import use_format


@pytest.fixture(autouse=True)
def group() -> Iterator[None]:
    dist.init_process_group("gloo", rank=0, world_size=1, store=dist.HashStore())
    yield
    dist.destroy_process_group()


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of what was sent, in order; what is sent is doubled, as by a second process with the same."""
    sizes: list[int] = []
    reduce = dist.all_reduce

    def doubled(numbers: torch.Tensor, **options: object) -> object:
        sizes.append(len(numbers))
        numbers.mul_(2)
        return reduce(numbers, **options)

    monkeypatch.setattr(dist, "all_reduce", doubled)
    return sizes


def parameters() -> list[nn.Parameter]:
    return [nn.Parameter(torch.full((size,), float(size))) for size in (3, 4, 5)]


@pytest.mark.parametrize("passes", [0, 1])
def test_gradients_and_loss_are_sums(sent: list[int], passes: int) -> None:
    """Alike whether they are sent while the backward pass goes on or after it."""
    ours = parameters()
    add_up = GradientSum(ours, passes, bucket_bytes=5 * 4)
    for step in (1, 2):
        loss = sum(((each**2).sum() for each in ours), torch.zeros(()))
        loss.backward()
        early = len(sent) - 3 * (step - 1)
        assert early == (2 if passes else 0), "the last bucket waits for the loss"
        total = loss.detach().clone()
        add_up(total)
        assert float(total) == 2 * float(loss)
        for each in ours:
            assert each.grad is not None and torch.equal(each.grad, 4 * each.detach())
            each.grad = None
    assert sent == [6, 5, 4] * 2, "from the last parameter to the first, with one place more"


def test_a_bucket_waits_for_all_passes_of_a_step(sent: list[int]) -> None:
    ours = parameters()
    add_up = GradientSum(ours, 2, bucket_bytes=4)
    ours[2].sum().backward()
    assert not sent
    ours[2].sum().backward()
    assert sent == [6]
    ours[2].sum().backward()
    add_up(torch.zeros(()))
    assert sent == [6, 5, 4]


def test_a_process_without_a_picture_goes_along_with_zeros(sent: list[int]) -> None:
    ours = parameters()
    add_up = GradientSum(ours, 1)
    add_up(torch.zeros(()))
    assert all(each.grad is not None and not each.grad.any() for each in ours)
    assert sent == [13]


def test_gradients_stay_where_they_lie_and_keep_their_format(sent: list[int]) -> None:
    """Graphs hold their places; sums of 16-bit numbers are made in 32."""
    ours = [nn.Parameter(torch.ones(4, dtype=torch.bfloat16))]
    ours[0].grad = gradient = torch.full((4,), 0.5, dtype=torch.bfloat16)
    add_up = GradientSum(ours, 0)
    add_up.move(torch.device("cpu"))
    add_up(torch.zeros(()))
    assert ours[0].grad is gradient and gradient.tolist() == [1.0] * 4


def test_a_parameter_in_16_bits_without_a_gradient_gets_one_in_float32(sent: list[int]) -> None:
    """As gradients of all formats come: ``weight_format.use_format``."""
    first, second = (nn.Parameter(torch.ones(3, dtype=torch.bfloat16)) for _ in range(2))
    use_format([first, second], torch.bfloat16)
    add_up = GradientSum([first, second], passes=0)
    first.grad = torch.ones(3)
    add_up(torch.zeros(()))
    assert torch.equal(first.grad, torch.full((3,), 2.0))
    assert second.grad is not None and torch.equal(second.grad, torch.zeros(3))
