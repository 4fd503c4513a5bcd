"""LoRA layers in few products: PEFT's numbers, forward and backward, in each format."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import Conv2d, Linear
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from trainer.lora.lora_convolution import LoraConvolution, use_convolution_products
from trainer.lora.lora_product import ADAPTER, LoraLinear, LoraPointwise, SharedProduct, factors, join, use_products
from trainer.lora.rounded import round_before_forward, rounded

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 0.05}


def pair(base: nn.Module, alpha: float = 6.0) -> tuple[Any, Any]:
    """PEFT's layer over ``base``, and the same computed by products."""
    torch.manual_seed(1)
    base.requires_grad_(False)
    config = LoraConfig(r=4, lora_alpha=alpha, target_modules=["0"], init_lora_weights=False)
    theirs: Any = inject_adapter_in_model(config, nn.Sequential(base), ADAPTER)[0]
    theirs.lora_A.to(torch.promote_types(base.weight.dtype, torch.float32))  # type: ignore[arg-type]
    theirs.lora_B.to(torch.promote_types(base.weight.dtype, torch.float32))  # type: ignore[arg-type]
    ours = copy.deepcopy(theirs)
    use_products(ours)
    return theirs, ours


def results(layer: Any, x: Tensor) -> list[Tensor]:
    """Output, and gradients of input, down and up."""
    given = x.clone().requires_grad_()
    layer.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=layer.base_layer.weight.dtype == torch.bfloat16):
        output = layer(given)
    output.backward(torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view(output.shape))
    factors = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
    assert all(factor.grad.dtype == factor.dtype for factor in factors)
    return [output.detach(), given.grad, *[factor.grad for factor in factors]]  # type: ignore[list-item]


def assert_alike(ours: list[Tensor], theirs: list[Tensor], tolerance: float) -> None:
    for own, other in zip(ours, theirs, strict=True):
        assert own.shape == other.shape
        scale = float(other.abs().max())
        torch.testing.assert_close(own.double(), other.double(), rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("bias", [True, False])
def test_linear(dtype: torch.dtype, bias: bool) -> None:
    theirs, ours = pair(nn.Linear(12, 20, bias=bias).to(dtype))
    assert type(theirs) is Linear and type(ours) is LoraLinear
    x = torch.randn(2, 5, 12).to(dtype)
    assert_alike(results(ours, x), results(theirs, x), TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_pointwise(dtype: torch.dtype) -> None:
    theirs, ours = pair(nn.Conv2d(12, 20, 1).to(dtype))
    assert type(theirs) is Conv2d and type(ours) is LoraPointwise
    x = torch.randn(2, 12, 3, 5).to(dtype)
    for given in (x, x.to(memory_format=torch.channels_last)):
        assert_alike(results(ours, given), results(theirs, given), TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("options", [{"padding": 1}, {"padding": 1, "stride": 2, "bias": False}])
def test_convolution(dtype: torch.dtype, options: dict[str, Any]) -> None:
    """Against PEFT's layer in float64. In bfloat16 PyTorch's gradient at one pixel and stride 2 is unwritten memory."""
    theirs, ours = pair(nn.Conv2d(12, 20, 3, **options).to(dtype))
    use_convolution_products(ours)
    assert type(theirs) is Conv2d and type(ours) is LoraConvolution
    x, exact = torch.randn(2, 12, 6, 5).to(dtype), copy.deepcopy(theirs).double()
    for given in (x.to(memory_format=torch.channels_last), x[:, :, :1, :1])[: 1 if dtype == torch.bfloat16 else 2]:
        assert_alike(results(ours, given), results(exact, given.double()), TOLERANCE[dtype])
    for given in (x, x[:1].transpose(2, 3)):  # PEFT's
        assert_alike(results(ours, given), results(theirs, given), 0)


def test_a_convolution_adds_where_its_output_lies() -> None:
    """No picture is scaled or added by itself, forward or backward; the order of channels is kept."""
    _, ours = pair(nn.Conv2d(12, 20, 3, padding=1))
    use_convolution_products(ours)
    x = torch.randn(2, 12, 6, 5).to(memory_format=torch.channels_last).requires_grad_()
    with torch.profiler.profile(record_shapes=True) as seen:
        output = ours(x)
        output.sum().backward()
    pictures = [[2, 20, 6, 5], [60, 20]]
    named = [event.name for event in seen.events() if event.input_shapes and event.input_shapes[0] in pictures]
    assert "aten::addmm_" in named and not {"aten::mul", "aten::mul_", "aten::add", "aten::add_"} & set(named)
    assert output.is_contiguous(memory_format=torch.channels_last)
    assert x.grad is not None and x.grad.is_contiguous(memory_format=torch.channels_last)


def test_a_convolution_whose_input_needs_no_gradient() -> None:
    theirs, ours = pair(nn.Conv2d(3, 5, 3, padding=1).double())
    use_convolution_products(ours)
    x = torch.randn(1, 3, 4, 4, dtype=torch.float64).to(memory_format=torch.channels_last)
    for layer in (theirs, ours):
        layer(x).square().sum().backward()
    for own, other in zip(factors(ours), factors(theirs), strict=True):
        torch.testing.assert_close(own.grad, other.grad)


def test_other_convolutions_are_left_to_peft() -> None:
    grouped = pair(nn.Conv2d(4, 8, 3, groups=2))[1]
    use_convolution_products(grouped)
    assert type(grouped) is Conv2d
    for base in (nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 1, stride=2), nn.Conv2d(4, 4, 1, padding=1)):
        assert type(pair(base)[1]) is Conv2d


def test_switched_off_it_is_the_layer_alone() -> None:
    _, ours = pair(nn.Linear(12, 20))
    x = torch.randn(3, 12)
    ours.enable_adapters(False)
    assert torch.equal(ours(x), ours.base_layer(x))
    ours.enable_adapters(True)
    assert not torch.allclose(ours(x), ours.base_layer(x))


def test_hooks_of_the_layer_are_heeded() -> None:
    """Who brings a weight to the device when its layer is called is not passed by."""
    theirs, ours = pair(nn.Linear(12, 20))
    called: list[bool] = []
    ours.base_layer.register_forward_pre_hook(lambda *_: called.append(True))
    x = torch.randn(3, 12)
    torch.testing.assert_close(ours(x), theirs(x))
    assert called == [True]


def test_checkpointing_and_inputs_without_gradient() -> None:
    theirs, ours = pair(nn.Linear(12, 20).double())
    x = torch.randn(3, 12, dtype=torch.float64)
    for layer, call in ((theirs, theirs), (ours, lambda given: checkpoint(ours, given, use_reentrant=False))):
        call(x).square().sum().backward()
        assert layer.base_layer.weight.grad is None
    for own, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        if other.requires_grad:
            torch.testing.assert_close(own.grad, other.grad)


@pytest.mark.parametrize("joined", [True, False])
def test_layers_of_one_input_side_by_side(joined: bool) -> None:
    """Other ranks, scales and widths; with weights that are neighbours in memory and without."""
    torch.manual_seed(2)
    shapes = [(20, 4, 1.5), (8, 2, 0.5), (16, 3, 1.0)]
    weights, downs, ups = (
        [torch.randn(shape, dtype=torch.float64) for shape in each]
        for each in zip(*[((out, 12), (rank, 12), (out, rank)) for out, rank, _ in shapes], strict=True)
    )
    if joined:
        before = [weight.clone() for weight in weights]
        join(weights)
        assert all(map(torch.equal, weights, before))
        assert len({weight.untyped_storage().data_ptr() for weight in weights}) == 1
    scales = tuple(scale for _, _, scale in shapes)
    learning = [torch.randn(2, 5, 12, dtype=torch.float64), *downs, *ups]
    for tensor in learning:
        tensor.requires_grad_()
    x = learning[0]
    ours = SharedProduct.apply(x, scales, *weights, *downs, *ups)
    theirs = torch.cat(
        [x @ (w + scale * up @ down).T for w, down, up, scale in zip(weights, downs, ups, scales, strict=True)], -1
    )
    torch.testing.assert_close(ours, theirs)
    direction = torch.randn_like(theirs)
    torch.testing.assert_close(
        torch.autograd.grad(ours, learning, direction), torch.autograd.grad(theirs, learning, direction)
    )


def test_factors_are_rounded_at_once_and_never_read_when_they_have_changed() -> None:
    module = nn.Sequential(pair(nn.Linear(12, 20).bfloat16())[1])
    down, up = factors(module[0])
    round_before_forward(module, lambda: [down, up])
    assert rounded(down, torch.bfloat16) is down
    with torch.autocast("cpu", torch.bfloat16):
        module(torch.ones(1, 12))
    for factor in (down, up):
        found = rounded(factor, torch.bfloat16)
        assert torch.equal(found, factor.bfloat16()) and found.shape == factor.shape
        assert rounded(factor, torch.float16) is factor
    with torch.no_grad():
        down.mul_(2)
    assert rounded(down, torch.bfloat16) is down
    assert rounded(up, torch.bfloat16) is not up


def test_rounded_factors_do_not_outlive_an_update_that_torch_does_not_count() -> None:
    module = nn.Sequential(pair(nn.Linear(12, 20).bfloat16())[1])
    both, x = factors(module[0]), torch.ones(1, 12).bfloat16()
    round_before_forward(module, lambda: list(both))
    with torch.autocast("cpu", torch.bfloat16):
        module(x).sum().backward()
    torch.optim.AdamW(both, lr=0.5, fused=True).step()
    down, up = (factor.detach().bfloat16() for factor in both)
    layer = module[0]
    expected = layer.base_layer(x) + layer.scaling[ADAPTER] * (x @ down.t() @ up.t())
    with torch.no_grad():
        torch.testing.assert_close(module(x), expected, rtol=0.02, atol=0.02)
