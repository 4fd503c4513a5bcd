"""``trainer bench``: the promised keys, from the recipe's own step."""

from __future__ import annotations

import torch

from trainer.bench import Measurement, measure
from trainer.commands import bench
from trainer.config_io import parse_config
from trainer.devices import compute_dtype
from trainer.families import FAMILIES
from trainer.families.base import Conditioning
from trainer.runs.events import Events

KEYS = (
    "step_ms_median step_ms_p90 images_per_s load_s compile_s first_step_s peak_vram_bytes peak_rss_bytes steps "
    "family size resolution batch rank precision device torch"
)


def test_the_answer_has_the_promised_keys() -> None:
    train = {"max_steps": 4, "batch_size": 2, "gradient_checkpointing": True}
    config = parse_config({"dataset": {"resolution": 64, "cache": {"to_disk": False}}, "train": train})
    answer = measure(config, size="demo", model_given=False, events=Events())
    assert list(vars(answer)) == KEYS.split()
    assert isinstance(answer, Measurement) and answer.steps == 4 and answer.batch == 2 and answer.resolution == 64
    assert 0 < answer.step_ms_median <= answer.step_ms_p90
    assert answer.images_per_s > 0 and answer.peak_rss_bytes > 2**20
    assert "step_ms_median" in bench.describe(vars(answer))


def test_gradient_checkpointing_and_precision_change_only_rounding() -> None:
    """Random weights of the demo's size, the same each time, on the same question."""
    answers = []
    for dtype, checkpointing in ((torch.float32, False), (torch.float32, True), (torch.bfloat16, False)):
        torch.manual_seed(0)
        family = FAMILIES["sd1"].random("demo", device=torch.device("cpu"), dtype=dtype)
        family.denoiser.train()
        if checkpointing:
            family.save_memory()
        generator = torch.Generator().manual_seed(1)
        noisy = torch.randn(1, 4, 8, 8, generator=generator)
        states = torch.randn(1, 77, 64, generator=generator, requires_grad=True)
        answer = family.predict(noisy, torch.tensor([10]), Conditioning(states, {}), torch.zeros(1, 6))
        answer.float().sum().backward()
        answers.append((answer.detach().float(), states.grad))
    plain, checkpointed, half = answers
    torch.testing.assert_close(checkpointed, plain, rtol=1e-5, atol=1e-6)
    assert (half[0] - plain[0]).abs().max() < 0.1 * plain[0].abs().max()


def test_precision_by_name() -> None:
    cpu = torch.device("cpu")
    names = {name: compute_dtype(name, cpu) for name in ("auto", "no", "fp16", "bf16")}
    assert names == {"auto": torch.float32, "no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
