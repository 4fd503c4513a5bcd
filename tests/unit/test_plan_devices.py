"""The plan says what the run would say of its device, and counts memory as that device has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.dataset_samples import config_for, write_pictures
from trainer import planner
from trainer.accelerators import Kind
from trainer.errors import UserError
from trainer.fused import can_be_compiled
from trainer.plan_fixes import changed
from trainer.plan_room import Room
from trainer.planner import Plan, plan

GIB = 2**30
GPU = Room("gpu", "a GPU", 24 * GIB, 24 * GIB)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    write_pictures(folder, [(64, 64)] * 2)
    return folder


def planned(pictures: Path, kind: Kind | None, **sections: Any) -> Plan:
    return plan(config_for(pictures, **sections), room=GPU, kind=kind)


def test_what_is_done_another_way_is_a_warning_with_what_ends_it(pictures: Path) -> None:
    sections: dict[str, Any] = {"model": {"offload": 0.5}, "train": {"optimizer_args": {"fused": True}}}
    found = planned(pictures, "mps", **sections)
    ours = [warning for warning in found.warnings if warning.code.startswith("device.")]
    assert [warning.code for warning in ours] == ["device.offload", "device.fused"]
    config = config_for(pictures, **sections)
    for warning in ours:
        (fix,) = warning.fixes
        config = changed(config, fix.changes)
    for kind, settings in (("mps", config), ("cuda", config_for(pictures, **sections)), (None, config)):
        again = plan(settings, room=GPU, kind=kind)  # type: ignore[arg-type]
        assert not [warning for warning in again.warnings if warning.code.startswith("device.")]


def test_what_is_refused_is_refused_beside_all_else(pictures: Path) -> None:
    config = config_for(pictures, train={"deterministic": True}, model={"quantize": "fp8", "base": "/no/such/model"})
    with pytest.raises(UserError) as caught:
        plan(config, kind="mps")
    fields = {problem.field for problem in caught.value.problems}
    assert fields >= {"train.deterministic", "model.quantize", "model.base"}


def test_memory_that_is_the_machines_is_not_saved_by_moving_things_there(
    pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planner, "can_be_compiled", lambda: False)
    apart, shared = (planned(pictures, kind, model={"offload": 1.0}).estimate.vram_parts for kind in ("cuda", "mps"))
    assert shared.weights > apart.weights and shared.cache > 0 == apart.cache
    assert shared.activations == apart.activations, "a GPU's number formats all the same"
    offered = [warning for warning in planned(pictures, "mps").warnings if "model.offload" in str(warning.fixes)]
    assert not offered


def test_fused_layers_count_where_they_can_be(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {}
    for kind in ("cuda", "rocm"):
        for compiled in (False, True):
            monkeypatch.setattr(planner, "can_be_compiled", lambda compiled=compiled: compiled)
            kept[kind, compiled] = planned(pictures, kind).estimate.vram_parts.activations  # type: ignore[arg-type]
    assert kept["cuda", True] < kept["cuda", False] == kept["rocm", True] == kept["rocm", False]


def test_without_a_compiler_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    assert not can_be_compiled()
