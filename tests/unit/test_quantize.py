"""Packed weights against NumPy in float64; layers and their gradients against the same layers with plain weights."""

from __future__ import annotations

import copy
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from trainer.config import Config, LoraSettings, ModelSettings, Quantize
from trainer.estimates import training_memory
from trainer.families import load_family
from trainer.model_sizes import model_sizes
from trainer.quantize import NF4_LEVELS, pack, quantize_denoiser, unpack

CPU = torch.device("cpu")
KINDS: tuple[Quantize, ...] = ("fp8", "int8", "nf4")
SHAPES = [(24, 40), (7, 9), (16, 8, 3, 3)]


def weights(shape: tuple[int, ...]) -> Tensor:
    generator = torch.Generator().manual_seed(len(shape))
    weight = torch.randn(shape, generator=generator) * 0.3
    weight[0] *= 20  # rows of very different size
    return weight


def there_and_back(weight: Tensor, kind: Quantize, dtype: torch.dtype = torch.float32) -> Tensor:
    return unpack(*pack(weight, kind), kind, weight.shape, dtype)


def test_every_kind_is_tried() -> None:
    assert ("none", *KINDS) == get_args(Quantize)


@pytest.mark.parametrize("shape", SHAPES)
def test_int8_is_the_nearest_of_255_values_in_each_row(shape: tuple[int, ...]) -> None:
    weight = weights(shape)
    exact = weight.double().numpy()
    step = np.abs(exact).max(axis=tuple(range(1, len(shape))), keepdims=True) / 127
    expected = np.round(exact / step) * step
    given = there_and_back(weight, "int8").double().numpy()
    wrong = np.abs(given - expected) > 1e-6 * step * 127
    near_ties = np.abs(np.abs(exact / step - np.floor(exact / step)) - 0.5) < 1e-4
    assert not (wrong & ~near_ties).any()
    assert np.abs(given - exact).max() <= step.max() / 2 * 1.001


@pytest.mark.parametrize("shape", SHAPES)
def test_nf4_is_the_nearest_level_in_each_block(shape: tuple[int, ...]) -> None:
    weight = weights(shape)
    flat = weight.double().numpy().ravel()
    expected = np.empty_like(flat)
    for start in range(0, len(flat), 64):
        block = flat[start : start + 64]
        largest = np.abs(block).max()
        nearest = np.abs(block[:, None] / largest - np.array(NF4_LEVELS)).argmin(axis=1)
        expected[start : start + 64] = np.array(NF4_LEVELS)[nearest] * largest
    np.testing.assert_allclose(there_and_back(weight, "nf4").numpy().ravel(), expected, rtol=1e-6, atol=1e-7)


def test_the_levels_are_quantiles_of_the_normal_distribution() -> None:
    """Dettmers et al. 2023, section 3: evenly spaced quantiles, 8 for each sign, both halves meeting in zero."""
    offset = 0.9677083  # 1 - (1/32 + 1/30) / 2, as in the paper's code
    normal = torch.distributions.Normal(0, 1)
    positive = normal.icdf(torch.linspace(offset, 0.5, 9))[:-1]
    negative = -normal.icdf(torch.linspace(offset, 0.5, 8))[:-1]
    levels = torch.cat([positive, negative, torch.zeros(1)]).sort().values
    torch.testing.assert_close(levels / levels.max(), torch.tensor(NF4_LEVELS), rtol=0, atol=2e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_fp8_keeps_three_bits_behind_the_first(shape: tuple[int, ...]) -> None:
    weight = weights(shape)
    given = there_and_back(weight, "fp8")
    error = (given - weight).abs()
    floor = weight.abs().amax(dim=tuple(range(1, weight.ndim)), keepdim=True) / 448 * 2.0**-10  # below: too small
    assert (error <= weight.abs() * 2.0**-4 * 1.001 + floor).all() and error.max() > 0
    torch.testing.assert_close(given.abs().amax(), weight.abs().amax())


@pytest.mark.parametrize("kind", KINDS)
def test_zeros_and_16_bits(kind: Quantize) -> None:
    assert torch.equal(there_and_back(torch.zeros(4, 6), kind), torch.zeros(4, 6))
    half = weights((24, 40)).bfloat16()
    given = there_and_back(half, kind, torch.bfloat16)
    assert given.dtype == torch.bfloat16 and given.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layer", ["linear", "conv", "conv with stride", "no bias"])
def test_outputs_and_gradients_are_those_of_the_rounded_weight(kind: Quantize, layer: str) -> None:
    torch.manual_seed(0)
    plain: nn.Linear | nn.Conv2d = {
        "linear": nn.Linear(40, 24),
        "no bias": nn.Linear(40, 24, bias=False),
        "conv": nn.Conv2d(8, 16, 3, padding=1),
        "conv with stride": nn.Conv2d(8, 16, 3, padding=1, stride=2),
    }[layer]
    plain.requires_grad_(False)
    block = nn.ModuleDict({"block": copy.deepcopy(plain)})
    quantize_denoiser(block, kind)
    packed = block["block"]
    plain.weight.copy_(there_and_back(plain.weight, kind))
    assert torch.equal(packed.weight, plain.weight) and isinstance(packed, type(plain))
    assert "weight" not in dict(packed.named_parameters())

    shape = (2, 5, 40) if isinstance(plain, nn.Linear) else (2, 8, 10, 12)
    inputs = [torch.randn(shape, generator=torch.Generator().manual_seed(1)).requires_grad_() for _ in range(2)]
    outputs = [each(hidden) for each, hidden in zip((packed, plain), inputs, strict=True)]
    torch.testing.assert_close(outputs[0], outputs[1])
    for output in outputs:
        (output**2).sum().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad)


@pytest.mark.parametrize(("kind", "bits"), [("fp8", 8), ("int8", 8), ("nf4", 4.5)])
def test_a_model_takes_less_memory_and_keeps_no_weight_for_the_backward_pass(kind: Quantize, bits: float) -> None:
    family = load_family(ModelSettings(), device=CPU, dtype=torch.float32)
    unet = family.denoiser
    before = sum(each.numel() for each in unet.parameters())
    quantize_denoiser(unet, kind)
    left = sum(each.numel() for each in unet.parameters())
    packed = sum(each.numel() * each.element_size() for name, each in unet.named_buffers() if name.endswith("packed"))
    scales = sum(each.numel() * each.element_size() for name, each in unet.named_buffers() if name.endswith("scale"))
    numbers = before - left
    assert numbers > 0.9 * before and left < 0.1 * before
    assert (packed + (scales if kind == "nf4" else 0)) * 8 / numbers == pytest.approx(bits, rel=0.01)

    weight_sizes = {module.weight_shape.numel() for module in unet.modules() if hasattr(module, "weight_shape")}
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda each: kept.append(each.numel()) or each, lambda each: each):
        states = torch.zeros(1, 77, unet.config.cross_attention_dim)
        latents = torch.randn(1, 4, 8, 8, requires_grad=True)
        unet(latents, torch.tensor([10]), encoder_hidden_states=states).sample.sum().backward()
    assert latents.grad is not None and latents.grad.abs().sum() > 0
    assert not [size for size in kept if size in weight_sizes and size > 20_000]


def test_copies_are_packed_and_new_layers_of_the_class_are_plain() -> None:
    block = nn.ModuleDict({"block": nn.Conv2d(8, 16, 3).requires_grad_(False)})
    quantize_denoiser(block, "int8")
    packed = block["block"]
    twin, new = copy.deepcopy(packed), type(packed)(8, 4, 3, bias=False)  # the latter as PEFT does
    assert type(new) is nn.Conv2d and new.weight.requires_grad
    hidden = torch.randn(1, 8, 6, 6)
    assert torch.equal(twin(hidden), packed(hidden)) and twin.packed is not packed.packed


def test_none_changes_nothing() -> None:
    family = load_family(ModelSettings(), device=CPU, dtype=torch.float32)
    before = [id(each) for each in family.denoiser.parameters()]
    quantize_denoiser(family.denoiser, "none")
    assert [id(each) for each in family.denoiser.parameters()] == before


def test_the_memory_estimate_knows_it() -> None:
    sizes = model_sizes(ModelSettings(), LoraSettings())
    weights_of = {
        kind: training_memory(Config(model={"quantize": kind}, train={"mixed_precision": "bf16"}), sizes, 4096).weights
        for kind in ("none", *KINDS)
    }
    assert weights_of["none"] - weights_of["int8"] == weights_of["none"] - weights_of["fp8"] == sizes.denoiser
    assert weights_of["none"] - weights_of["nf4"] == pytest.approx(sizes.denoiser * (2 - 4.5 / 8), abs=1)
