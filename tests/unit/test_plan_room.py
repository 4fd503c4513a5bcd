"""The memory a run will find: given in words, of the machine, and as a GPU's driver tells it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import psutil
import pytest

from trainer import plan_room
from trainer.errors import UserError
from trainer.plan_room import MEMORY_VARIABLE, parse_memory, room_here
from trainer.runs.gpus import gpus

GIB = 2**30
MIB = 2**20


@pytest.mark.parametrize(
    ("text", "expected"),
    [("8GB", 8 * GIB), ("7.5 GiB", 7.5 * GIB), ("8192MB", 8 * GIB), ("8", 8 * GIB), (" 12 g ", 12 * GIB)],
)
def test_amounts_of_memory(text: str, expected: float) -> None:
    assert parse_memory(text) == expected


@pytest.mark.parametrize("text", ["", "eight", "-8GB", "8TB", "0", "0.1GB", "8GB free"])
def test_what_is_no_amount_is_told(text: str) -> None:
    with pytest.raises(UserError, match="and more") as caught:
        parse_memory(text)
    assert caught.value.problems[0].field == "memory"


def test_a_given_memory_is_a_free_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    room = room_here("8GB")
    assert (room.kind, room.free_bytes, room.on_gpu, room.holders) == ("given", 8 * GIB, True, ())
    monkeypatch.setenv(MEMORY_VARIABLE, "6GB")
    assert room_here().free_bytes == 6 * GIB and room_here("8GB").free_bytes == 8 * GIB


def test_a_twentieth_stays_free() -> None:
    room = room_here("8GB")
    assert room.holds(int(7.6 * GIB)) and not room.holds(int(7.6 * GIB) + MIB)


def driver(folder: Path, monkeypatch: pytest.MonkeyPatch, processes: str) -> None:
    """A program that answers as the NVIDIA driver's does on a machine with two GPUs."""
    program = folder / "nvidia-smi"
    program.write_text(
        "#!/bin/sh\ncase \"$*\" in\n*compute-apps*) cat <<'END'\n" + processes + "\nEND\n;;\n"
        "*index,uuid*) echo '0, GPU-a, NVIDIA RTX 3070'; echo '1, GPU-b, NVIDIA RTX 4090';;\n"
        "*--id=GPU-a*) echo '8192, 5120';;\n*--id=GPU-b*) echo '24564, 24000';;\nesac\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/bin")
    monkeypatch.delenv(MEMORY_VARIABLE, raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(plan_room, "torch_build", lambda: "")
    monkeypatch.setattr(plan_room, "gpus", gpus.__wrapped__)  # asked anew each time


def test_a_gpu_with_what_others_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = os.getpid()
    monkeypatch.setattr(
        psutil.Process,
        "cmdline",
        lambda process: [sys.executable, "-m", "trainer", "studio"] if process.pid == mine else ["game"],
    )
    apps = f"GPU-a, {mine}, 1024, /usr/bin/python3\nGPU-a, {os.getppid()}, 2048, C:\\Games\\game.exe\nGPU-b, 1, 9, x"
    driver(tmp_path, monkeypatch, apps)
    room = room_here()
    assert (room.kind, room.name, room.total_bytes) == ("gpu", "NVIDIA RTX 3070", 8192 * MIB)
    assert room.free_bytes == (5120 + 1024) * MIB  # this program's own job will have ended
    assert [(each.name, each.bytes, each.ours) for each in room.holders] == [
        ("game.exe", 2048 * MIB, False),
        ("LoRA Atelier", 1024 * MIB, True),
    ]


def test_the_gpu_that_a_run_may_see(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver(tmp_path, monkeypatch, "")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert room_here().name == "NVIDIA RTX 4090"
    for hidden in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        assert room_here().kind == "cpu"


def test_without_a_gpu_that_torch_can_use_it_is_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver(tmp_path, monkeypatch, "")
    monkeypatch.setattr(plan_room, "torch_build", lambda: "cpu")
    room = room_here()
    assert room.kind == "cpu" and not room.on_gpu and room.total_bytes == psutil.virtual_memory().total
    monkeypatch.setattr(plan_room, "torch_build", lambda: "")
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert room_here().kind == "cpu"
