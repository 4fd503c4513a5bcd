"""Going on from LoRA files of other tools: the adapter's change is the file's, in float64; what cannot be is told."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from trainer.config import LoraSettings, ModelSettings
from trainer.errors import UserError
from trainer.families import load_family
from trainer.families.base import Family
from trainer.lora.adapter import Adapter, adapter_layers, add_adapters
from trainer.lora.file import LoraFile, write_lora
from trainer.lora.weight_adapters import WeightAdapter

LINEAR = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k"  # 128 x 96 in the demo model
CONV = "mid_block.resnets.0.conv1"
POINT = "mid_block.attentions.0.proj_in"  # a 1x1 kernel in the model
ALPHA = 3.0

Tensors = dict[str, Tensor]
Change = Callable[[Tensor], Tensor]


def random(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape) + len(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64) * 0.3


def lora(weight: Tensor, *, flat: bool = False) -> tuple[Tensors, Change]:
    shape = weight.shape[1:2] if flat else weight.shape[1:]
    down, up = random(4, *shape), random(len(weight), 4, *[1] * (len(shape) - 1))
    change = (up.flatten(1) @ down.flatten(1) * ALPHA / 4).reshape(weight.shape)
    return {"lora_down.weight": down, "lora_up.weight": up}, lambda weight: change


def dora(weight: Tensor, *, rows: bool, flat: bool = False) -> tuple[Tensors, Change]:
    """``m (W + s B A) / ||W + s B A||``, with a length for each input, or in ``rows`` for each output."""
    tensors, change = lora(weight, flat=flat)
    kept = 0 if rows else 1
    sizes = [size if dim == kept else 1 for dim, size in enumerate(weight.shape)]
    magnitude = random(*sizes).abs() + 0.5

    def decomposed(weight: Tensor) -> Tensor:
        direction = weight + change(weight)
        lengths = direction.square().sum([dim for dim in range(weight.ndim) if dim != kept], keepdim=True).sqrt()
        return magnitude * direction / lengths - weight

    return {**tensors, "dora_scale": magnitude.reshape(sizes[:2]) if flat else magnitude}, decomposed


def tucker(core: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """A kernel by its definition, one sum after the other."""
    kernel = torch.zeros(left.shape[1], right.shape[1], *core.shape[2:], dtype=torch.float64)
    for i in range(core.shape[0]):
        for j in range(core.shape[1]):
            kernel += left[i][:, None, None, None] * right[j][None, :, None, None] * core[i, j]
    return kernel


def loha(weight: Tensor) -> tuple[Tensors, Change]:
    """A convolution in Tucker form."""
    parts = {}
    for number in (1, 2):
        parts[f"hada_t{number}"] = random(4, 4, *weight.shape[2:]) + number
        parts[f"hada_w{number}_a"], parts[f"hada_w{number}_b"] = random(4, len(weight)), random(4, weight.shape[1])
    first, second = (tucker(parts[f"hada_t{n}"], parts[f"hada_w{n}_a"], parts[f"hada_w{n}_b"]) for n in (1, 2))
    return parts, lambda weight: first * second * ALPHA / 4


def lokr(weight: Tensor, *, first: str = "whole", second: str = "factors", side: int = 8) -> tuple[Tensors, Change]:
    """``kron(w1, w2)`` with a square first matrix."""
    rest = (len(weight) // side, weight.shape[1] // side, *weight.shape[2:])
    parts: Tensors = {}
    if first == "whole":
        w1 = parts["lokr_w1"] = random(side, side)
    else:
        parts["lokr_w1_a"], parts["lokr_w1_b"] = random(side, 4), random(4, side)
        w1 = parts["lokr_w1_a"] @ parts["lokr_w1_b"]
    if second == "whole":
        w2 = parts["lokr_w2"] = random(*rest)
    elif second == "factors":
        parts["lokr_w2_a"], parts["lokr_w2_b"] = random(rest[0], 4), random(4, math.prod(rest[1:]))
        w2 = (parts["lokr_w2_a"] @ parts["lokr_w2_b"]).reshape(rest)
    else:
        parts["lokr_w2_a"], parts["lokr_w2_b"] = random(4, rest[0]), random(4, rest[1])
        parts["lokr_t2"] = random(4, 4, *weight.shape[2:])
        w2 = tucker(parts["lokr_t2"], parts["lokr_w2_a"], parts["lokr_w2_b"])
    scale = 1.0 if first == second == "whole" else ALPHA / 4
    change = torch.einsum("ab,cd...->acbd...", w1, w2).reshape(weight.shape) * scale
    return parts, lambda weight: change


@pytest.fixture
def model() -> Family:
    return load_family(ModelSettings(), device=torch.device("cpu"), dtype=torch.float32)


def weight_of(model: Family, name: str) -> Tensor:
    weight = model.denoiser.get_submodule(name).weight
    assert isinstance(weight, Tensor)
    return weight.detach()


def saved(folder: Path, name: str, tensors: Tensors) -> Path:
    """A file as another tool writes it, for one layer."""
    key = "lora_unet_" + name.replace(".", "_")
    named = {f"{key}.{role}": tensor.float().contiguous() for role, tensor in tensors.items()}
    save_file({**named, f"{key}.alpha": torch.tensor(ALPHA)}, folder / "theirs.safetensors")
    return folder / "theirs.safetensors"


def going_on(model: Family, name: str, file: Path, **options: Any) -> None:
    """Adapters on one layer, with another alpha than the file's."""
    ranks = {"rank": 4, "alpha": 7, "conv_rank": 4, "conv_alpha": 5, **options}
    settings = LoraSettings(target="full", include=[f"{name}$"], init_from=str(file), **ranks)
    add_adapters(model, settings, seed=1)


def change_of(model: Family, name: str) -> Tensor:
    """What the adapter adds to the weight, found by asking the layer for every number of it."""
    layer: Any = model.denoiser.get_submodule(name)
    base = layer.base_layer if hasattr(layer, "base_layer") else layer
    shape, bias = base.weight.shape, base.bias
    questions = torch.eye(shape[1:].numel()).reshape(-1, *shape[1:])
    with torch.no_grad():
        if len(shape) == 2:
            return (layer(questions) - functional.linear(questions, base.weight, bias)).double().T
        answers = layer(questions) - functional.conv2d(questions, base.weight, bias, base.stride, base.padding)
    # a picture as large as the kernel: in its middle the whole of it is seen
    return answers[:, :, shape[2] // 2, shape[3] // 2].double().T.reshape(shape)


Case = tuple[str, str, Callable[[Tensor], tuple[Tensors, Change]], dict[str, Any]]
BY_8, WHOLE = {"lokr_factor": 8}, {"lokr_factor": 8, "rank": 64, "conv_rank": 64}
CASES: dict[str, Case] = {
    "lora without the 1x1 kernel": ("lora", POINT, partial(lora, flat=True), {}),
    "dora by inputs": ("dora", LINEAR, partial(dora, rows=False), {}),
    "dora by outputs": ("dora", LINEAR, partial(dora, rows=True), {}),
    "dora conv by inputs": ("dora", CONV, partial(dora, rows=False), {}),
    "dora conv by outputs": ("dora", CONV, partial(dora, rows=True), {}),
    "dora by inputs without the 1x1 kernel": ("dora", POINT, partial(dora, rows=False, flat=True), {}),
    "dora by outputs without the 1x1 kernel": ("dora", POINT, partial(dora, rows=True, flat=True), {}),
    "loha tucker": ("loha", CONV, loha, {}),
    "lokr tucker": ("lokr", CONV, partial(lokr, second="tucker"), BY_8),
    "lokr factored first": ("lokr", LINEAR, partial(lokr, first="factors"), BY_8),
    "lokr whole": ("lokr", LINEAR, partial(lokr, second="whole"), WHOLE),
    "lokr factors into whole": ("lokr", CONV, partial(lokr, first="factors"), WHOLE),
    "lokr tucker into whole": ("lokr", CONV, partial(lokr, second="tucker"), WHOLE),
}


@pytest.mark.parametrize("case", CASES)
def test_the_change_is_the_files(case: str, model: Family, tmp_path: Path) -> None:
    """On the layer itself, then saved by us and taken again: the same change."""
    kind, name, make, options = CASES[case]
    weight = weight_of(model, name)
    tensors, change = make(weight.double())
    expected = change(weight.double())
    going_on(model, name, saved(tmp_path, name, tensors), type=kind, **options)
    assert expected.norm() > 0.1
    torch.testing.assert_close(change_of(model, name), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))

    (layer,) = adapter_layers(model).values()
    torch.testing.assert_close(layer.change(weight, torch.float64), expected, rtol=1e-4, atol=1e-6)
    write_lora(
        tmp_path / "ours.safetensors", LoraFile({"lora_unet_" + name.replace(".", "_"): layer}, {}), precision="float"
    )
    again = load_family(ModelSettings(), device=torch.device("cpu"), dtype=torch.float32)
    going_on(again, name, tmp_path / "ours.safetensors", type=kind, **options)
    torch.testing.assert_close(change_of(again, name), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def test_a_dora_by_outputs_learns_its_lengths(model: Family, tmp_path: Path) -> None:
    tensors, _ = dora(weight_of(model, LINEAR).double(), rows=True)
    going_on(model, LINEAR, saved(tmp_path, LINEAR, tensors), type="dora")
    layer: Any = model.denoiser.get_submodule(LINEAR)
    layer(torch.randn(2, layer.in_features)).square().sum().backward()
    adapter: Adapter = next(child for child in layer.children() if isinstance(child, WeightAdapter))
    trained = [parameter for parameter, _ in adapter.trained()]
    assert sorted(tuple(each.shape) for each in trained) == sorted(
        [(4, layer.in_features), (layer.out_features, 4), (layer.out_features, 1)]
    )
    assert all(each.grad is not None and each.grad.abs().max() > 0 for each in trained)


def loha_with_dora(weight: Tensor) -> tuple[Tensors, Change]:
    tensors, change = loha(weight)
    return {**tensors, "dora_scale": torch.ones(1, weight.shape[1], 1, 1)}, change


REFUSED: dict[str, tuple[Case, str]] = {
    "dora for lora": (("lora", LINEAR, partial(dora, rows=True), {}), r"is a DoRA, .* Set lora.type to dora\."),
    "loha with dora": (
        ("loha", CONV, loha_with_dora, {}),
        "is a LoHa with DoRA, the settings have LoHa. Put it under lora.merge_before_training",
    ),
    "conv rank": (("loha", CONV, loha, {"conv_rank": 8}), r"rank 4 for .* have 8\. Set lora.conv_rank to 4"),
    "rank": (("dora", LINEAR, partial(dora, rows=True), {"rank": 8}), "Set lora.rank to 4"),
    "lokr factor": (
        ("lokr", LINEAR, lokr, {"lokr_factor": 4}),
        "first matrix of 8 x 8 .* the settings have 4 x 4. Set lora.lokr_factor to -1",  # the same for these sizes
    ),
    "lokr other factor": (("lokr", LINEAR, partial(lokr, side=4), {}), "Set lora.lokr_factor to 4"),
    "lokr whole": (
        ("lokr", CONV, partial(lokr, second="whole"), BY_8),
        "whole, the settings have rank 4. Set lora.rank, and lora.conv_rank for convolutions, to 6 or more",  # 12 / 2
    ),
    "lokr rank": (("lokr", LINEAR, lokr, {"lokr_factor": 8, "rank": 2}), "Set lora.rank to 4"),
    "size": (("lora", LINEAR, lambda weight: lora(weight[:, 1:]), {}), "another size"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_gone_on_with_says_what_to_set(case: str, model: Family, tmp_path: Path) -> None:
    (kind, name, make, options), message = REFUSED[case]
    tensors, _ = make(weight_of(model, name).double())
    with pytest.raises(UserError, match=message) as caught:
        going_on(model, name, saved(tmp_path, name, tensors), type=kind, **options)
    assert [problem.field for problem in caught.value.problems] == ["lora.init_from"]


def test_several_reasons_are_told_at_once_and_each_once(model: Family, tmp_path: Path) -> None:
    add_adapters(model, LoraSettings(rank=4, conv_rank=2, target="full", block_ranks={"mid_block": 3}), seed=1)
    write_lora(tmp_path / "mixed.safetensors", LoraFile(adapter_layers(model), {}), precision="float")
    other = load_family(ModelSettings(), device=torch.device("cpu"), dtype=torch.float32)
    settings = LoraSettings(rank=8, conv_rank=16, target="full", init_from=str(tmp_path / "mixed.safetensors"))
    with pytest.raises(UserError) as caught:
        add_adapters(other, settings, seed=1)
    hints = [problem.hint for problem in caught.value.problems]
    assert len(hints) == 2
    assert all("several ranks" in hint and "lora.block_ranks" in hint for hint in hints)
    assert any("(3, 4)" in hint for hint in hints) and any("(2, 3)" in hint for hint in hints)
