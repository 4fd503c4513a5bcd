"""Options of LoRA layers: rsLoRA, dropouts, norm limit, ranks and rates by pattern; against hand computation."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from peft.tuners.lora import LoraLayer as PeftLayer
from torch import Tensor

from trainer.config import LoraSettings, ModelSettings, TrainSettings
from trainer.families import load_family
from trainer.families.base import Family
from trainer.learning import Learning
from trainer.lora.adapter import adapter_layers, add_adapters, norm_limiter
from trainer.lora.dropout import Draws, drop_module, drop_ranks
from trainer.parameter_groups import parameter_groups

QUERY = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
QUERY_KEY = "lora_unet_" + QUERY.replace(".", "_")
CONV = "mid_block.resnets.0.conv1"


@pytest.fixture
def model() -> Family:
    return load_family(ModelSettings(), device=torch.device("cpu"), dtype=torch.float32)


def strong(model: Family, settings: LoraSettings) -> Family:
    """Adapters whose up parts are random."""
    for item in add_adapters(model, settings, seed=1):
        if item.is_up:
            item.parameter.data.normal_(0, 0.2, generator=torch.Generator().manual_seed(2))
    return model


def peft_layers(model: Family) -> Iterator[tuple[str, PeftLayer]]:
    return ((name, module) for name, module in model.denoiser.named_modules() if isinstance(module, PeftLayer))


def change_of(model: Family, name: str, inputs: Tensor) -> Tensor:
    """What the adapter of a layer adds to the layer's output."""
    layer = dict(peft_layers(model))[name]
    with torch.no_grad():
        return layer(inputs) - layer.base_layer(inputs)


@pytest.mark.parametrize("rank", [4, 16])
def test_rslora_scales_by_the_root_of_the_rank_and_the_file_says_so(model: Family, rank: int) -> None:
    strong(model, LoraSettings(rank=rank, alpha=3, rank_stabilized=True, include=[QUERY]))
    layer = adapter_layers(model)[QUERY_KEY]
    assert layer.alpha == pytest.approx(3 * math.sqrt(rank)), "readers divide by the rank"
    inputs = torch.randn(2, 5, layer.down.shape[1], generator=torch.Generator().manual_seed(3))
    expected = 3 / math.sqrt(rank) * inputs.double() @ layer.down.double().T @ layer.up.double().T
    torch.testing.assert_close(change_of(model, QUERY, inputs).double(), expected, rtol=1e-4, atol=1e-5)


def test_rslora_of_another_rank_in_a_block(model: Family) -> None:
    settings = LoraSettings(rank=4, alpha=2, rank_stabilized=True, block_ranks={"attn1.to_q": 16})
    add_adapters(model, settings, seed=1)
    layers = adapter_layers(model)
    assert layers[QUERY_KEY].scale == pytest.approx(2 / 4)
    assert layers[QUERY_KEY.replace("to_q", "to_k")].scale == pytest.approx(2 / 2)


def test_dropout_of_a_layers_inputs_in_training_only(model: Family) -> None:
    """What is dropped before the down part is what torch's own dropout drops, with the same draw."""
    strong(model, LoraSettings(rank=4, alpha=2, dropout=0.5, include=[QUERY]))
    layer = adapter_layers(model)[QUERY_KEY]
    inputs = torch.randn(2, 5, layer.down.shape[1], generator=torch.Generator().manual_seed(3))
    whole = change_of(model, QUERY, inputs)
    model.denoiser.train()
    torch.manual_seed(5)
    dropped = change_of(model, QUERY, inputs)
    torch.manual_seed(5)
    kept = torch.nn.functional.dropout(inputs, 0.5).double()
    assert 0 < int((kept == 0).sum()) < kept.numel()
    expected = 2 / 4 * kept @ layer.down.double().T @ layer.up.double().T
    torch.testing.assert_close(dropped.double(), expected, rtol=1e-4, atol=1e-5)
    model.denoiser.eval()
    assert torch.equal(change_of(model, QUERY, inputs), whole)


def test_dropped_ranks_are_drawn_per_picture_and_the_rest_grows() -> None:
    torch.manual_seed(0)
    hidden = torch.ones(64, 7, 100)
    dropped = drop_ranks(hidden, 0.25, -1, Draws())
    assert torch.equal(dropped, dropped[:, :1].expand_as(dropped)), "one draw for all tokens of a picture"
    assert dropped.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert float(dropped.mean()) == pytest.approx(1, abs=0.02)
    assert not torch.equal(dropped[0], dropped[1])
    picture = drop_ranks(torch.ones(8, 100, 3, 3), 0.5, 1, Draws())
    assert torch.equal(picture, picture[:, :, :1, :1].expand_as(picture)) and len(picture[:, :, 0, 0].unique()) == 2


def test_dropped_modules_are_whole_and_unscaled() -> None:
    torch.manual_seed(0)
    kept = [drop_module(torch.ones(2, 3), 0.3) for _ in range(1000)]
    assert all(torch.equal(change, torch.zeros(2, 3)) or torch.equal(change, torch.ones(2, 3)) for change in kept)
    assert sum(float(change[0, 0]) for change in kept) / 1000 == pytest.approx(0.7, abs=0.05)


@pytest.mark.parametrize("name", [QUERY, CONV])
def test_rank_dropout_of_a_layer_in_training_only(model: Family, name: str) -> None:
    """Each picture's change is that of the ranks it kept: the same draw by hand."""
    settings = LoraSettings(rank=4, alpha=4, conv_rank=4, target="full", rank_dropout=0.5, include=[name])
    strong(model, settings)
    layer = adapter_layers(model)["lora_unet_" + name.replace(".", "_")]
    shape = (6, 5, layer.down.shape[1]) if not layer.is_conv else (6, layer.down.shape[1], 4, 4)
    inputs = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    whole = change_of(model, name, inputs)
    model.denoiser.train()
    torch.manual_seed(5)
    dropped = change_of(model, name, inputs)
    torch.manual_seed(5)
    assert torch.equal(dropped, change_of(model, name, inputs)), "torch's own generator decides"
    module = dict(peft_layers(model))[name]
    torch.manual_seed(5)
    mask = torch.rand((6, 1, 4) if not layer.is_conv else (6, 4, 1, 1)) >= 0.5
    assert 0 < mask.sum() < mask.numel()
    hidden_kept = _without_dropout(module, inputs) * mask * 2
    up = layer.up.flatten(1)
    expected = hidden_kept @ up.T if not layer.is_conv else torch.einsum("or,brhw->bohw", up, hidden_kept)
    torch.testing.assert_close(dropped, expected, rtol=1e-4, atol=1e-5)
    model.denoiser.eval()
    assert torch.equal(change_of(model, name, inputs), whole)


def _without_dropout(module: PeftLayer, inputs: Tensor) -> Tensor:
    down = module.lora_A["default"]
    down.eval()
    with torch.no_grad():
        hidden = down(inputs)
    down.train()
    return hidden


def test_module_dropout_of_a_layer_in_training_only(model: Family) -> None:
    strong(model, LoraSettings(rank=4, module_dropout=0.5, include=[QUERY]))
    inputs = torch.randn(2, 5, adapter_layers(model)[QUERY_KEY].down.shape[1])
    whole = change_of(model, QUERY, inputs)
    model.denoiser.train()
    torch.manual_seed(0)
    changes = [change_of(model, QUERY, inputs) for _ in range(40)]
    dropped = sum(not bool(change.any()) for change in changes)
    assert 8 < dropped < 32
    assert all(torch.equal(change, whole) for change in changes if change.any())
    model.denoiser.eval()
    assert torch.equal(change_of(model, QUERY, inputs), whole)


def test_norms_come_down_to_the_limit_after_an_update(model: Family) -> None:
    settings = LoraSettings(rank=4, alpha=2, conv_rank=2, target="full", train="both", max_norm=0.5)
    trainables = add_adapters(model, settings, seed=1)
    for number, item in enumerate(trainables):
        if item.is_up:  # every second layer is far above the limit, the others far below
            size = 1.0 if number % 4 == 1 else 1e-3
            item.parameter.data.normal_(0, size, generator=torch.Generator().manual_seed(number))
    before = {key: layer.delta(torch.float64) for key, layer in adapter_layers(model).items()}
    above = {key for key, delta in before.items() if delta.norm() > 0.5}
    assert 0 < len(above) < len(before)
    train = TrainSettings(learning_rate=0.0, optimizer="sgd")
    limit = norm_limiter(model, settings)
    learner = Learning(parameter_groups(trainables, train), train, 2, scaled=False, limit_norms=limit)
    learner.backward(sum(item.parameter.sum() for item in trainables))
    assert int(learner.apply_gradients(learner.advance())[2]) == len(above)
    for key, layer in adapter_layers(model).items():
        factor = 0.5 / before[key].norm() if key in above else 1.0
        torch.testing.assert_close(layer.delta(torch.float64), before[key] * factor, rtol=1e-5, atol=1e-7)


def test_without_a_limit_nothing_is_limited(model: Family) -> None:
    assert norm_limiter(model, LoraSettings()) is None


def test_rates_by_pattern_reach_the_groups_and_the_first_match_counts(model: Family) -> None:
    settings = LoraSettings(
        rank=2, train="both", block_lrs={r"^unet\.mid_block": 0.0, r"^unet\..*attn1": 0.5, "^text_encoder": 2.0}
    )
    train = TrainSettings(learning_rate=1e-3, text_encoder_learning_rate=1e-4)
    groups = parameter_groups(add_adapters(model, settings, seed=1), train)
    rates = {group.name: group.learning_rate for group in groups}
    expected = {"unet": 1e-3, "unet x0": 0.0, "unet x0.5": 5e-4, "text_encoder x2": 2e-4}
    assert rates == pytest.approx(expected)
    members = {id(parameter): group.name for group in groups for parameter in group.parameters}
    for name, layer in peft_layers(model):
        wanted = "unet x0" if name.startswith("mid_block") else "unet x0.5" if "attn1" in name else "unet"
        assert members[id(layer.lora_A["default"].weight)] == members[id(layer.lora_B["default"].weight)] == wanted


def test_a_rank_of_its_own_for_the_text_encoder(model: Family) -> None:
    add_adapters(model, LoraSettings(rank=8, alpha=4, train="both", block_ranks={"^text_encoder": 2}), seed=1)
    found = {(key.startswith("lora_te_"), layer.rank, layer.scale) for key, layer in adapter_layers(model).items()}
    assert found == {(True, 2, 0.5), (False, 8, 0.5)}
