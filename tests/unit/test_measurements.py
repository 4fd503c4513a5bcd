"""What was measured: medians by hand, memory only for the same settings, damaged files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.unit.dataset_samples import config_for
from trainer.config import Config
from trainer.measurements import Measured, keep_measurement, measured_step, of_events
from trainer.runs.store import Workspace


def events(times: list[Any], memory: list[int] | None = None) -> list[dict[str, Any]]:
    told = [{"type": "metric", "step": number, "step_ms": value} for number, value in enumerate(times)]
    for event, held in zip(told, memory or [], strict=False):
        event["vram_bytes"] = held
    return [{"type": "state", "step": 0, "state": "training"}, *told]


def test_the_first_steps_do_not_count() -> None:
    assert of_events(events([9000, 900, 10, 30, 20, None]), 2) == (20.0, None)
    assert of_events(events([9000, 900, 10], [5, 7, 6]), 2) == (10.0, 7)
    assert of_events(events([9000, 900]), 2) is None


def test_a_measurement_counts_for_the_same_work_and_its_memory_for_the_same_settings(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)

    def config(rank: int = 16, batch: int = 1, **more: Any) -> Config:
        return config_for(tmp_path, lora={"rank": rank}, train={"batch_size": batch, **more})

    keep_measurement(workspace, config(), 120.0, 7)
    assert measured_step(config(learning_rate=1.0), workspace) == Measured(120.0, 7, "in a short measurement")
    assert measured_step(config(rank=64), workspace) == Measured(120.0, None, "in a short measurement")
    assert measured_step(config(batch=2), workspace) is None
    keep_measurement(workspace, config(), 100.0, 8)
    assert measured_step(config(), workspace) == Measured(100.0, 8, "in a short measurement")
    (tmp_path / "measurements.json").write_text("[{}, 3")
    assert measured_step(config(), workspace) is None
    (tmp_path / "measurements.json").write_text("[{}, 3]")
    assert measured_step(config(), workspace) is None
