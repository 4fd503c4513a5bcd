"""Several runs beside each other: only what differs, in words."""

from __future__ import annotations

from pathlib import Path

from trainer.config import Config
from trainer.runs.store import Workspace
from ui.comparison import NOT_GIVEN, compare, differences
from ui.run_view import RunReaders


def config(**changes: object) -> Config:
    return Config.model_validate({"name": "x", **changes})


def test_only_what_differs_by_label() -> None:
    first = config(name="a", lora={"rank": 8}, dataset={"resolution": 512})
    second = config(name="b", lora={"rank": 32}, dataset={"resolution": [512, 768]}, train={"deterministic": True})
    found = {each["name"]: each for each in differences([first, second])}
    assert set(found) == {"lora.rank", "dataset.resolution", "train.deterministic"}
    assert found["lora.rank"]["values"] == ["8", "32"]
    assert found["lora.rank"]["label"] == "Rank"
    assert found["dataset.resolution"]["values"] == ["512", "[512, 768]"]
    assert found["train.deterministic"]["values"] == ["off", "on"]
    assert differences([first, first]) == []


def test_a_config_that_cannot_be_read_hides_nothing(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    runs = [workspace.create_run(config(name=name, lora={"rank": rank})) for name, rank in (("a", 4), ("b", 8))]
    runs[1].config_path.write_text("{")
    runs[0].events_path.write_text('{"time": 1, "type": "metric", "step": 1, "loss": 0.5}\n')
    runs[0].output_path.write_bytes(bytes(2_000_000))
    found = compare(workspace, RunReaders(), [runs[0].id, "gone", "../x", runs[1].id])
    assert [run["name"] for run in found["runs"]] == ["a", "b"]
    first, second = (run["results"] for run in found["runs"])
    assert (first["Loss at the end, smoothed"], first["LoRA file"]) == ("0.5", "2.0 MB")
    assert (second["Loss at the end, smoothed"], second["LoRA file"]) == (NOT_GIVEN, NOT_GIVEN)
    assert {"label": "Rank", "name": "lora.rank", "values": ["4", NOT_GIVEN]} in found["differences"]
