"""Builder, third part: the UNet, trained on cached latents with the text encoder frozen (v-prediction)."""

from __future__ import annotations

import itertools
import logging
import math
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DDPMScheduler, UNet2DConditionModel
from PIL import Image
from torch import Tensor
from torch.nn import functional
from transformers import CLIPTextModel, CLIPTokenizer

from trainer.demo import figures, training, world
from trainer.demo.build_text import WIDTH as TEXT_WIDTH
from trainer.demo.build_text import token_ids
from trainer.demo.build_vae import to_tensor

logger = logging.getLogger(__name__)

BATCH = 32
RATE = 1e-3
EMA_DECAY = 0.998
FIRST_PHASE_STEPS = 1800
"""At first: single shapes alone, timesteps mostly late. Then figures too, and all timesteps alike."""
SHARD_PICTURES = 4096
SHARDS, FIGURE_SHARDS = 12, 2
SHARD_EVERY_STEPS = 500
"""A new shard of pictures joins the pool this often, until `SHARDS` are in."""
FIGURES_PER_BATCH = 8
SAVE_EVERY_STEPS = 200
LATE_SHARE, LATE_FROM = 0.6, 400
"""In the first phase this share of the timesteps is drawn from `LATE_FROM` up: what a caption decides is decided at
high noise. Drawing all of them alike afterwards teaches clean edges."""
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


def figure_backgrounds(seed: int, number: int) -> list[str]:
    """The background colours of figure shard `number`."""
    rng = random.Random(f"{seed} figures {number}")
    return [rng.choice(list(world.COLOURS)) for _ in range(SHARD_PICTURES)]


@torch.no_grad()
def encoded(vae: AutoencoderKL, path: Path, pictures: Iterator[Image.Image]) -> Tensor:
    """Latents of one shard, (4096, 4, 16, 16) float16, scaled; drawn and encoded once, then read from `path`."""
    if not path.exists():
        parts = []
        while batch := list(itertools.islice(pictures, 64)):
            pixels = to_tensor(np.stack([np.asarray(picture) for picture in batch])).to(vae.device)
            parts.append(vae.encode(pixels).latent_dist.mode().half().cpu())
        training.save_state(path, {"latents": torch.cat(parts) * vae.config.scaling_factor})
    return torch.load(path, weights_only=True)["latents"]


class Pool:
    """The pictures to train on; grows by a shard every `SHARD_EVERY_STEPS` steps, and by figures in phase two."""

    def __init__(self, vae: AutoencoderKL, folder: Path, seed: int) -> None:
        self.vae, self.folder, self.seed = vae, folder, seed
        self.shards: list[Tensor] = []
        self.scenes: list[world.Scene] = []
        self.figure_shards: list[Tensor] = []
        self.figures: list[str] = []

    def grow(self, step: int) -> None:
        """Makes the pool as large as step number `step` wants it, from the step number alone."""
        while len(self.shards) < min(SHARDS, 1 + step // SHARD_EVERY_STEPS):
            number = len(self.shards)
            scenes, rng = shard_scenes(self.seed, number), random.Random(f"{self.seed} pixels {number}")
            pictures = (world.draw(scene, rng) for scene in scenes)
            self.shards.append(encoded(self.vae, self.folder / f"latents_{number:02d}.pt", pictures))
            self.scenes += scenes
        while step >= FIRST_PHASE_STEPS and len(self.figure_shards) < FIGURE_SHARDS:
            number = len(self.figure_shards)
            grounds, rng = figure_backgrounds(self.seed, number), random.Random(f"{self.seed} figure pixels {number}")
            pictures = (figures.draw_figure(ground, rng) for ground in grounds)
            self.figure_shards.append(encoded(self.vae, self.folder / f"figures_{number:02d}.pt", pictures))
            self.figures += grounds

    def draw(self, step: int) -> tuple[Tensor, list[str]]:
        """One batch: latents (32, 4, 16, 16) float32, scaled, and freshly worded captions."""
        rng = random.Random(f"{self.seed} batch {step}")
        figure_count = FIGURES_PER_BATCH if step >= FIRST_PHASE_STEPS else 0
        chosen = [rng.randrange(len(self.scenes)) for _ in range(BATCH - figure_count)]
        latents = [self.shards[index // SHARD_PICTURES][index % SHARD_PICTURES] for index in chosen]
        captions = [world.training_caption(self.scenes[index], rng).text for index in chosen]
        for _ in range(figure_count):
            index = rng.randrange(len(self.figures))
            latents.append(self.figure_shards[index // SHARD_PICTURES][index % SHARD_PICTURES])
            captions.append(figures.figure_caption(self.figures[index], rng))
        return torch.stack(latents).float(), captions


def draw_timesteps(count: int, step: int, generator: torch.Generator) -> Tensor:
    """(count,) int64 in 0..999 for training step number `step`; see `LATE_SHARE`."""
    late = torch.rand(count, generator=generator) < LATE_SHARE
    everywhere = torch.randint(TIMESTEPS, (count,), generator=generator)
    if step >= FIRST_PHASE_STEPS:
        return everywhere
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
    started, recent_loss = time.process_time(), math.nan
    while run.step < steps and time.monotonic() < deadline:
        pool.grow(run.step)
        loss = _loss(unet, encoder, tokenizer, noise_schedule, pool.draw(run.step), seed, run.step)
        run.advance(loss, steps)
        recent_loss = loss.item() if math.isnan(recent_loss) else 0.99 * recent_loss + 0.01 * loss.item()
        if run.step % SAVE_EVERY_STEPS == 0:
            report = (run.step, steps, run.step * BATCH, recent_loss, time.process_time() - started)
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
    timesteps = draw_timesteps(len(latents), step, generator)
    noisy = noise_schedule.add_noise(latents, noise, timesteps).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        text = encoder(token_ids(tokenizer, captions).to(encoder.device)).last_hidden_state
    target = noise_schedule.get_velocity(latents, noise, timesteps).to(unet.device)
    return functional.mse_loss(unet(noisy.to(unet.device), timesteps.to(unet.device), text).sample, target)
