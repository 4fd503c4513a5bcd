"""The Settings tab's actions, what it tells of the machine, and the disk."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from trainer.config import Config
from trainer.errors import UserError
from trainer.files import size_bytes
from trainer.runs.settings import read_settings
from trainer.runs.store import Workspace, this_process
from ui import disk_use, machine
from ui.context import AppContext
from ui.tabs.settings import add_folder, allow_optimizers, change, remove_folder


@pytest.fixture
def context(tmp_path: Path) -> AppContext:
    (tmp_path / "workspace").mkdir()
    (tmp_path / "pictures/inner").mkdir(parents=True)
    return AppContext(Workspace((tmp_path / "workspace").resolve()))


def test_a_folder_is_opened_and_closed(context: AppContext, tmp_path: Path) -> None:
    folder = (tmp_path / "pictures").resolve()
    assert add_folder(context, f" {folder} ") == folder
    assert context.allowed(folder / "inner") == folder / "inner"
    remove_folder(context.workspace, str(folder))
    with pytest.raises(UserError, match="not open"):
        context.allowed(folder)
    assert folder.is_dir()


def test_what_several_windows_change_at_once_is_all_kept(context: AppContext, tmp_path: Path) -> None:
    folders = [tmp_path / f"folder {number}" for number in range(12)]
    for folder in folders:
        folder.mkdir()
    jobs = [partial(add_folder, context, str(folder)) for folder in folders]
    jobs += [
        partial(change, context.workspace, theme="dark"),
        partial(change, context.workspace, studio_idle_minutes=7),
    ]
    together = threading.Barrier(len(jobs))
    with ThreadPoolExecutor(len(jobs)) as pool:
        for done in [pool.submit(lambda job: (together.wait(), job()), job) for job in jobs]:
            done.result()
    now = read_settings(context.workspace)
    assert sorted(now.folders) == sorted(str(folder.resolve()) for folder in folders)
    assert (now.theme, now.studio_idle_minutes) == ("dark", 7)


@pytest.mark.parametrize(
    ("given", "code"),
    [("", "folder.relative"), ("pictures", "folder.relative"), ("/", "folder.root"), ("/no/such", "folder.missing")],
)
def test_what_cannot_be_opened(context: AppContext, given: str, code: str) -> None:
    with pytest.raises(UserError) as caught:
        add_folder(context, given)
    assert caught.value.problems[0].code == code
    assert read_settings(context.workspace).folders == []


def test_what_is_open_already_is_told(context: AppContext, tmp_path: Path) -> None:
    add_folder(context, str(tmp_path / "pictures"))
    with pytest.raises(UserError, match="open already"):
        add_folder(context, str(tmp_path / "pictures/inner"))


def test_idle_minutes(context: AppContext) -> None:
    change(context.workspace, studio_idle_minutes=30.0)
    assert read_settings(context.workspace).studio_idle_minutes == 30
    for wrong in [0, -1, 1.5, None, 2000]:
        with pytest.raises(UserError, match="1 to 1440"):
            change(context.workspace, studio_idle_minutes=wrong)
    change(context.workspace, theme="dark")
    assert read_settings(context.workspace).studio_idle_minutes == 30
    change(context.workspace, trainer_ready_minutes=0)
    assert read_settings(context.workspace).trainer_ready_minutes == 0
    with pytest.raises(UserError, match="0 to 1440"):
        change(context.workspace, trainer_ready_minutes=-1)


def test_caches_are_cleared_but_not_under_a_run(context: AppContext) -> None:
    workspace = context.workspace
    workspace.cache_dir.mkdir()
    (workspace.cache_dir / "latents").write_bytes(bytes(1000))
    run = workspace.create_run(Config())
    run.update(state="training", **this_process())
    with pytest.raises(UserError, match="in use"):
        disk_use.clear_caches(workspace)
    run.update(state="finished", pid=None)
    assert disk_use.clear_caches(workspace) == 1000
    assert not workspace.cache_dir.exists() and run.info_path.exists()


def test_converted_models_are_shown_and_removed(
    context: AppContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = context.workspace
    workspace.cache_dir.mkdir()
    (workspace.cache_dir / "latents").write_bytes(bytes(1000))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    made = tmp_path / "caches" / "lora-atelier" / "models" / "v2-0123" / "unet"
    made.mkdir(parents=True)
    (made / "weights").write_bytes(bytes(3000))
    (place,) = [place for place in disk_use.places(workspace) if place.title == "Converted models"]
    assert size_bytes(place.path) == 3000
    run = workspace.create_run(Config())
    run.update(state="training", **this_process())
    with pytest.raises(UserError, match="in use"):
        disk_use.clear_converted_models(workspace)
    run.update(state="finished", pid=None)
    assert disk_use.clear_converted_models(workspace) == 3000
    assert not made.exists() and (workspace.cache_dir / "latents").exists()


def test_links_out_of_a_folder_are_not_counted(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "big").write_bytes(bytes(5000))
    (tmp_path / "a/link").symlink_to(tmp_path / "big")
    (tmp_path / "a/file").write_bytes(bytes(10))
    assert size_bytes(tmp_path / "a") < 200
    assert size_bytes(tmp_path / "missing") == 0


def test_what_the_driver_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "nvidia-smi"
    lines = ("NVIDIA GeForce RTX 3060, 12288, 550.54.14", "nonsense", "NVIDIA H100, 81559, 550.1")
    program.write_text("#!/bin/sh\n" + "".join(f"echo '{line}'\n" for line in lines))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/bin")
    found = machine.gpus()
    assert [(gpu.name, gpu.memory_bytes // 2**30) for gpu in found] == [
        ("NVIDIA GeForce RTX 3060", 12),
        ("NVIDIA H100", 79),
    ]
    assert "RTX 3060 with 12.9 GB" in machine.trains_on(found[:1], "2.13.0+cu130")
    assert "built without CUDA" in machine.trains_on(found[:1], "2.13.0+cpu")
    assert "processor" in machine.trains_on([], "2.13.0")


def test_facts_name_every_package() -> None:
    names = [name for name, _ in machine.facts()]
    assert {"Trains on", "torch", "diffusers", "gradio"} <= set(names)
    assert machine.version_of("no-such-package") == "not installed"


def test_no_driver_means_no_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.gpus() == []
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\nexit 9\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/bin")
    assert machine.gpus() == []


def test_allowed_optimizers_are_kept_one_a_line(context: AppContext) -> None:
    allow_optimizers(context.workspace, " torch.optim.RAdam \n\ntorch.optim.NAdam\ntorch.optim.RAdam\n")
    assert read_settings(context.workspace).allowed_optimizers == ["torch.optim.RAdam", "torch.optim.NAdam"]
    with pytest.raises(UserError, match="full name of a class"):
        allow_optimizers(context.workspace, "RAdam")
    assert len(read_settings(context.workspace).allowed_optimizers) == 2
    allow_optimizers(context.workspace, "")
    assert read_settings(context.workspace).allowed_optimizers == []
