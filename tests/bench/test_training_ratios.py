"""Training here beside the same step as a user of diffusers writes it, on one thread of a CPU.

Both take turns in one process, and the quickest of each is compared in processor time: other work on the machine
slows both. They are 2.1 (`attention`), 2.25 (`attention_ff`) and 4.1 (the convolution).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import pytest
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from peft import LoraConfig
from torch import nn
from torch.nn import functional

from tests.recipe.single_steps import made_of
from trainer.config_io import parse_config
from trainer.data.training_set import Batch
from trainer.demo import MODEL_DIR
from trainer.families.convolutions import LargeConv2d, use_products_on_cpu
from trainer.processor_graph import ProcessorGraph
from trainer.recipe import train_step
from trainer.step_calls import Calls

RANK, RATE = 8, 1e-4
LATENTS = (1, 4, 16, 16)
"""Of a picture of 128 px."""
TEXTS = (1, 77, 64)
LAYERS = {
    "attention": ["to_q", "to_k", "to_v", "to_out.0"],
    "attention_ff": ["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out"],
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def quickest_by_turns(works: Sequence[Callable[[], object]], rounds: int) -> list[float]:
    """Processor seconds of each piece of work at its quickest; the first two rounds are for warming up."""
    times: list[list[float]] = [[] for _ in works]
    for _ in range(rounds + 2):
        for work, taken in zip(works, times, strict=True):
            begun = time.process_time()
            work()
            taken.append(time.process_time() - begun)
    return [min(taken[2:]) for taken in times]


def plain_step(target: str) -> Callable[[], object]:
    """A step of diffusers' text-to-image LoRA script on the demo's UNet, latents and texts given."""
    unet = UNet2DConditionModel.from_pretrained(MODEL_DIR / "unet").float().requires_grad_(False)
    unet.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, init_lora_weights="gaussian", target_modules=LAYERS[target]))
    unet.train()
    schedule = DDPMScheduler.from_pretrained(MODEL_DIR / "scheduler")
    layers = [parameter for parameter in unet.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(layers, lr=RATE, weight_decay=1e-2)
    latents, texts = torch.randn(LATENTS), torch.randn(TEXTS)

    def step() -> float:
        noise = torch.randn_like(latents)
        timesteps = torch.randint(0, schedule.config.num_train_timesteps, (1,))
        noisy = schedule.add_noise(latents, noise, timesteps)
        prediction = unet(noisy, timesteps, texts, return_dict=False)[0]
        target = schedule.get_velocity(latents, noise, timesteps)
        loss = functional.mse_loss(prediction.float(), target.float())
        loss.backward()
        nn.utils.clip_grad_norm_(layers, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


def our_step(target: str) -> Callable[[], object]:
    """The recipe's step on the same model, replayed from its second on."""
    settings = {"lora": {"rank": RANK, "alpha": RANK, "target": target, "train": "unet"}}
    ingredients, learning, _ = made_of(parse_config({**settings, "train": {"learning_rate": RATE}}))
    given = Batch(torch.randn(LATENTS), ["a red circle"], torch.ones(1), torch.zeros(1, 6, dtype=torch.int64), [])
    calls = Calls(learning, lambda: ProcessorGraph)
    return lambda: train_step(ingredients, learning, lambda index: given, calls).tolist()


@pytest.mark.parametrize("target", LAYERS)
def test_a_step_of_a_small_model_is_quicker_than_the_plain_one(target: str) -> None:
    plain, ours = quickest_by_turns([plain_step(target), our_step(target)], rounds=12)
    assert plain / ours >= 1.5


@pytest.mark.parametrize(("batch", "side"), [(1, 4), (4, 2)])
def test_a_large_convolution_over_few_pixels_is_quicker_than_torch_has_it(batch: int, side: int) -> None:
    """2560 to 1280 channels over 16 pixels, both ways."""
    plain = nn.Conv2d(2560, 1280, 3, padding=1).requires_grad_(False)
    product = nn.Conv2d(2560, 1280, 3, padding=1).requires_grad_(False)
    use_products_on_cpu(product)
    assert type(product) is LargeConv2d

    def both_ways(layer: nn.Module) -> Callable[[], object]:
        pixels = torch.randn(batch, 2560, side, side, requires_grad=True)
        return lambda: layer(pixels).sum().backward()

    by_torch, ours = quickest_by_turns([both_ways(plain), both_ways(product)], rounds=5)
    assert by_torch / ours >= 1.5
