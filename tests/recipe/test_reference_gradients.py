"""One step's LoRA gradients against plain diffusers and PEFT: both prediction types, accumulation, preservation."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from peft import LoraConfig
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from tests.recipe.tiny_runs import train_here
from trainer.conditioning import caption_encoder
from trainer.config import Config
from trainer.data.text_plan import plan_texts
from trainer.data.training_set import Batch
from trainer.demo import MODEL_DIR
from trainer.devices import seeded_generator
from trainer.errors import UserError
from trainer.families import load_family
from trainer.learning import Learning
from trainer.lora.adapter import add_adapters
from trainer.parameter_groups import parameter_groups
from trainer.recipe import Ingredients, train_step
from trainer.runs.events import Events
from trainer.runs.store import Workspace

SEED, GAMMA, WEIGHT = 5, 5.0, 0.7
CAPTIONS = ["a big sks circle", "a small blue square"]
PLAIN = ["a big red circle", "red"]  # the second has no trigger


class Remembering(Learning):
    """Keeps each step's gradients."""

    def apply_gradients(self, told: Tensor) -> Tensor:
        self.gradients = [parameter.grad.clone() for parameter in self._parameters if parameter.grad is not None]
        return super().apply_gradients(told)


def latents_of(index: int) -> Tensor:
    return torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(100 + index))


def batch_of(index: int) -> Batch:
    return Batch(
        latents=latents_of(index),
        captions=CAPTIONS,
        loss_weights=torch.tensor([1.0, 0.5]),
        sizes=torch.zeros(2, 6, dtype=torch.int64),
        paths=[],
    )


def up_values(parameter: nn.Parameter, number: int) -> Tensor:
    """Up factors that are not zero, or the down factors would have no gradient."""
    return torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)) * 0.05


def ours(config: Config, fresh: bool = False) -> tuple[list[Tensor], float, Learning, Ingredients]:
    cpu = torch.device("cpu")
    family = load_family(
        config.model, device=cpu, dtype=torch.float32, prediction_type=config.loss.prediction_type, events=Events()
    )
    trainables = add_adapters(family, config.lora, seed=SEED)
    for number, trainable in enumerate(trainables):
        if trainable.is_up and not fresh:
            trainable.parameter.data = up_values(trainable.parameter, number)
    encode = caption_encoder(family, config, plan_texts(config, [], False, 0), MODEL_DIR, Events(), lambda: None)
    ingredients = Ingredients(config, family, encode, cpu, torch.float32, family.alphas_cumprod)
    learning = Remembering(parameter_groups(trainables, config.train), config.train, 10, scaled=False)
    family.denoiser.train()
    loss = train_step(ingredients, learning, batch_of).tolist()[0]
    return learning.gradients, loss, learning, ingredients


def with_lora(model: Any, part: str, layers: list[str], first: int) -> list[nn.Parameter]:
    model.requires_grad_(False)
    model.add_adapter(LoraConfig(r=4, lora_alpha=2, target_modules=layers))
    factors: list[nn.Parameter] = []
    for name, layer in model.named_modules():
        if hasattr(layer, "lora_A"):
            down, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight
            bound = 1 / math.sqrt(down[0].numel())
            down.data.uniform_(-bound, bound, generator=seeded_generator(SEED, "lora", part, name))
            up.data = up_values(up, first + len(factors) + 1)
            factors += [down, up]
    return factors


def reference(prediction_type: str, accumulation: int, preserve: bool) -> tuple[list[Tensor], float]:
    unet = UNet2DConditionModel.from_pretrained(MODEL_DIR / "unet", torch_dtype=torch.float32)
    text = CLIPTextModel.from_pretrained(MODEL_DIR / "text_encoder", dtype=torch.float32)
    tokenizer = CLIPTokenizer.from_pretrained(MODEL_DIR / "tokenizer")
    scheduler = DDPMScheduler.from_pretrained(MODEL_DIR / "scheduler")
    plain_unet, plain_text = copy.deepcopy(unet), copy.deepcopy(text)
    factors = with_lora(unet, "unet", ["to_q", "to_k", "to_v", "to_out.0"], 0)
    factors += with_lora(text, "text_encoder", ["q_proj", "k_proj", "v_proj", "out_proj"], len(factors))

    def states(encoder: Any, captions: list[str]) -> Tensor:
        return encoder(tokenizer(captions, padding="max_length", return_tensors="pt").input_ids).last_hidden_state

    total = torch.zeros(())
    for index in range(accumulation):
        x = latents_of(index)
        noise = torch.randn(x.shape, generator=seeded_generator(SEED, index, "noise"))
        t = torch.randint(0, 1000, (2,), generator=seeded_generator(SEED, index, "timesteps"))
        noisy = scheduler.add_noise(x, noise, t)
        prediction = unet(noisy, t, states(text, CAPTIONS)).sample
        snr = scheduler.alphas_cumprod[t] / (1 - scheduler.alphas_cumprod[t])
        if prediction_type == "epsilon":
            target, weights = noise, snr.clamp(max=GAMMA) / snr
        else:
            target, weights = scheduler.get_velocity(x, noise, t), snr.clamp(max=GAMMA) / (snr + 1)
        each = (prediction - target).square().mean((1, 2, 3)) * weights * torch.tensor([1.0, 0.5])
        loss = each.mean()
        if preserve:
            with torch.no_grad():
                before = plain_unet(noisy, t, states(plain_text, PLAIN)).sample
            loss = loss + WEIGHT * (unet(noisy, t, states(text, PLAIN)).sample - before).square().mean()
        (loss / accumulation).backward()
        total += loss.detach() / accumulation
    return [factor.grad for factor in factors if factor.grad is not None], float(total)


def settings(config_of: Callable[..., Config], prediction_type: str, accumulation: int, preserve: bool) -> Config:
    return config_of(
        lora__target="attention",
        lora__train="both",
        loss__min_snr_gamma=GAMMA,
        loss__prediction_type=prediction_type,
        loss__preserve={"class_word": "red", "weight": WEIGHT} if preserve else None,
        output__trigger="sks",
        train__seed=SEED,
        train__max_grad_norm=0,
        train__gradient_accumulation_steps=accumulation,
    )


@pytest.mark.parametrize(
    ("prediction_type", "accumulation", "preserve"),
    list(itertools.product(["epsilon", "v_prediction"], [1, 2], [False, True])),
)
def test_gradients_are_those_of_plain_diffusers(
    config_of: Callable[..., Config], prediction_type: str, accumulation: int, preserve: bool
) -> None:
    gradients, loss, *_ = ours(settings(config_of, prediction_type, accumulation, preserve))
    expected, expected_loss = reference(prediction_type, accumulation, preserve)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert len(gradients) == len(expected) > 100
    # The same products, summed in another order; over one token queries and keys have no gradient but roundings
    nothing = 1e-7 * max(float(theirs.norm()) for theirs in expected)
    for mine, theirs in zip(gradients, expected, strict=True):
        assert float(theirs.norm()) > 0
        assert float((mine - theirs).norm()) < 1e-4 * float(theirs.norm()) + nothing


def test_what_is_preserved_drifts_less(config_of: Callable[..., Config]) -> None:
    """Some steps with a large rate: how far predictions for the plain and for the trained captions moved."""
    moved = []
    for preserve in (False, True):
        config = settings(config_of, "v_prediction", 1, preserve)
        config.train.learning_rate = 5e-3
        if config.loss.preserve is not None:
            config.loss.preserve.weight = 20.0
        _, _, learning, made = ours(config, fresh=True)
        for _ in range(11):
            train_step(made, learning, batch_of)
        now = [predictions(made, captions) for captions in (PLAIN, CAPTIONS)]
        for part in (made.family.denoiser, made.family.text_encoders["text_encoder"]):
            part.disable_adapters()  # type: ignore[operator]
        before = [predictions(made, captions) for captions in (PLAIN, CAPTIONS)]
        moved.append([float((a - b).norm() / b.norm()) for a, b in zip(now, before, strict=True)])
    (plain_off, _), (plain_on, trained_on) = moved
    assert 0 < plain_on < 0.6 * plain_off, moved
    assert trained_on > plain_on, moved


@torch.no_grad()
def predictions(made: Ingredients, captions: list[str]) -> Tensor:
    t = torch.tensor([300, 700])
    return made.family.predict(latents_of(50), t, made.encode(captions), torch.zeros(2, 6, dtype=torch.int64))


def test_two_preserving_runs_are_the_same_and_differ_from_a_plain_one(workspace: Workspace, config_of) -> None:
    changes = {"train__max_steps": 2, "output__trigger": "red", "lora__dropout": 0.3}
    preserve = {"class_word": "blue"}
    runs = [workspace.create_run(config_of(**changes, loss__preserve=value)) for value in (preserve, preserve, None)]
    for run in runs:
        train_here(run)
    first, second, plain = (run.output_path.read_bytes() for run in runs)
    assert first == second != plain


def test_a_setting_for_another_prediction_type_ends_the_run_at_once(workspace: Workspace, config_of) -> None:
    config = config_of(loss__prediction_type="epsilon", loss__scale_v_pred_loss_like_noise_pred=True)
    with pytest.raises(UserError, match="v-prediction"):
        train_here(workspace.create_run(config))
