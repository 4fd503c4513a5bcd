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


def test_a_kernel_that_is_trained_stays_torchs(always_large: None) -> None:
    trained = nn.Conv2d(6, 10, 3)
    use_products_on_cpu(trained)
    assert type(trained) is nn.Conv2d


def test_products_in_16_bits_are_within_their_rounding(always_large: None) -> None:
    torch.manual_seed(1)
    layer = nn.Conv2d(6, 10, 3, padding=1, dtype=torch.bfloat16).requires_grad_(False)
    exact = copy.deepcopy(layer).double()
    use_products_on_cpu(layer)
    x = torch.randn(2, 6, 3, 3).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        output = layer(x)
    assert output.dtype == torch.bfloat16
    y = x.detach().double().requires_grad_()
    torch.testing.assert_close(output.double(), exact(y), atol=0.02, rtol=0.02)
    direction = torch.randn(output.shape)
    output.backward(direction.bfloat16())
    exact(y).backward(direction.double())
    torch.testing.assert_close(x.grad.double(), y.grad, atol=0.02, rtol=0.02)


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
