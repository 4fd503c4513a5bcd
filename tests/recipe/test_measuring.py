"""A short measurement: real steps of the run, kept for the plan, with nothing left behind."""

from __future__ import annotations

from pathlib import Path

from tests.unit.dataset_samples import Recorded, write_pictures
from trainer.measurements import measured
from trainer.measuring import STEPS, measure
from trainer.planner import plan
from trainer.runs.store import Workspace


def test_steps_are_timed_and_nothing_stays_but_caches(config_of, workspace: Workspace, tmp_path: Path) -> None:
    write_pictures(tmp_path / "in", [(64, 64)] * 4)
    config = config_of(
        dataset__sources=[{"path": str(tmp_path / "in")}],
        lora__target="attention",
        train__epochs=50,
        samples__prompts=["a cat"],
        validation__split=0.5,
        validation__early_stop_patience=2,
        output__keep_best=True,
    )
    assert measured(config, workspace) is None
    events = Recorded()
    measure(config, workspace, events)
    assert len(events.of("metric")) == STEPS and not events.of("sample") and not events.of("validation")
    assert workspace.runs() == [] and list((workspace.dir / "tmp").iterdir()) == []
    found = measured(config, workspace)
    assert found is not None and found.source == "in a short measurement" and found.memory_bytes is None
    times = sorted(event["step_ms"] for event in events.of("metric"))
    assert times[0] / 1000 <= found.costs.step <= times[-1] / 1000 + 0.1  # between steps there is little else
    estimate = plan(config, workspace).estimate
    assert estimate.seconds is not None and "in a short measurement" in estimate.seconds_note
    assert found.costs.checkpoint is not None and found.costs.beginning is not None
    assert estimate.seconds > found.costs.step * plan(config).max_steps + found.costs.beginning
    assert (
        measured(config.model_copy(update={"model": config.model.model_copy(update={"quantize": "int8"})}), workspace)
        is None
    )
