"""Steps of the recipe on the demo model, without a run around them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainer.conditioning import caption_encoder
from trainer.config import Config
from trainer.data.text_plan import plan_texts
from trainer.data.training_set import Batch
from trainer.demo import MODEL_DIR
from trainer.families import load_family
from trainer.learning import Learning
from trainer.lora.adapter import add_adapters, norm_limiter
from trainer.parameter_groups import Trainable, parameter_groups
from trainer.quantize import quantize_denoiser
from trainer.recipe import Ingredients
from trainer.runs.events import Events
from trainer.together import set_training_mode

CPU = torch.device("cpu")


class Remembering(Learning):
    """Keeps each step's gradients, by the parameter."""

    def apply_gradients(self, told: Tensor) -> Tensor:
        self.gradients = {parameter: parameter.grad for parameter in self._parameters if parameter.grad is not None}
        return super().apply_gradients(told)

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        return self._optimizer


def batch_of(index: int) -> Batch:
    """Two random pictures; ``sks`` is the trigger word."""
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(100 + index))
    sizes = torch.zeros(2, 6, dtype=torch.int64)
    return Batch(latents=latents, captions=["a sks", "sks, blue"], loss_weights=torch.ones(2), sizes=sizes, paths=[])


def fill(trainables: list[Trainable], deviation: float = 0.05) -> None:
    """Values that are not zero, or half of the factors would have no gradient."""
    for number, trainable in enumerate(trainables):
        trainable.parameter.data.normal_(std=deviation, generator=torch.Generator().manual_seed(number))


def made_of(config: Config) -> tuple[Ingredients, Remembering, list[Trainable]]:
    """What a step needs, as the recipe makes it, with filled adapters."""
    family = load_family(config.model, device=CPU, dtype=torch.float32)
    quantize_denoiser(family.denoiser, config.model.quantize)
    trainables = add_adapters(family, config.lora, seed=1)
    fill(trainables)
    set_training_mode(family, config)
    encode = caption_encoder(family, config, plan_texts(config, [], False, 0), MODEL_DIR, Events(), lambda: None)
    groups = parameter_groups(trainables, config.train)
    learning = Remembering(groups, config.train, 10, scaled=False, limit_norms=norm_limiter(family, config.lora))
    return Ingredients(config, family, encode, CPU, torch.float32, family.alphas_cumprod), learning, trainables


def values(trainables: list[Trainable]) -> list[nn.Parameter]:
    return [trainable.parameter for trainable in trainables]
