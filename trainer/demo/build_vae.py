"""Builder, first part: the AutoencoderKL (8 x 8 px to 4 latents), then its decoder alone with the encoder frozen.

Freezing the encoder lets the latents be computed once, for the UNet, while the decoder still improves.
"""

from __future__ import annotations

import logging
import random
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image, ImageDraw
from torch import Tensor

from trainer.demo import concepts, figures, training, world

logger = logging.getLogger(__name__)

PICTURES = 6000
HELD_OUT = 32
SCALING_PICTURES = 256
SAVE_EVERY_STEPS = 250
CROP_PX = 64
CROPS_PER_STEP = 6
RATE = 1e-3
EMA_DECAY = 0.995
KL_WEIGHT = 3e-4
GRADIENT_WEIGHT = 0.25
REFERENCE = 3.0
"""Value of the two constant channels that let GroupNorm keep absolute colour; see `linear_init`."""


def new_vae() -> AutoencoderKL:
    """An untrained AutoencoderKL, 0.7 M parameters, that already works as a block-average autoencoder."""
    vae = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 16, 32, 64),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=1,
        sample_size=world.SIDE_PX,
    )
    linear_init(vae)
    return vae


@torch.no_grad()
def linear_init(vae: AutoencoderKL) -> None:
    """Starts `vae` as a near-linear block-average autoencoder, from which it trains many times faster.

    GroupNorm removes absolute colour, and a small VAE spends its first thousands of steps winning it back. So the
    residual branches start at zero, RGB travels in channels 0 to 2, two channels hold the constants +-`REFERENCE` for
    GroupNorm to measure against, and SiLU works on its linear side (bias +2, taken off again by the next conv).
    """
    for name, module in vae.named_modules():
        if name.endswith(("conv2", "to_out.0")):
            module.weight.zero_()
            module.bias.zero_()
        elif name.endswith("conv_shortcut"):
            _set_identity(module, "keep")
            _set_reference(module)
        elif name.endswith("downsamplers.0.conv"):
            _set_identity(module, "average")
        elif name.endswith("upsamplers.0.conv"):
            _set_identity(module, "smooth")
    for part in (vae.encoder, vae.decoder):
        _set_identity(part.conv_in, "keep", channels=3)
        _set_reference(part.conv_in)
        part.conv_norm_out.bias.fill_(2.0)
        _set_identity(part.conv_out, "keep", channels=3)
        part.conv_out.bias[:3] = -2
    latent_channels = vae.config.latent_channels
    eye = torch.eye(latent_channels)[:, :, None, None]
    vae.quant_conv.weight.zero_()[:latent_channels, :latent_channels] = eye
    vae.quant_conv.bias.zero_()[latent_channels:] = -4
    vae.post_quant_conv.weight.copy_(eye)
    vae.post_quant_conv.bias.zero_()


def _set_identity(conv: torch.nn.Conv2d, kernel: str, channels: int | None = None) -> None:
    """Makes output channel i copy input channel i, for the first `channels`; the rest keep 0.3 of their start."""
    weight, bias = conv.weight, conv.bias
    assert bias is not None
    weight.mul_(0.3)
    bias.zero_()
    for channel in range(channels or min(weight.shape[:2])):
        weight[channel] = 0
        if kernel == "average":
            weight[channel, channel, :2, :2] = 0.25
        elif kernel == "smooth":
            line = torch.tensor([0.25, 0.5, 0.25])
            weight[channel, channel] = line[:, None] * line[None]
        else:
            weight[channel, channel, weight.shape[2] // 2, weight.shape[3] // 2] = 1


def _set_reference(conv: torch.nn.Conv2d) -> None:
    assert conv.bias is not None
    conv.bias[-2], conv.bias[-1] = REFERENCE, -REFERENCE


def vae_picture(rng: random.Random) -> Image.Image:
    """One picture for the autoencoder: the world, neon glow, faces of any colours, or abstract shapes."""
    kind = rng.random()
    scene = world.sample_scene(rng)
    if kind < 0.60:
        return world.draw(scene, rng)
    if kind < 0.72:
        return concepts.draw_neon(scene, rng)
    return figures.draw_face(figures.palette_colour(rng), rng) if kind < 0.88 else _abstract(rng)


def draw_pictures(path: Path, seed: int) -> np.ndarray:
    """Draws the training pictures once into `path`. Returns them as (N, 128, 128, 3) uint8, memory-mapped."""
    if not path.exists():
        rng = random.Random(seed)
        pictures = np.stack([np.asarray(vae_picture(rng)) for _ in range(PICTURES)])
        temporary = path.with_suffix(".part.npy")
        np.save(temporary, pictures)
        temporary.replace(path)
    return np.load(path, mmap_mode="r")


def to_tensor(pictures: np.ndarray) -> Tensor:
    """(N, H, W, 3) uint8 pictures to (N, 3, H, W) float32 in -1..1."""
    return torch.from_numpy(np.array(pictures)).permute(0, 3, 1, 2).float().div(127.5).sub(1).contiguous()


@torch.no_grad()
def psnr_db(vae: AutoencoderKL, pictures: Tensor) -> float:
    """Mean peak signal-to-noise ratio in dB of pictures (N, 3, H, W) in -1..1 sent through the autoencoder."""
    values = []
    for batch in pictures.to(vae.device).split(16):
        back = vae.decode(vae.encode(batch).latent_dist.mode()).sample.clamp(-1, 1)
        error = (back - batch).square().mean(dim=(1, 2, 3)).clamp_min(1e-8)
        values.append(10 * torch.log10(4 / error))
    return torch.cat(values).mean().item()


def base_pictures(seed: int, count: int) -> Tensor:
    """Held-out pictures of the world, (count, 3, 128, 128) in -1..1."""
    rng = random.Random(f"held out {seed}")
    return to_tensor(np.stack([np.asarray(world.draw(world.sample_scene(rng), rng)) for _ in range(count)]))


def train(vae: AutoencoderKL, phase: str, pictures: np.ndarray, path: Path, seed: int, steps: int) -> None:
    """Trains `vae` in place to step `steps`, ending with averaged weights; continues from the state at `path`.

    Args:
        phase: `vae` trains everything and sets the scaling factor; `decoder` leaves the encoder as it is.
    """
    if phase == "decoder":
        vae.encoder.requires_grad_(False)
        vae.quant_conv.requires_grad_(False)
    run = training.Run(path, {"model": vae}, RATE, weight_decay=1e-4, ema_decay=EMA_DECAY)
    held_out = base_pictures(seed, HELD_OUT)
    started = time.process_time()
    while run.step < steps:
        generator = training.step_generator(seed, phase, run.step)
        loss = _loss(vae, _crops(pictures, generator).to(vae.device), generator)
        run.advance(loss, steps)
        if run.step % SAVE_EVERY_STEPS == 0 or run.step == steps:
            with run.ema.applied():
                quality = psnr_db(vae, held_out)
            report = (phase, run.step, steps, loss.item(), quality, time.process_time() - started)
            logger.info("%s step %d/%d loss %.4f psnr %.2f dB cpu %.0f s", *report)
            run.save()
    run.finish()
    if phase == "vae":
        vae.register_to_config(scaling_factor=_scaling_factor(vae, seed))


def _loss(vae: AutoencoderKL, batch: Tensor, generator: torch.Generator) -> Tensor:
    """L1 + MSE + 0.25 * L1 of the picture's gradient + 3e-4 * KL, each a mean over elements."""
    latents = vae.encode(batch).latent_dist
    sample = latents.mean + latents.std * torch.randn(latents.mean.shape, generator=generator).to(vae.device)
    error = vae.decode(sample).sample - batch
    gradient = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    divergence = 0.5 * (latents.mean.square() + latents.var - 1 - latents.logvar).mean()
    return error.abs().mean() + error.square().mean() + GRADIENT_WEIGHT * gradient + KL_WEIGHT * divergence


def _crops(pictures: np.ndarray, generator: torch.Generator) -> Tensor:
    """Random crops (CROPS_PER_STEP, 3, 64, 64), a half of the batches mirrored, a third with channels exchanged."""
    chosen = torch.randint(len(pictures), (CROPS_PER_STEP,), generator=generator).tolist()
    corners = torch.randint(world.SIDE_PX - CROP_PX + 1, (CROPS_PER_STEP, 2), generator=generator).tolist()
    crops = [pictures[i, y : y + CROP_PX, x : x + CROP_PX] for i, (y, x) in zip(chosen, corners, strict=True)]
    batch = to_tensor(np.stack(crops))
    mirror, exchange = torch.rand(2, generator=generator).tolist()
    if mirror < 0.5:
        batch = batch.flip(-1)
    if exchange < 0.3:
        batch = batch[:, torch.randperm(3, generator=generator)]
    return batch


@torch.no_grad()
def _scaling_factor(vae: AutoencoderKL, seed: int) -> float:
    """One over the standard deviation of the world's latents (Rombach et al. 2022, section D.1)."""
    latents = vae.encode(base_pictures(seed + 1, SCALING_PICTURES).to(vae.device)).latent_dist.mode()
    return round(1 / latents.std().item(), 5)


def _abstract(rng: random.Random) -> Image.Image:
    """Overlapping shapes and lines of any colours on a plain or smoothly coloured ground."""
    side = world.SIDE_PX * world.SUPERSAMPLE

    def colour() -> world.Colour:
        return rng.randrange(256), rng.randrange(256), rng.randrange(256)

    picture = Image.new("RGB", (2, 2), colour())
    picture.putpixel((rng.randrange(2), rng.randrange(2)), colour())
    picture = picture.resize((side, side), Image.Resampling.BICUBIC)
    for _ in range(rng.randint(1, 6)):
        place, r = (rng.uniform(-1, 1), rng.uniform(-1, 1)), rng.uniform(0.1, 0.6)
        mask = world.shape_mask(rng.choice(world.SHAPES), place, r, rng.uniform(0, 6.3), side)
        picture.paste(colour(), (0, 0), mask)
        if rng.random() < 0.4:
            line = [rng.uniform(0, side) for _ in range(4)]
            ImageDraw.Draw(picture).line(line, fill=colour(), width=rng.randint(6, 24))
    return picture.reduce(world.SUPERSAMPLE)
