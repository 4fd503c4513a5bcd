"""What a step costs does not hang on how many pictures there are, nor memory on how many steps were done.

With ``LORA_ATELIER_SOAK=1`` the long run has 100,000 steps; otherwise a few hundred.
"""

from __future__ import annotations

import gc
import os
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from tests.recipe.single_steps import CPU
from tests.recipe.tiny_runs import of_type
from tests.tiny_models import BETAS
from trainer.config import Config
from trainer.data.random_set import random_training_set
from trainer.data.training_set import TrainingSet
from trainer.demo import MODEL_DIR
from trainer.families import load_family
from trainer.families.base import Conditioning
from trainer.families.sd import SdFamily
from trainer.recipe import train
from trainer.runs.store import Workspace

SOAK = bool(os.environ.get("LORA_ATELIER_SOAK"))
STEPS = 100_000 if SOAK else 200
LOOK_AT = range(STEPS // 10, STEPS + 1, STEPS // 10)
LAYER = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
MOST_BYTES, MOST_OBJECTS = 4 * 2**20, 2000
COUNTS = (50, 500, 5000)
BATCHES, ROUNDS = 500, 7
LARGEST_SHARE = 0.02
STEP_SECONDS = 0.15
"""A step of the demo model on a slow core, beside which the batch's cost is held."""


def micro_model(folder: Path) -> Path:
    """The smallest Stable Diffusion that has all parts: a step of it is some milliseconds."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8,),
        down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",),
        mid_block_type=None,
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=8,
        attention_head_dim=2,
    )
    vae = AutoencoderKL(
        block_out_channels=(4, 4, 4, 4),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=2,
    )
    text = CLIPTextConfig(
        vocab_size=958,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        bos_token_id=956,
        eos_token_id=957,
    )
    StableDiffusionPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(text),
        tokenizer=CLIPTokenizer.from_pretrained(MODEL_DIR / "tokenizer", local_files_only=True),
        unet=unet,
        scheduler=DDIMScheduler(**BETAS, clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


class Meter:
    """Looks at this process at some steps: how many bytes it holds, and how many objects Python looks after."""

    def __init__(self, steps: range) -> None:
        self.looks: list[tuple[int, int, int]] = []
        self._steps: Iterator[int] = iter(steps)
        self._next = next(self._steps)

    def emit(self, kind: str, step: int = 0, **fields: Any) -> None:
        if kind == "metric" and step >= self._next:
            gc.collect()
            self.looks.append((step, psutil.Process().memory_info().rss, len(gc.get_objects())))
            self._next = next(self._steps, STEPS + 1)


def predict_by_one_layer(
    family: SdFamily, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning, sizes: Tensor, **_: object
) -> Tensor:
    """The answer of one layer of the UNet alone: quick, and all around it is as ever."""
    cells = noisy.repeat(1, 2, 1, 1).flatten(2).transpose(1, 2)  # (B, h w, 8)
    answer = family.denoiser.get_submodule(LAYER)(cells)
    return answer.transpose(1, 2)[:, :4].unflatten(2, noisy.shape[2:])


def test_memory_stays_flat_however_long_a_run_is(
    config_of: Callable[..., Config], workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SdFamily, "predict", predict_by_one_layer)
    config = config_of(
        model={"base": str(micro_model(tmp_path / "micro"))},
        train__max_steps=STEPS,
        train__batch_size=1,
        lora={"rank": 1, "include": [LAYER]},
        validation={"split": 0.4, "every_steps": STEPS // 40, "early_stop_patience": STEPS},
        output__save_every_steps=STEPS // 8,
        output__keep_last=2,
    )
    run, meter = workspace.create_run(config, queued=False), Meter(LOOK_AT)
    train(run, workspace=workspace, events=meter)
    assert [event["step"] for event in of_type(run, "metric")] == list(range(1, STEPS + 1))
    assert [step for step, *_ in meter.looks] == list(LOOK_AT)
    half, last = meter.looks[len(LOOK_AT) // 2 - 1], meter.looks[-1]
    told = f"step, bytes, objects: {meter.looks}"
    if SOAK:
        print(told)  # noqa: T201 - the figures of the long run, with ``-s``
    assert last[2] - half[2] < MOST_OBJECTS, told
    assert last[1] - half[1] < MOST_BYTES, told


def test_a_batch_costs_the_same_of_few_and_of_many_pictures(config_of: Callable[..., Config]) -> None:
    """Processor time by turns, over whole epochs of the small sets; the middle of several rounds."""
    config = config_of(train__batch_size=1)
    family = load_family(config.model, device=CPU, dtype=torch.float32)
    sets = {count: random_training_set(config, family, count) for count in COUNTS}
    costs: dict[int, list[float]] = {count: [] for count in COUNTS}
    for round_number in range(ROUNDS):
        for count, data in sets.items():
            costs[count].append(batch_seconds(data, round_number * BATCHES))
    typical = {count: statistics.median(times) for count, times in costs.items()}
    for few, many in pairwise(COUNTS):
        assert typical[many] - typical[few] < LARGEST_SHARE * STEP_SECONDS, typical
        assert typical[many] < 2 * typical[few], f"ten times the pictures: {typical}"


def batch_seconds(data: TrainingSet, begin: int) -> float:
    """Mean over some batches, one epoch's order among them."""
    begun = time.process_time()
    for index in range(begin, begin + BATCHES):
        data.batch(index)
    return (time.process_time() - begun) / BATCHES


@pytest.mark.parametrize("count", COUNTS)
def test_every_picture_of_a_random_set_is_seen_once_an_epoch(count: int, config_of: Callable[..., Config]) -> None:
    config = config_of(train__batch_size=2)
    data = random_training_set(config, load_family(config.model, device=CPU, dtype=torch.float32), count)
    seen = [path for index in range(data.batches_per_epoch) for path in data.batch(index).paths]
    assert len(seen) == len(set(seen)) == count
    assert torch.equal(data.batch(3).latents, data.batch(3).latents) and data.batch(3).latents.shape == (2, 4, 8, 8)
