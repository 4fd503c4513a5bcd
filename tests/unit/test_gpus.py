"""Which GPUs there are, by a driver's tool that is a program of ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from trainer.errors import UserError
from trainer.runs import gpus as module
from trainer.runs.gpus import Gpu, check_device, default_device, gpus, worker_devices

THREE = "0, GPU-aaaa1111, NVIDIA A\n1, GPU-bbbb2222, NVIDIA B, odd name\n2, GPU-cccc3333, NVIDIA C\n"
Driver = Callable[[str], None]


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Driver]:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    gpus.cache_clear()

    def says(answer: str) -> None:
        program = tmp_path / "nvidia-smi"
        (tmp_path / "answer").write_text(answer)
        program.write_text(f"#!/bin/sh\n/bin/cat {tmp_path}/answer\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))

    yield says
    gpus.cache_clear()


@pytest.mark.parametrize(
    ("visible", "uuids"),
    [
        (None, ["GPU-aaaa1111", "GPU-bbbb2222", "GPU-cccc3333"]),
        ("2,0", ["GPU-cccc3333", "GPU-aaaa1111"]),
        ("GPU-bbbb", ["GPU-bbbb2222"]),
        ("", []),
        ("-1", []),
        ("7", []),
    ],
)
def test_the_gpus_that_this_process_may_use(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, visible: str | None, uuids: list[str]
) -> None:
    driver(THREE)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [gpu.uuid for gpu in gpus()] == uuids
    assert worker_devices() == [*(f"cuda:{index}" for index in range(len(uuids))), "cpu"]
    assert default_device() == ("cuda:0" if uuids else "cpu")


def test_names_may_hold_commas_and_other_lines_are_left_out(driver: Driver) -> None:
    driver("warning: something\n\n" + THREE)
    assert gpus()[1] == Gpu("cuda:1", "GPU-bbbb2222", "NVIDIA B, odd name")
    assert len(gpus()) == 3


def test_a_driver_that_does_not_answer_is_one_gpu(driver: Driver, tmp_path: Path) -> None:
    driver("")
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nexit 9\n")
    assert gpus() == (Gpu("cuda:0", "", "NVIDIA GPU"),)


def test_only_devices_that_are_here_can_be_chosen(driver: Driver) -> None:
    driver(THREE)
    for device in (None, "cuda:2", "cpu"):
        check_device(device)
    with pytest.raises(UserError, match="no device 'cuda:3' here; there are any, cuda:0, cuda:1, cuda:2, cpu"):
        check_device("cuda:3")


def test_without_a_driver_there_is_the_cpu(driver: Driver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(module, "Path", lambda name: tmp_path / "no-driver")
    assert worker_devices() == ["cpu"]
