"""Large convolutions as products: torch's own results, where they are used and where not."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from trainer.families import convolutions
from trainer.families.convolutions import LargeConv2d, lay_kernels_out, use_products_on_cpu
from trainer.quantize import QuantizedConv2d, quantize_denoiser


@pytest.fixture
def always_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels of a hundred numbers count as large, over up to a hundred pixels."""
    monkeypatch.setattr(convolutions, "MIN_WEIGHTS", 100)
    monkeypatch.setattr(convolutions, "MIN_WEIGHTS_PER_PIXEL", 5)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({"padding": 1}, (4, 2)),
        ({"padding": 1, "stride": 2}, (5, 8)),
        ({"bias": False}, (3, 4)),
        ({"dilation": 2}, (7, 5)),
    ],
)
def test_output_and_gradient_are_those_of_torch(
    options: dict[str, int], size: tuple[int, int], batch: int, always_large: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(1)
    theirs = nn.Conv2d(6, 10, 3, **options).double().requires_grad_(False)
    ours = copy.deepcopy(theirs)
    use_products_on_cpu(ours)
    assert type(ours) is LargeConv2d
    x = torch.randn(batch, 6, *size, dtype=torch.float64)
    inputs = [x.clone().requires_grad_(), x.clone().requires_grad_()]
    expected = theirs(inputs[1])
    monkeypatch.setattr(functional, "conv2d", lambda *_: pytest.fail("no product"))
    outputs = [ours(inputs[0]), expected]
    torch.testing.assert_close(*outputs)
    direction = torch.randn_like(outputs[1])
    for output in outputs:
        output.backward(direction)
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad)


def test_small_kernels_and_large_pictures_are_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    small = nn.Conv2d(6, 10, 3).requires_grad_(False)
    use_products_on_cpu(small)
    assert type(small) is nn.Conv2d
    monkeypatch.setattr(convolutions, "MIN_WEIGHTS", 100)
    large = nn.Conv2d(6, 10, 3, padding=1).requires_grad_(False)
    use_products_on_cpu(large)
    monkeypatch.setattr(functional, "unfold", lambda *_: pytest.fail("a product"))
    assert large(torch.zeros(1, 6, 32, 32)).shape == (1, 10, 32, 32)


@pytest.mark.parametrize(
    "plain",
    [nn.Conv2d(6, 10, 3), nn.Conv2d(6, 10, 3, padding="same"), nn.Conv2d(6, 10, 3, padding=1, padding_mode="reflect")],
    ids=["trained", "padding by name", "reflected"],
)
def test_what_cannot_be_a_product_stays_torchs(plain: nn.Conv2d, always_large: None) -> None:
    plain.requires_grad_(plain.padding == (0, 0))
    use_products_on_cpu(plain)
    assert type(plain) is nn.Conv2d


@pytest.mark.parametrize("shape", [(6, 3, 3), (0, 6, 3, 3)])
def test_a_picture_without_a_batch_and_a_batch_without_a_picture(shape: tuple[int, ...], always_large: None) -> None:
    theirs = nn.Conv2d(6, 10, 3, padding=1).requires_grad_(False)
    ours = copy.deepcopy(theirs)
    use_products_on_cpu(ours)
    torch.testing.assert_close(ours(torch.ones(shape)), theirs(torch.ones(shape)))


@pytest.mark.parametrize("size", [2, 9], ids=["product", "torch's"])
def test_no_input_is_kept_for_the_backward_pass(size: int, always_large: None) -> None:
    layer = nn.Conv2d(6, 10, 3, padding=1).requires_grad_(False)
    use_products_on_cpu(layer)
    kept: list[torch.Size] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.shape), lambda _: torch.zeros(())):
        layer(torch.ones(2, 6, size, size, requires_grad=True))
    assert not kept


@pytest.mark.parametrize("batch", [1, 2])
def test_an_output_lies_as_torchs_and_may_be_changed_in_place(batch: int, always_large: None) -> None:
    layer = nn.Conv2d(6, 10, 3, padding=1).requires_grad_(False)
    use_products_on_cpu(layer)
    output = layer(torch.ones(batch, 6, 2, 2, requires_grad=True))
    assert output.is_contiguous()
    output.add_(1).sum().backward()


@pytest.mark.parametrize("batch", [1, 4])
def test_products_in_16_bits_round_as_torchs_convolutions(batch: int, always_large: None) -> None:
    torch.manual_seed(1)
    theirs = nn.Conv2d(64, 64, 3, padding=1, dtype=torch.bfloat16).requires_grad_(False)
    exact, ours = copy.deepcopy(theirs).double(), copy.deepcopy(theirs)
    use_products_on_cpu(ours)
    x, direction = torch.randn(batch, 64, 4, 4).bfloat16(), torch.randn(batch, 64, 4, 4).bfloat16()

    def both(layer: nn.Module, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        given = x.to(dtype).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.float32):
            output = layer(given)
        output.backward(direction.to(output.dtype))
        assert given.grad is not None
        return output.double(), given.grad.double()

    true = both(exact, torch.float64)
    for ours_is, theirs_is, exact_is in zip(both(ours, torch.float32), both(theirs, torch.bfloat16), true, strict=True):
        assert (ours_is - exact_is).norm() <= 1.5 * (theirs_is - exact_is).norm()


def test_a_quantized_one_is_quantized(always_large: None) -> None:
    module = nn.Sequential(nn.Conv2d(6, 10, 3)).requires_grad_(False)
    use_products_on_cpu(module)
    quantize_denoiser(module, "int8")
    assert type(module[0]) is QuantizedConv2d


def test_only_plain_frozen_kernels_are_laid_out_and_pictures_follow() -> None:
    torch.manual_seed(1)
    module = nn.ModuleDict(
        {
            name: nn.Conv2d(6, 8, size, padding=size // 2)
            for name, size in {"kernel": 3, "matrix": 1, "trained": 3}.items()
        }
    ).double()
    module["kernel"].requires_grad_(False)
    before = copy.deepcopy(module)
    lay_kernels_out(module)
    laid_out = {name: layer.weight.is_contiguous(memory_format=torch.channels_last) for name, layer in module.items()}
    assert laid_out == {"kernel": True, "matrix": True, "trained": False}  # of a matrix both are the same
    assert all(torch.equal(layer.weight, before[name].weight) for name, layer in module.items())
    x = torch.randn(2, 6, 5, 4, dtype=torch.float64)
    output = module["kernel"](x)
    assert output.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(output, before["kernel"](x))
