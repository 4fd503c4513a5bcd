"""Layers of few kernels against float64 and against diffusers; without a GPU the kernels are interpreted."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional

from tests.conftest import ROOT
from tests.unit.unet_answers import DEVICE, family_of, near, predicted
from trainer.fused import layers
from trainer.fused.layers import FusedGroupNorm, FusedResnetBlock, FusedTransformerBlock, use_fused_layers

pytest.importorskip("triton")


@pytest.fixture(autouse=True)
def exact_convolutions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def with_gradient(function: Callable[[Tensor], Tensor], x: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    x = x.detach().requires_grad_()
    y = function(x)
    y.backward(gradient.to(y.dtype))
    assert x.grad is not None
    return y.detach(), x.grad


@pytest.mark.parametrize(
    ("shape", "dtype", "activate"),
    [
        ((2, 64, 12, 7), torch.float32, True),
        ((2, 64, 12, 7), torch.float32, False),
        ((1, 96, 5, 5), torch.bfloat16, True),
        ((1, 96, 5, 5), torch.float16, False),
        ((1, 320, 9, 8), torch.bfloat16, False),
        ((2, 64, 2, 1), torch.float32, True),
        ((1, 32, 70, 60), torch.float32, True),  # sums of more blocks than are joined at once
    ],
)
def test_group_norm(shape: tuple[int, ...], dtype: torch.dtype, activate: bool) -> None:
    """Also far from zero, where sums of squares would lose all digits, and in pictures that lie otherwise in memory."""
    from trainer.fused.functions import group_norm

    generator = torch.Generator().manual_seed(0)
    x = (torch.randn(shape, generator=generator) * 2 + 50).to(DEVICE, dtype)
    gradient = torch.randn(shape, generator=generator).to(DEVICE, dtype)
    weight, bias = (torch.randn(shape[1], generator=generator).to(DEVICE, dtype) for _ in range(2))

    def exact(x: Tensor) -> Tensor:
        y = functional.group_norm(x, 32, weight.double(), bias.double(), 1e-5)
        return functional.silu(y) if activate else y

    wanted = with_gradient(exact, x.double(), gradient.double())
    for given in (x, x.contiguous(memory_format=torch.channels_last)):
        got = with_gradient(lambda x: group_norm(x, 32, weight, bias, 1e-5, activate=activate), given, gradient)
        assert got[0].dtype == got[1].dtype == dtype and got[0].is_contiguous(memory_format=torch.channels_last)
        share = {torch.float32: 2e-5, torch.bfloat16: 4e-3, torch.float16: 5e-4}[dtype]
        assert near(got[0], wanted[0], share) and near(got[1], wanted[1], 2 * share)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(2, 3, 48), (5, 2 * 1300)])
def test_gated(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    from trainer.fused.functions import gated

    generator = torch.Generator().manual_seed(1)
    both = torch.randn(shape, generator=generator).to(DEVICE, dtype)
    gradient = torch.randn((*shape[:-1], shape[-1] // 2), generator=generator).to(DEVICE, dtype)

    def exact(both: Tensor) -> Tensor:
        value, gate = both.chunk(2, -1)
        return value * functional.gelu(gate)

    wanted = with_gradient(exact, both.double(), gradient.double())
    got = with_gradient(gated, both, gradient)
    share = 1e-6 if dtype == torch.float32 else 4e-3
    assert near(got[0], wanted[0], share) and near(got[1], wanted[1], share)


def test_sums_that_are_normalised() -> None:
    from trainer.fused.functions import added_and_normalised

    generator = torch.Generator().manual_seed(3)
    shape, width = (3, 37, 88), 88
    x, more, of_total, of_y = (torch.randn(shape, generator=generator).to(DEVICE) for _ in range(4))
    weight, bias = (torch.randn(width, generator=generator).to(DEVICE) for _ in range(2))

    def exact(x: Tensor) -> Tensor:
        total = x + more.double()
        return torch.stack([total, functional.layer_norm(total, (width,), weight.double(), bias.double(), 1e-5)])

    def ours(x: Tensor) -> Tensor:
        return torch.stack(added_and_normalised(x, more, weight, bias, 1e-5))

    wanted = with_gradient(exact, x.double(), torch.stack([of_total, of_y]).double())
    got = with_gradient(ours, x, torch.stack([of_total, of_y]))
    assert near(got[0], wanted[0], 1e-6) and near(got[1], wanted[1], 1e-6)


def test_both_terms_get_the_gradient_of_a_sum() -> None:
    from trainer.fused.functions import added_and_normalised, added_with_bias

    generator = torch.Generator().manual_seed(4)
    one, other = (torch.randn(2, 5, 3, 4, generator=generator).to(DEVICE).requires_grad_() for _ in range(2))
    bias = torch.randn(5, generator=generator).to(DEVICE)
    total = added_with_bias(one, other, bias)
    assert near(total.detach(), (one.double() + other.double() + bias[:, None, None]).detach(), 1e-6)
    for function in (lambda: total, lambda: added_and_normalised(one, other, *[one.new_ones(4)] * 2, 1e-5)[1]):
        first, second = torch.autograd.grad(function().square().sum(), (one, other))
        assert torch.equal(first, second) and first.abs().max() > 0


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> Callable[[nn.Module], None]:
    """Makes a model's layers such, on whatever device there is."""

    class Features:
        fused_layers = True

    monkeypatch.setattr(layers, "features_of", lambda device: Features())
    return lambda denoiser: use_fused_layers(denoiser, DEVICE)


@pytest.mark.parametrize(
    ("kind", "checkpointing", "quantize", "lora"),
    [
        ("sd1", "some", "int8", {}),
        ("sd1", "off", "none", {"type": "lokr", "conv_rank": 4}),  # adapters that add by hooks
        ("sdxl", "all", "none", {}),
    ],
)
def test_a_whole_unet(
    kind: str,
    checkpointing: Any,
    quantize: str,
    lora: dict[str, Any],
    tmp_path: Path,
    fused: Callable[[nn.Module], None],
) -> None:
    family, parameters = family_of(kind, tmp_path, torch.float32, quantize, **lora)
    family.save_memory(checkpointing, draws=False)
    family.denoiser.train()
    wanted = predicted(family, parameters, torch.float32)
    fused(family.denoiser)
    got = predicted(family, parameters, torch.float32)
    assert len(got) == len(wanted) > 100
    assert all(near(one, other, 1e-4) for one, other in zip(got, wanted, strict=True))


def test_sixteen_bits_round_as_autocast_does(tmp_path: Path, fused: Callable[[nn.Module], None]) -> None:
    """Against the same weights in float32 fused layers are about as far off as autocast's own: a matter of chance."""
    family, parameters = family_of("sd1", tmp_path, torch.bfloat16)
    plain = predicted(family, parameters, torch.bfloat16)
    fused(family.denoiser)
    got = predicted(family, parameters, torch.bfloat16)
    family.denoiser.float()
    exact = predicted(family, parameters, torch.float32)

    def off(values: list[Tensor]) -> float:
        together = torch.cat([each.double().flatten() for each in exact])
        return float((torch.cat([each.double().flatten() for each in values]) - together).norm() / together.norm())

    assert 0 < off(got) <= 1.5 * off(plain) < 0.05


def test_every_layer_of_the_kind_is_one(tmp_path: Path, fused: Callable[[nn.Module], None]) -> None:
    family, _ = family_of("sd1", tmp_path, torch.float32)
    denoiser = family.denoiser
    assert isinstance(denoiser, UNet2DConditionModel)
    blocks = [type(each) for each in denoiser.modules() if "Resnet" in type(each).__name__]
    fused(denoiser)
    after = [type(each) for each in denoiser.modules() if "Resnet" in type(each).__name__]
    assert after == [FusedResnetBlock] * len(blocks)
    assert not [name for name, each in denoiser.named_modules() if type(each) is nn.GroupNorm]
    assert sum(isinstance(each, FusedGroupNorm) for each in denoiser.modules()) > len(blocks)
    for layer in denoiser.modules():
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3) and not layer.weight.requires_grad:
            assert layer.weight.is_contiguous(memory_format=torch.channels_last)


def test_masks_are_left_to_diffusers(tmp_path: Path, fused: Callable[[nn.Module], None]) -> None:
    family, _ = family_of("sd1", tmp_path, torch.float32)
    fused(family.denoiser)
    block = next(each for each in family.denoiser.modules() if isinstance(each, FusedTransformerBlock))
    generator = torch.Generator().manual_seed(6)
    width, read = block.norm1.normalized_shape[0], block.attn2.to_k.in_features
    x, texts = (torch.randn(1, 5, each, generator=generator).to(DEVICE) for each in (width, read))
    mask = torch.tensor([[[0.0, 0.0, -1e4, -1e4, -1e4]]], device=DEVICE)
    masked = block(x, encoder_hidden_states=texts, encoder_attention_mask=mask)
    assert near(masked, block(x, encoder_hidden_states=texts[:, :2]), 1e-5)
    assert not near(masked, block(x, encoder_hidden_states=texts), 1e-5)


def test_where_kernels_cannot_be_made_layers_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    family, _ = family_of("sd1", tmp_path, torch.float32)
    use_fused_layers(family.denoiser, torch.device("cpu"))  # a device without
    monkeypatch.setattr(layers, "_kernels_work", lambda device, dtype: False)
    use_fused_layers(family.denoiser, torch.device("cuda", 0))
    assert not [each for each in family.denoiser.modules() if isinstance(each, FusedGroupNorm)]


def test_kernels_compile_for_gpus() -> None:
    """What is interpreted here is also Triton that becomes machine code of old and new ones."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "tests.compile_kernels"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
