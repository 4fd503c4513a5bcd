"""The gates a demo model must pass before it ships, measured on the model as a diffusers pipeline."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from trainer.demo import build_captioner, scoring, world
from trainer.demo.build_vae import base_pictures, psnr_db

STEPS = 20
GUIDANCE = 2.0
PROMPTS = 90
BATCH = 45
CAPTIONED_PICTURES = 500


@dataclass(frozen=True)
class Gate:
    """One measured figure and what it must reach."""

    name: str
    value: float
    limit: float
    at_most: bool = False

    @property
    def passed(self) -> bool:
        """Whether the figure is good enough."""
        return self.value <= self.limit if self.at_most else self.value >= self.limit


def load_pipeline(folder: Path) -> StableDiffusionPipeline:
    """The model in `folder` as a float32 pipeline on the CPU, without a progress bar."""
    pipeline = StableDiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def generate(
    pipeline: StableDiffusionPipeline, prompts: Sequence[str], seed: int, guidance: float = GUIDANCE, steps: int = STEPS
) -> list[Image.Image]:
    """One 128 px picture for each prompt."""
    generator = torch.Generator().manual_seed(seed)
    pictures: list[Image.Image] = []
    for first in range(0, len(prompts), BATCH):
        result = pipeline(
            list(prompts[first : first + BATCH]),
            num_inference_steps=steps,
            guidance_scale=guidance,
            height=world.SIDE_PX,
            width=world.SIDE_PX,
            generator=generator,
        )
        pictures += result.images
    return pictures


def prompt_scores(
    pipeline: StableDiffusionPipeline, count: int, seed: int, guidance: float = GUIDANCE
) -> tuple[dict[str, float], list[Image.Image]]:
    """How well `count` single-object prompts are obeyed (see `scoring.score`), and the pictures."""
    scenes = scoring.gate_scenes(count)
    pictures = generate(pipeline, [world.caption(scene) for scene in scenes], seed, guidance)
    return scoring.score(pictures, scenes), pictures


def measure(folder: Path, seed: int) -> list[Gate]:
    """Measures every gate of the model in `folder`."""
    pipeline = load_pipeline(folder)
    started = time.perf_counter()
    generate(pipeline, ["a red circle on a blue background"], seed)
    seconds = time.perf_counter() - started
    scores, _ = prompt_scores(pipeline, PROMPTS, seed)
    return [
        Gate("VAE PSNR on held-out pictures, dB", psnr_db(pipeline.vae, base_pictures(seed, 64)), 32.0),
        Gate("background colour", scores["background"], 0.95),
        Gate("foreground colour", scores["colour"], 0.95),
        Gate("shape", scores["shape"], 0.80),
        Gate("size", scores["size"], 0.80),
        Gate("files, MB", _megabytes(folder), 15.0, at_most=True),
        Gate("one picture in 20 steps, s", seconds, 2.0, at_most=True),
    ]


def measure_captioner(folder: Path, seed: int) -> list[Gate]:
    """Measures every gate of the captioner in `folder`, on pictures that it was not trained on."""
    model, processor = build_captioner.load(folder)
    shares = build_captioner.scores(model, processor, *build_captioner.held_out(seed, CAPTIONED_PICTURES))
    named = [Gate(f"captions: {name}", share, 0.95) for name, share in shares.items()]
    return [*named, Gate("captioner's files, MB", _megabytes(folder), 2.0, at_most=True)]


def _megabytes(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


def table(gates: Sequence[Gate]) -> str:
    """The gates as a Markdown table."""
    rows = [
        f"| {gate.name} | {gate.value:.2f} | {'<=' if gate.at_most else '>='} {gate.limit:g} | "
        f"{'pass' if gate.passed else 'FAIL'} |"
        for gate in gates
    ]
    return "\n".join(["| gate | measured | wanted | |", "|---|---|---|---|", *rows])


def grid(pictures: Sequence[Image.Image], columns: int) -> Image.Image:
    """Pictures in rows of `columns`, 2 px apart."""
    step = world.SIDE_PX + 2
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * step, rows * step), "white")
    for number, picture in enumerate(pictures):
        sheet.paste(picture, (number % columns * step, number // columns * step))
    return sheet
