"""The preview of what is saved draws the very file that Save would write, and starts few processes for it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from tests.unit.lora_samples import lora as sample_lora
from trainer.errors import UserError
from trainer.jobs import jobs
from trainer.lora.file import read_lora, write_lora
from trainer.lora.merge import MergeSettings, merge_loras
from trainer.pictures import LoraUse
from trainer.runs.store import Workspace
from ui.lora_tools.merge_orders import Merge
from ui.lora_tools.saved_preview import SavedPreview


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    workspace = Workspace(tmp_path / "workspace")
    workspace.models_dir.mkdir(parents=True)
    write_lora(workspace.models_dir / "a.safetensors", sample_lora(4), precision="float")
    return workspace


def merge(workspace: Workspace, weight: float, **changes: object) -> Merge:
    use = LoraUse(path=str(workspace.models_dir / "a.safetensors"), weight=weight)
    return Merge.model_validate(
        {"loras": [use], "target": "lora", "model": "demo", "mode": "svd", "rank": 1, "name": "m"} | changes
    )


def made(preview: SavedPreview, wanted: Merge) -> Path:
    end = time.monotonic() + 120
    while (found := preview.lora(wanted)) is None:
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


def test_it_is_what_save_would_write(workspace: Workspace) -> None:
    preview = SavedPreview(workspace)
    for weight in (0.1, 0.2, 0.3):
        assert preview.lora(merge(workspace, weight)) is None  # on its way: no process for each place
    assert jobs(workspace) == []
    found = made(preview, merge(workspace, 0.5))
    assert len(jobs(workspace)) == 1 and list(workspace.models_dir.iterdir()) == [
        workspace.models_dir / "a.safetensors"
    ]
    wanted = merge_loras([(read_lora(workspace.models_dir / "a.safetensors"), 0.5)], MergeSettings("svd", rank=1))
    drawn = read_lora(found)
    assert all(torch.allclose(drawn.layers[key].delta(), layer.delta()) for key, layer in wanted.layers.items())
    assert preview.lora(merge(workspace, 0.5, name="other", replace=True)) == found
    assert SavedPreview(workspace).lora(merge(workspace, 0.5)) == found


def test_why_there_is_none(workspace: Workspace) -> None:
    preview = SavedPreview(workspace)
    with pytest.raises(UserError, match="Rank is empty"):
        preview.lora(merge(workspace, 0.5, rank=None))
    with pytest.raises(UserError, match="other than 0"):
        made(preview, merge(workspace, 0.0))
    assert not list(workspace.cache_dir.rglob("*.safetensors"))
