"""Run folders as a trainer leaves them, for tests that look at runs: real LoRA files, real events, real pictures."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from PIL import Image, ImageDraw
from playwright.sync_api import Page

from trainer.config import Config
from trainer.demo import MODEL_DIR
from trainer.files import write_json
from trainer.lora.file import LoraFile, LoraLayer, network_metadata, write_lora
from trainer.lora.keys import kohya_key
from trainer.pictures import save_png
from trainer.runs.store import ENDED, Run, Workspace

PROMPTS = ("a red star on a blue background, neon", "a small yellow ring <b>on</b> grey")


def write_example_lora(path: Path, seed: int = 1, strength: float = 0.25) -> Path:
    """A small LoRA that fits the demo model and changes its pictures, alpha different from rank."""
    draw = torch.Generator().manual_seed(seed)
    model = UNet2DConditionModel.from_pretrained(MODEL_DIR / "unet")
    layers: dict[str, LoraLayer] = {}
    for name, layer in model.named_modules():
        if name.endswith(("attn2.to_q", "attn2.to_v", "attn1.to_out.0")):
            rows, columns = layer.weight.shape
            down = torch.randn(4, columns, generator=draw) * strength
            up = torch.randn(rows, 4, generator=draw) * strength
            layers[kohya_key("unet", name)] = LoraLayer(down, up, 2.0)
    write_lora(path, LoraFile(layers, network_metadata(layers, "sd_v1")), precision="fp16")
    return path


def example_run(
    workspace: Workspace, name: str, state: str = "finished", steps: int = 120, max_steps: int = 120, **info: Any
) -> Run:
    """A run with a loss curve, previews, a checkpoint and, when finished, its LoRA."""
    run = workspace.create_run(Config(name=name))
    begun = run.read().created
    ended = {"ended": begun + steps * 0.35} if state in ENDED else {}
    run.update(state=state, step=steps, max_steps=max_steps, started=begun, **ended, **info)
    tell(run, {"type": "state", "state": "training"})
    tell(run, *metrics(run, 1, steps))
    for step in range(0, steps + 1, max(1, steps // 4)):
        preview(run, step)
    run.log_path.write_text("preparing\nencoding pictures 24/24\ntraining\nstep 100  loss 0.0832\n")
    warning = {"type": "warning", "code": "x", "message": "broken.png cannot be read.", "hint": "Replace it."}
    tell(run, warning)
    if state in ("finished", "stopped"):
        folder = run.checkpoints_dir / f".unfinished-step-{steps:06d}"
        write_example_lora(folder / "lora.safetensors")
        write_json(folder / "manifest.json", {})
        folder.rename(run.checkpoints_dir / f"step-{steps:06d}")  # as a trainer does: an open page sees all of it
    if state == "finished":
        write_example_lora(run.output_path)
    return run


def metrics(run: Run, first: int, last: int) -> list[dict[str, Any]]:
    """One metric event per step, falling and noisy."""
    noise = random.Random(first)
    begun = run.read().created
    return [
        {
            "type": "metric",
            "step": step,
            "time": begun + step * 0.35,
            "loss": 0.06 + 0.12 * math.exp(-step / 40) + noise.gauss(0, 0.012),
            "lr": 1e-3 * 0.5 * (1 + math.cos(math.pi * step / max(last, 120))),
            "grad_norm": 0.4 + noise.random() * 0.3,
            "step_ms": 330 + noise.random() * 40,
        }
        for step in range(first, last + 1)
    ]


def preview(run: Run, step: int) -> None:
    """A preview picture per prompt, of size 128."""
    for number, prompt in enumerate(PROMPTS):
        image = Image.new("RGB", (128, 128), (20 + step % 100, 40, 90 + 60 * number))
        ImageDraw.Draw(image).ellipse((24, 24, 104 - step % 40, 104), fill=(230, 60 + step % 150, 60))
        name = f"step-{step:06d}-p{number:02d}-s42.png"
        save_png(image, run.samples_dir / name, {"prompt": prompt, "seed": 42})
        tell(run, {"type": "sample", "step": step, "path": f"samples/{name}", "prompt": prompt, "seed": 42})


def tell(run: Run, *events: dict[str, Any]) -> None:
    """Append events as a trainer does."""
    with run.events_path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps({"time": run.read().created, "step": 0} | event) + "\n" for event in events)


def open_tab(page: Page, name: str) -> None:
    """Switch tabs; on narrow screens some of them are in a menu."""
    page.get_by_role("tab", name="Dataset", exact=True).wait_for()
    tab = page.get_by_role("tab", name=name, exact=True)
    if tab.is_visible():
        tab.click()
    else:
        page.locator(".overflow-menu > button").click()
        page.locator(".overflow-dropdown button", has_text=name).click()
