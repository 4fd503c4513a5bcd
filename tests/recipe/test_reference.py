"""The recipe against a plain training loop written here with diffusers and PEFT: the same losses to 1e-5."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from diffusers.optimization import get_scheduler
from peft import LoraConfig
from PIL import Image
from transformers import CLIPTextModel, CLIPTokenizer

from tests.recipe.tiny_runs import SIDE, losses_of, make_pictures, train_here
from trainer.demo import MODEL_DIR
from trainer.devices import seeded_generator
from trainer.runs.store import Workspace

SEED, STEPS, BATCH, ACCUMULATION = 7, 4, 2, 2
GAMMA, RATE, LIMIT = 5.0, 2e-3, 0.05


def with_lora(model: torch.nn.Module, part: str, layers: list[str]) -> list[torch.nn.Parameter]:
    model.requires_grad_(False)
    model.add_adapter(LoraConfig(r=4, lora_alpha=2, target_modules=layers))
    parameters = []
    for name, layer in model.named_modules():
        if hasattr(layer, "lora_A"):
            down, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight
            bound = 1 / math.sqrt(down[0].numel())
            generator = seeded_generator(SEED, "lora", part, name)
            down.data = torch.empty(down.shape).uniform_(-bound, bound, generator=generator)
            parameters += [down, up]
    return parameters


def reference_losses(picture: Path) -> list[float]:
    unet = UNet2DConditionModel.from_pretrained(MODEL_DIR / "unet", torch_dtype=torch.float32)
    text = CLIPTextModel.from_pretrained(MODEL_DIR / "text_encoder", dtype=torch.float32)
    vae = AutoencoderKL.from_pretrained(MODEL_DIR / "vae", torch_dtype=torch.float32)
    tokenizer = CLIPTokenizer.from_pretrained(MODEL_DIR / "tokenizer")
    scheduler = DDPMScheduler.from_pretrained(MODEL_DIR / "scheduler")
    attention = ["to_q", "to_k", "to_v", "to_out.0"]
    parameters = [
        {"params": with_lora(unet, "unet", attention), "lr": RATE},
        {
            "params": with_lora(text, "text_encoder", ["q_proj", "k_proj", "v_proj", "out_proj"]),
            "lr": RATE / 4,
        },
    ]
    optimizer = torch.optim.AdamW(parameters, weight_decay=0.1)
    schedule = get_scheduler("cosine", optimizer, num_warmup_steps=1, num_training_steps=STEPS)
    ids = tokenizer([picture.with_suffix(".txt").read_text()] * BATCH, padding="max_length", return_tensors="pt")
    pixels = torch.from_numpy(np.array(Image.open(picture))).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        latents = vae.encode(pixels).latent_dist.mode().expand(BATCH, -1, -1, -1) * vae.config.scaling_factor

    losses = []
    for step in range(STEPS):
        total = 0.0
        for micro in range(ACCUMULATION):
            index = step * ACCUMULATION + micro
            noise = torch.randn(latents.shape, generator=seeded_generator(SEED, index, "noise"))
            timesteps = torch.randint(0, 1000, (BATCH,), generator=seeded_generator(SEED, index, "timesteps"))
            states = text(ids.input_ids).last_hidden_state
            prediction = unet(scheduler.add_noise(latents, noise, timesteps), timesteps, states).sample
            target = scheduler.get_velocity(latents, noise, timesteps)
            snr = scheduler.alphas_cumprod[timesteps] / (1 - scheduler.alphas_cumprod[timesteps])
            weights = torch.minimum(snr, torch.tensor(GAMMA)) / (snr + 1)
            loss = ((prediction - target).square().mean((1, 2, 3)) * weights).mean()
            (loss / ACCUMULATION).backward()
            total += loss.item() / ACCUMULATION
        torch.nn.utils.clip_grad_norm_([p for group in parameters for p in group["params"]], LIMIT)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(total)
    return losses


@pytest.mark.parametrize("checkpointing", [False, True])
def test_losses_are_those_of_a_plain_loop(tmp_path: Path, config_of, workspace: Workspace, checkpointing: bool) -> None:
    """One picture in every row, so that the order of the data plays no part: UNet and text encoder, alpha != rank."""
    folder = make_pictures(tmp_path / "one", count=1, side=SIDE)
    config = config_of(
        dataset__sources=[{"path": str(folder), "repeats": BATCH}],
        dataset__buckets={"min": 64, "step": 8},
        lora__target="attention",
        lora__train="both",
        loss__min_snr_gamma=GAMMA,
        train__seed=SEED,
        train__max_steps=STEPS,
        train__learning_rate=RATE,
        train__text_encoder_learning_rate=RATE / 4,
        train__lr_warmup_steps=1,
        train__batch_size=BATCH,
        train__gradient_accumulation_steps=ACCUMULATION,
        train__max_grad_norm=LIMIT,
        train__optimizer_args={"weight_decay": 0.1},
        train__gradient_checkpointing=checkpointing,
    )
    run = workspace.create_run(config)
    train_here(run)
    expected = reference_losses(folder / "0.png")
    assert len(set(expected)) == STEPS
    torch.testing.assert_close(
        torch.tensor(list(losses_of(run).values())), torch.tensor(expected), rtol=1e-5, atol=1e-6
    )
