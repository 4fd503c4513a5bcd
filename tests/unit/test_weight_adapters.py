"""DoRA, LoHa and LoKr while they train: outputs and gradients against float64 formulas, and what is saved of them."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor, nn
from torch.nn import functional

from trainer.config import LoraSettings, MergedLora, ModelSettings
from trainer.config_io import parse_config
from trainer.errors import UserError
from trainer.families import load_family
from trainer.families.base import Family
from trainer.generate import Painter
from trainer.lora.adapter import adapter_layers, add_adapters, norm_limiter
from trainer.lora.file import LoraFile, write_lora
from trainer.lora.layers import LoraLayer
from trainer.lora.merge_model import merge_into_model
from trainer.lora.patches import merge_before_training
from trainer.lora.weight_adapters import WEIGHT_ADAPTERS, BaseLayer, WeightAdapter
from trainer.model_sizes import model_sizes
from trainer.pictures import LoraUse
from trainer.quantize import quantize_denoiser

CPU = torch.device("cpu")
MODEL = Path(__file__).resolve().parents[2] / "trainer" / "demo" / "model"
KINDS = tuple(WEIGHT_ADAPTERS)
LAYERS: dict[str, Callable[[], BaseLayer]] = {
    "linear": lambda: nn.Linear(12, 20),
    "conv": lambda: nn.Conv2d(6, 8, 3, stride=2, padding=1),
    "conv 1x1": lambda: nn.Conv2d(6, 8, 1, bias=False),
}


class Quiet:
    """Nobody listens."""

    def emit(self, kind: str, step: int = 0, **fields: Any) -> None:
        pass


def adapted_layer(kind: str, layer: str, **options: Any) -> tuple[BaseLayer, WeightAdapter]:
    """A layer with an adapter of random values, in training mode."""
    torch.manual_seed(1)
    base = LAYERS[layer]()
    base.requires_grad_(False).train()
    adapter = WEIGHT_ADAPTERS[kind](base, 2, 3.0, LoraSettings(type=kind, **options))
    adapter.attach(base)
    for parameter in adapter.parameters():
        nn.init.normal_(parameter)
    return base, adapter


def inputs_of(base: BaseLayer) -> Tensor:
    shape = (3, 5, 12) if isinstance(base, nn.Linear) else (3, 6, 7, 7)
    return torch.randn(shape, generator=torch.Generator().manual_seed(2))


def by_formula(base: BaseLayer, kind: str, values: dict[str, Tensor], inputs: Tensor) -> Tensor:
    """The adapted layer's output in float64, from its definition alone."""
    weight = base.weight.double()
    if kind == "dora":
        delta = (values["up"].flatten(1) @ values["down"].flatten(1)).reshape(weight.shape) * 3.0 / 2
        direction = weight + delta
        dims = [dim for dim in range(weight.ndim) if dim != 1]
        lengths = direction.detach().square().sum(dims, keepdim=True).sqrt()
        adapted = values["magnitude"] * direction / lengths
    elif kind == "loha":
        products = [values[f"hada_w{number}_a"] @ values[f"hada_w{number}_b"] for number in (1, 2)]
        adapted = weight + (products[0] * products[1]).reshape(weight.shape) * 3.0 / 2
    else:
        first = values["lokr_w1"]
        second = values["lokr_w2"] if "lokr_w2" in values else values["lokr_w2_a"] @ values["lokr_w2_b"]
        scale = 1.0 if "lokr_w2" in values else 3.0 / 2
        second = second.flatten(1)
        blocks = torch.einsum("ab,cd->acbd", first, second)
        adapted = weight + scale * blocks.reshape(weight.shape)
    bias = None if base.bias is None else base.bias.double()
    if isinstance(base, nn.Linear):
        return functional.linear(inputs.double(), adapted, bias)
    return functional.conv2d(inputs.double(), adapted, bias, base.stride, base.padding)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("kind", KINDS)
def test_outputs_and_gradients_are_those_of_the_formula(kind: str, layer: str) -> None:
    base, adapter = adapted_layer(kind, layer)
    inputs = inputs_of(base)
    values = {name: value.detach().double().requires_grad_() for name, value in adapter.named_parameters()}
    expected, output = by_formula(base, kind, values, inputs), base(inputs)
    torch.testing.assert_close(output.double(), expected, rtol=1e-5, atol=1e-5)
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(3))
    (output * weights).sum().backward()
    (expected * weights).sum().backward()
    for name, parameter in adapter.named_parameters():
        assert parameter.grad is not None
        error = (parameter.grad.double() - values[name].grad).norm() / values[name].grad.norm()
        assert error < 1e-5, name
    assert base.weight.grad is None


def test_a_large_rank_makes_lokr_whole_with_strength_1() -> None:
    base = nn.Linear(12, 20).requires_grad_(False)
    adapter = WEIGHT_ADAPTERS["lokr"](base, 8, 3.0, LoraSettings(type="lokr"))
    assert [tuple(factor.shape) for factor in adapter.factors] == [(4, 3), (5, 4)]
    assert adapter.scale == 1
    small = WEIGHT_ADAPTERS["lokr"](base, 2, 3.0, LoraSettings(type="lokr", lokr_factor=2))
    assert [tuple(factor.shape) for factor in small.factors] == [(2, 2), (10, 2), (2, 6)]
    assert small.scale == 1.5


@pytest.mark.parametrize("layer", ["linear", "conv"])
@pytest.mark.parametrize("kind", KINDS)
def test_dropouts_in_training_only(kind: str, layer: str) -> None:
    for option in ("dropout", "rank_dropout", "module_dropout"):
        base, _ = adapted_layer(kind, layer, **{option: 0.5})
        plain, _ = adapted_layer(kind, layer)
        inputs = inputs_of(base)
        with torch.no_grad():
            torch.manual_seed(4)
            dropped = [base(inputs) for _ in range(8)]
            torch.manual_seed(4)
            assert all(torch.equal(base(inputs), output) for output in dropped)
            assert any(not torch.equal(output, plain(inputs)) for output in dropped), option
            base.eval()
            assert torch.equal(base(inputs), plain(inputs)), option


@pytest.mark.parametrize("kind", ["loha", "lokr"])
def test_dropped_rows_leave_the_weight_alone_and_the_rest_grows(kind: str) -> None:
    base, adapter = adapted_layer(kind, "linear", rank_dropout=0.25)
    torch.manual_seed(0)
    with torch.no_grad():
        change, whole = adapter.change(base), adapter.delta()
    dropped = (change == 0).all(1)
    assert 0 < dropped.sum() < len(dropped)
    torch.testing.assert_close(change[~dropped], whole[~dropped] / 0.75)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_under_rank_dropout_and_checkpointing_use_the_same_draw(kind: str) -> None:
    """The change is computed twice, for the output and for the gradient: both must drop the same."""
    base, adapter = adapted_layer(kind, "linear", rank_dropout=0.5)
    inputs = inputs_of(base)
    torch.manual_seed(6)
    base(inputs).square().sum().backward()
    found = [parameter.grad.clone() for parameter in adapter.parameters() if parameter.grad is not None]
    torch.manual_seed(6)
    bias = base.bias
    change = adapter.change(base)
    (functional.linear(inputs, base.weight + change, bias)).square().sum().backward()
    for parameter, before in zip(adapter.parameters(), found, strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad - before, before, rtol=1e-4, atol=1e-3)


# On the demo model


def family(dtype: torch.dtype = torch.float32) -> Family:
    return load_family(ModelSettings(), device=CPU, dtype=dtype)


@torch.no_grad()
def answers(model: Family) -> tuple[Tensor, Tensor]:
    """The text encoder's and the denoiser's answer to a fixed question."""
    text = model.encode_captions(["a red circle"], max_token_length=75, clip_skip=1, weighted=False)
    noisy = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    return text.hidden_states, model.predict(noisy, torch.tensor([500]), text, torch.zeros(1, 6))


def settings_of(kind: str, **changes: Any) -> LoraSettings:
    options = {"rank": 2, "alpha": 3, "conv_rank": 2, "target": "full", "train": "both", **changes}
    return LoraSettings(type=kind, **options)


def trained(kind: str, **changes: Any) -> Family:
    """A model whose adapters have learned something."""
    model = family()
    for number, item in enumerate(add_adapters(model, settings_of(kind, **changes), seed=1)):
        random = torch.Generator().manual_seed(number)
        item.parameter.data += torch.randn(item.parameter.shape, generator=random) * 0.05
    return model


@pytest.fixture(scope="module", params=KINDS)
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Family, Path]:
    """A trained adapter of each kind, and its file."""
    model = trained(request.param)
    path = tmp_path_factory.mktemp(request.param) / "lora.safetensors"
    write_lora(path, LoraFile(adapter_layers(model), {}), precision="float")
    return request.param, model, path


def close(found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours - theirs).norm() / theirs.norm() < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_they_start_without_effect_from_the_seed_alone(kind: str) -> None:
    model = family()
    before = answers(model)
    trainables = add_adapters(model, settings_of(kind), seed=3)
    for ours, theirs in zip(answers(model), before, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 if kind == "dora" else 0)
    assert {item.part for item in trainables} == {"unet", "text_encoder"}
    assert all(item.parameter.dtype == torch.float32 and item.parameter.requires_grad for item in trainables)
    torch.manual_seed(9)
    other = family()
    again = add_adapters(other, settings_of(kind), seed=3)
    assert all(torch.equal(a.parameter, b.parameter) for a, b in zip(trainables, again, strict=True))
    half = family(torch.bfloat16)
    add_adapters(half, settings_of(kind), seed=3)
    assert all(torch.isfinite(answer).all() for answer in answers(half)), "a preview in bf16, without autocast"


def test_generate_gives_the_outputs_of_training(saved: tuple[str, Family, Path]) -> None:
    """To 1e-5; and the untouched model, to the bit, when the LoRA is taken out."""
    kind, model, path = saved
    painter = Painter("demo", CPU)
    untouched = answers(painter.family)
    painter.use([LoraUse(path=str(path))])
    effect = (answers(painter.family)[1] - untouched[1]).norm() / untouched[1].norm()
    assert effect > 0.02, kind
    close(answers(painter.family), answers(model))
    painter.use([])
    assert all(torch.equal(a, b) for a, b in zip(answers(painter.family), untouched, strict=True))
    painter.use([LoraUse(path=str(path), weight=0.5), LoraUse(path=str(path), weight=0.5)])
    close(answers(painter.family), answers(model))


def test_merged_into_a_model_it_does_the_same_in_plain_diffusers(
    saved: tuple[str, Family, Path], tmp_path: Path
) -> None:
    _, model, path = saved
    merge_into_model(MODEL, [(path, 1.0)], tmp_path / "out", save_precision="float", events=Quiet())
    plain = StableDiffusionPipeline.from_pretrained(tmp_path / "out", torch_dtype=torch.float32)
    text, _ = plain.encode_prompt("a red circle", CPU, 1, False)
    noisy = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        close((text, plain.unet(noisy, torch.tensor([500]), text).sample), answers(model))


def test_merged_before_training_it_is_part_of_the_base(saved: tuple[str, Family, Path]) -> None:
    kind, model, path = saved
    again = family()
    merge_before_training(again, [MergedLora(path=str(path), ratio=0.25), MergedLora(path=str(path), ratio=0.75)])
    close(answers(again), answers(model))
    add_adapters(again, LoraSettings(rank=2), seed=1)
    close(answers(again), answers(model))
    assert kind in KINDS


def test_files_to_merge_that_do_not_fit_are_all_named(tmp_path: Path, saved: tuple[str, Family, Path]) -> None:
    layer = next(iter(adapter_layers(saved[1]).values()))
    write_lora(tmp_path / "b.safetensors", LoraFile({"lora_unet_nowhere": layer}, {}), precision="float")
    wrong = [MergedLora(path=str(tmp_path / name)) for name in ("a.safetensors", "b.safetensors")]
    with pytest.raises(UserError) as caught:
        merge_before_training(family(), wrong)
    assert [problem.field for problem in caught.value.problems] == [
        "lora.merge_before_training.0.path", "lora.merge_before_training.1.path",
    ]  # fmt: skip


def test_going_on_from_a_file_with_another_alpha(saved: tuple[str, Family, Path]) -> None:
    kind, model, path = saved
    again = family()
    add_adapters(again, settings_of(kind, alpha=7, conv_alpha=5, init_from=str(path)), seed=1)
    close(answers(again), answers(model))


def test_a_dora_goes_on_from_a_plain_lora(tmp_path: Path) -> None:
    plain = trained("lora")
    write_lora(tmp_path / "plain.safetensors", LoraFile(adapter_layers(plain), {}), precision="float")
    again = family()
    add_adapters(again, settings_of("dora", init_from=str(tmp_path / "plain.safetensors")), seed=1)
    close(answers(again), answers(plain))


def test_a_dora_of_the_other_direction_is_merged_by_its_outputs(tmp_path: Path) -> None:
    layers = {}
    for key, layer in adapter_layers(trained("dora", train="unet", conv_rank=0, target="attention")).items():
        assert isinstance(layer, LoraLayer)
        layers[key] = replace(layer, magnitude=torch.ones(len(layer.up), 1))
    file = tmp_path / "rows.safetensors"
    write_lora(file, LoraFile(layers, {}), precision="float")
    model = family()
    merge_before_training(model, [MergedLora(path=str(file))])
    weight = model.denoiser.get_submodule("mid_block.attentions.0.transformer_blocks.0.attn1.to_q").weight
    torch.testing.assert_close(weight.norm(dim=1), torch.ones(len(weight)), rtol=1e-5, atol=0)


def test_a_file_of_another_kind_is_refused_by_name(saved: tuple[str, Family, Path]) -> None:
    kind, _, path = saved
    with pytest.raises(UserError, match=r"is a (DoRA|LoHa|LoKr), the settings have LoRA"):
        add_adapters(family(), settings_of("lora", init_from=str(path)), seed=1)
    if kind != "dora":
        with pytest.raises(UserError, match=r"is a (LoHa|LoKr), the settings have DoRA"):
            add_adapters(family(), settings_of("dora", init_from=str(path)), seed=1)


@pytest.mark.parametrize("conv_rank", [0, 2])
@pytest.mark.parametrize("kind", ["lora", *KINDS])
def test_the_check_before_the_start_knows_their_sizes(kind: str, conv_rank: int) -> None:
    options = {"rank": 3, "conv_rank": conv_rank, "block_ranks": {"mid_block": 24, r"down_blocks\.0.*conv1": 5}}
    settings = settings_of(kind, **options, lokr_factor=4 if kind == "lokr" else -1)
    model = family()
    trainables = add_adapters(model, settings, seed=1)
    sizes = model_sizes(ModelSettings(), settings)
    assert sizes.lora == sum(item.parameter.numel() for item in trainables)
    assert sizes.adapted == sum(layer.delta().numel() for layer in adapter_layers(model).values())


def test_a_small_change_is_not_lost_in_bfloat16() -> None:
    """Added to the weight it would be: 1e-4 of it is less than bfloat16's steps."""
    base = nn.Linear(64, 64, bias=False, dtype=torch.bfloat16).requires_grad_(False)
    base.weight.fill_(1.0)
    adapter = WEIGHT_ADAPTERS["loha"](base, 1, 1.0, LoraSettings(type="loha"))
    adapter.attach(base)
    for factor, value in zip(adapter.factors, (1e-4, 1.0, 1.0, 1.0), strict=True):
        nn.init.constant_(factor, value)
    nn.init.zeros_(adapter.factors[1][:, 1:])
    inputs = torch.ones(1, 64, dtype=torch.bfloat16)
    inputs[:, 1::2] = -1  # the weight's own part of the output is 0
    with torch.autocast("cpu", torch.bfloat16):
        output = base(inputs)
    assert torch.equal(base.weight + adapter.delta().to(torch.bfloat16), base.weight)
    torch.testing.assert_close(output.float(), torch.full((1, 64), 1e-4), rtol=1e-2, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_norms_come_down_to_the_limit(kind: str) -> None:
    model = trained(kind)
    before = {key: float(layer.delta(torch.float64).norm()) for key, layer in adapter_layers(model).items()}
    limit = sorted(before.values())[len(before) // 2]
    limiter = norm_limiter(model, settings_of(kind, max_norm=limit))
    assert limiter is not None
    assert int(limiter(torch.tensor(True))) == sum(norm > limit * (1 + 1e-6) for norm in before.values())
    for key, layer in adapter_layers(model).items():
        assert float(layer.delta(torch.float64).norm()) == pytest.approx(min(before[key], limit), rel=1e-4)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lora": {"type": "loha"}, "train": {"loraplus_lr_ratio": 4}}, "loraplus_lr_ratio has no use"),
        ({"lora": {"type": "lokr", "rank_stabilized": True}}, "rank_stabilized has no use"),
        ({"lora": {"type": "dora", "lokr_factor": 4}}, "lokr_factor has no use"),
        ({"lora": {"type": "lokr", "lokr_factor": 0}}, "lokr_factor 0 is not allowed"),
    ],
)
def test_options_that_a_kind_has_no_use_for_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_config(values)


@pytest.mark.parametrize("kind", KINDS)
def test_a_weight_that_is_unpacked_is_not_kept_for_the_backward_pass(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = nn.Sequential(nn.Linear(64, 48).requires_grad_(False))
    quantize_denoiser(model, "nf4")
    base: Any = model[0]
    adapter = WEIGHT_ADAPTERS[kind](base, 4, 4.0, LoraSettings(type=kind))
    adapter.attach(base)
    unpacked: list[weakref.ref[Tensor]] = []
    unpack = type(base).weight_in

    def watched(layer: Any, dtype: torch.dtype) -> Tensor:
        weight: Tensor = unpack(layer, dtype)
        unpacked.append(weakref.ref(weight))
        return weight

    monkeypatch.setattr(type(base), "weight_in", watched)
    output = base(torch.ones(2, 64))
    assert unpacked and all(weight() is None for weight in unpacked)
    output.sum().backward()
    assert any(factor.grad is not None for factor in adapter.factors)
