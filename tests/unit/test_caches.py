"""What downloads and caches take, and deleting some of them: of the hub from a server on this machine, and our own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from huggingface_hub import constants, hf_hub_download

from tests.hub_server import Hub
from trainer import caches as caches_module
from trainer.__main__ import main
from trainer.caches import COMPUTED, CONVERTED, UNPACKED, caches, delete_caches
from trainer.config import Config
from trainer.errors import UserError
from trainer.files import size_bytes
from trainer.runs.store import Workspace
from ui.hub_cards import choices


@pytest.fixture
def workspace(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """Two repositories of the hub, and some of our own caches."""
    monkeypatch.setattr(caches_module, "converted_dir", lambda: tmp_path / "converted")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "data sets"))
    for repo, size in (("owner/small", 2000), ("datasets/owner/pictures", 5000)):
        folder = tmp_path / "offered" / repo
        folder.mkdir(parents=True)
        (folder / "data.bin").write_bytes(b"x" * size)
        hub.add(repo, folder)
    hf_hub_download("owner/small", "data.bin")
    hf_hub_download("owner/pictures", "data.bin", repo_type="dataset")
    for place, size in ((tmp_path / "workspace" / "cache", 300), (tmp_path / "data sets" / "lora-atelier", 70)):
        place.mkdir(parents=True)
        (place / "some").write_bytes(b"x" * size)
    return Workspace(tmp_path / "workspace")


def test_all_are_listed_with_what_they_take(workspace: Workspace) -> None:
    found = {cache.name: cache for cache in caches(workspace)}
    assert list(found) == [COMPUTED, CONVERTED, UNPACKED, "datasets/owner/pictures", "owner/small"]
    assert [cache.size_bytes for cache in found.values()] == [300, 0, 70, 5000, 2000]
    assert all(cache.last_used for cache in found.values() if "/" in cache.name)
    assert [name for _, name in choices(workspace)] == [name for name in found if name != CONVERTED]


def test_without_a_hub_cache_only_our_own_are_there(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(workspace.dir / "nowhere"))
    assert [cache.name for cache in caches(workspace)] == [COMPUTED, CONVERTED, UNPACKED]


def test_what_is_deleted_is_gone_and_nothing_else(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no cache 'owner/other'"):
        delete_caches(workspace, ["owner/small", "owner/other"])
    assert delete_caches(workspace, ["owner/small", COMPUTED]) == 2300
    assert [cache.name for cache in caches(workspace) if cache.size_bytes] == [UNPACKED, "datasets/owner/pictures"]
    assert size_bytes(tmp_path / "offered") == 7000


def test_nothing_is_deleted_under_a_run(workspace: Workspace) -> None:
    workspace.create_run(Config(name="going"), queued=False)
    with pytest.raises(UserError, match="in use by"):
        delete_caches(workspace, ["owner/small"])
    assert "owner/small" in {cache.name for cache in caches(workspace)}


def test_the_command_lists_and_asks(workspace: Workspace, capfd: pytest.CaptureFixture[str]) -> None:
    place = ["--workspace", str(workspace.dir)]
    assert main(["cache", *place, "--json"]) == 0
    answer = json.loads(capfd.readouterr().out)
    assert answer["size_bytes"] == 7370 and answer["caches"][-1]["name"] == "owner/small"
    assert main(["cache", *place]) == 0 and "datasets/owner/pictures" in capfd.readouterr().out
    assert main(["cache", "--delete", "owner/small", *place]) == 2  # no terminal
    assert "owner/small" in capfd.readouterr().err and len(caches(workspace)) == 5
    assert main(["cache", "--delete", "owner/small", "--yes", *place]) == 0 and len(caches(workspace)) == 4
