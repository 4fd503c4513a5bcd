"""Builder, third part: the UNet, trained on cached latents with the text encoder frozen (v-prediction)."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DDPMScheduler, UNet2DConditionModel
from torch import Tensor
from torch.nn import functional
from transformers import CLIPTextModel, CLIPTokenizer

from trainer.demo import training, world
from trainer.demo.build_text import WIDTH as TEXT_WIDTH
from trainer.demo.build_text import token_ids
from trainer.demo.build_vae import to_tensor

logger = logging.getLogger(__name__)

BATCH = 32
RATE = 1e-3
EMA_DECAY = 0.998
SHARD_PICTURES = 4096
SHARDS = 12
SHARD_EVERY_STEPS = 500
"""A new shard of pictures joins the pool this often, until `SHARDS` are in."""
SAVE_EVERY_STEPS = 200
LATE_SHARE, LATE_FROM = 0.6, 400
"""This share of the timesteps is drawn from `LATE_FROM` up: what a caption decides is decided at high noise."""
TIMESTEPS = 1000
LATENT_SIDE = world.SIDE_PX // 8


def new_unet() -> UNet2DConditionModel:
    """An untrained UNet of Stable Diffusion 1's topology, 5.5 M parameters; every residual branch starts at zero."""
    unet = UNet2DConditionModel(
        sample_size=LATENT_SIDE,
        in_channels=4,
        out_channels=4,
        block_out_channels=(32, 64, 96, 96),
        layers_per_block=2,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=2,
        norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    )
    for name, module in unet.named_modules():
        if name.endswith((".conv2", ".proj_out")) or name == "conv_out":
            torch.nn.init.zeros_(module.weight)
            torch.nn.init.zeros_(module.bias)
    return unet.to(memory_format=torch.channels_last)


def new_scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise schedule, for v-prediction."""
    return DDIMScheduler(
        num_train_timesteps=TIMESTEPS,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def shard_scenes(seed: int, number: int) -> list[world.Scene]:
    """What the pictures of shard `number` show."""
    rng = random.Random(f"{seed} scenes {number}")
    return [world.sample_scene(rng) for _ in range(SHARD_PICTURES)]


@torch.no_grad()
def shard_latents(vae: AutoencoderKL, folder: Path, seed: int, number: int) -> Tensor:
    """Latents of one shard, (4096, 4, 16, 16) float16, scaled; drawn and encoded once, then read from `folder`."""
    path = folder / f"latents_{number:02d}.pt"
    if not path.exists():
        rng = random.Random(f"{seed} pixels {number}")
        scenes = shard_scenes(seed, number)
        parts = []
        for first in range(0, SHARD_PICTURES, 64):
            pictures = np.stack([np.asarray(world.draw(scene, rng)) for scene in scenes[first : first + 64]])
            parts.append(vae.encode(to_tensor(pictures)).latent_dist.mode().half())
        training.save_state(path, {"latents": torch.cat(parts) * vae.config.scaling_factor})
    return torch.load(path, weights_only=True)["latents"]


class Pool:
    """The pictures to train on; grows by a shard every `SHARD_EVERY_STEPS` steps."""

    def __init__(self, vae: AutoencoderKL, folder: Path, seed: int) -> None:
        self.vae, self.folder, self.seed = vae, folder, seed
        self.shards: list[Tensor] = []
        self.scenes: list[world.Scene] = []

    def grow(self, step: int) -> None:
        """Makes the pool as large as step number `step` wants it, from the step number alone."""
        while len(self.shards) < min(SHARDS, 1 + step // SHARD_EVERY_STEPS):
            number = len(self.shards)
            self.shards.append(shard_latents(self.vae, self.folder, self.seed, number))
            self.scenes += shard_scenes(self.seed, number)

    def draw(self, step: int) -> tuple[Tensor, list[str]]:
        """One batch: latents (32, 4, 16, 16) float32, scaled, and freshly worded captions."""
        rng = random.Random(f"{self.seed} batch {step}")
        chosen = [rng.randrange(len(self.scenes)) for _ in range(BATCH)]
        latents = torch.stack([self.shards[index // SHARD_PICTURES][index % SHARD_PICTURES] for index in chosen])
        return latents.float(), [world.training_caption(self.scenes[index], rng).text for index in chosen]


def draw_timesteps(count: int, generator: torch.Generator) -> Tensor:
    """(count,) int64 in 0..999, `LATE_SHARE` of them from `LATE_FROM` up."""
    late = torch.rand(count, generator=generator) < LATE_SHARE
    everywhere = torch.randint(TIMESTEPS, (count,), generator=generator)
    return torch.where(late, torch.randint(LATE_FROM, TIMESTEPS, (count,), generator=generator), everywhere)


def train(
    unet: UNet2DConditionModel,
    encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    pool: Pool,
    path: Path,
    seed: int,
    steps: int,
    evaluate: Callable[[int], None],
    evaluate_every: int,
    deadline: float,
) -> bool:
    """Trains `unet` in place to step `steps`, ending with its averaged weights; continues from the state at `path`.

    Args:
        evaluate: called with the step number, the averaged weights in place, every `evaluate_every` steps.
        deadline: `time.monotonic()` value after which the state is saved and the training left.

    Returns:
        Whether step `steps` was reached.
    """
    run = training.Run(path, {"model": unet}, RATE, weight_decay=1e-2, ema_decay=EMA_DECAY)
    noise_schedule = DDPMScheduler.from_config(new_scheduler().config)
    started = time.process_time()
    while run.step < steps and time.monotonic() < deadline:
        pool.grow(run.step)
        loss = _loss(unet, encoder, tokenizer, noise_schedule, pool.draw(run.step), seed, run.step)
        run.advance(loss, steps)
        if run.step % SAVE_EVERY_STEPS == 0:
            report = (run.step, steps, run.step * BATCH, loss.item(), time.process_time() - started)
            logger.info("unet step %d/%d (%d pictures) loss %.4f cpu %.0f s", *report)
            run.save()
        if run.step % evaluate_every == 0 and run.step < steps:
            with run.ema.applied():
                evaluate(run.step)
    run.save()
    run.finish()
    return run.step >= steps


def _loss(
    unet: UNet2DConditionModel,
    encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    noise_schedule: DDPMScheduler,
    batch: tuple[Tensor, list[str]],
    seed: int,
    step: int,
) -> Tensor:
    """Mean squared error of the predicted velocity (Salimans and Ho 2022, appendix D)."""
    latents, captions = batch
    generator = training.step_generator(seed, "unet", step)
    noise = torch.randn(latents.shape, generator=generator)
    timesteps = draw_timesteps(len(latents), generator)
    noisy = noise_schedule.add_noise(latents, noise, timesteps).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        text = encoder(token_ids(tokenizer, captions)).last_hidden_state
    target = noise_schedule.get_velocity(latents, noise, timesteps)
    return functional.mse_loss(unet(noisy, timesteps, text).sample, target)
