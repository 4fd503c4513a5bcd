"""What was measured: costs by hand, memory only for the same settings, damaged files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.dataset_samples import config_for
from trainer.config import Config
from trainer.files import read_json, write_json
from trainer.measurements import Measured, costs_for, keep_measurement, measured, of_events
from trainer.pace import Costs
from trainer.runs.store import Workspace


def events(times: list[float], memory: list[int] | None = None) -> list[dict[str, Any]]:
    told = [{"type": "metric", "step": number, "time": time} for number, time in enumerate(times, 1)]
    for event, held in zip(told, memory or [], strict=False):
        event["vram_bytes"] = held
    return [{"type": "state", "step": 0, "state": "training", "time": 0.0}, *told]


def test_the_first_steps_do_not_count(tmp_path: Path) -> None:
    config = config_for(tmp_path)
    assert of_events(events([90, 100, 101, 102, 103, 104], [5, 7, 6]), config) == (Costs(1.0), 7)
    assert of_events(events([90, 100]), config) is None


def test_a_measurement_counts_for_the_same_work_and_its_memory_for_the_same_settings(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)

    def config(rank: int = 16, batch: int = 1, **more: Any) -> Config:
        return config_for(tmp_path, lora={"rank": rank}, train={"batch_size": batch, **more})

    slow, fast = Costs(0.12, checkpoint=1.5), Costs(0.1, beginning=7.0)
    keep_measurement(workspace, config(), slow, 7)
    assert measured(config(learning_rate=1.0), workspace) == Measured(slow, 7, "in a short measurement")
    assert measured(config(rank=64), workspace) == Measured(slow, None, "in a short measurement")
    assert measured(config(batch=2), workspace) is None
    keep_measurement(workspace, config(), fast, 8)
    assert measured(config(), workspace) == Measured(fast, 8, "in a short measurement")
    (tmp_path / "measurements.json").write_text("[{}, 3")
    assert measured(config(), workspace) is None
    (tmp_path / "measurements.json").write_text("[{}, 3]")
    assert measured(config(), workspace) is None


def test_validation_is_known_from_the_same_pictures_only(tmp_path: Path) -> None:
    costs, mine = Costs(1.0, validation=30.0), config_for(tmp_path, validation={"split": 0.1})
    assert costs_for(mine, costs, config_for(tmp_path, validation={"split": 0.1})) == costs
    assert costs_for(mine, costs, config_for(tmp_path, validation={"split": 0.2})) == Costs(1.0)
    assert costs_for(mine, costs, config_for(tmp_path / "other", validation={"split": 0.1})) == Costs(1.0)


@pytest.mark.parametrize("costs", [{"seconds": 1}, {"step": "soon"}, [1.0], None])
def test_costs_of_another_version_do_not_count(tmp_path: Path, costs: object) -> None:
    workspace, config = Workspace(tmp_path), config_for(tmp_path)
    keep_measurement(workspace, config, Costs(2.0), None)
    path = tmp_path / "measurements.json"
    write_json(path, [entry | {"costs": costs} for entry in read_json(path)])
    assert measured(config, workspace) is None
    keep_measurement(workspace, config, Costs(3.0), None)
    assert measured(config, workspace) == Measured(Costs(3.0), None, "in a short measurement")
