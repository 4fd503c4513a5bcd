"""A model's files are in the system's memory before they are loaded, and nothing else comes of it."""

from __future__ import annotations

import ctypes
import mmap
import os
import time
from pathlib import Path

import numpy as np
import pytest

from trainer import loading, reading_ahead
from trainer.config import ModelSettings
from trainer.demo import MODEL_DIR
from trainer.errors import UserError
from trainer.reading_ahead import read_ahead, weights_of

WEIGHTS = "diffusion_pytorch_model.safetensors"
SIZE = 24 << 20


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The files of a model, as far as their names tell; of the UNet there are two versions."""
    folder = tmp_path / "model"
    for name in (f"unet/{WEIGHTS}", "unet/diffusion_pytorch_model.fp16.safetensors", f"vae/{WEIGHTS}"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x" * SIZE)
    (folder / "model_index.json").write_text("{}")
    return folder


def resident(path: Path) -> float:
    """The share of a file's pages that are in memory, by mincore(2)."""
    size = path.stat().st_size
    pages = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
    with path.open("rb") as file, mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ) as mapped:
        view = np.frombuffer(mapped, dtype=np.uint8)
        address = view.ctypes.data
        assert ctypes.CDLL(None).mincore(ctypes.c_void_p(address), ctypes.c_size_t(size), pages) == 0
        del view
    return sum(page & 1 for page in bytes(pages)) / len(pages)


def forget(path: Path) -> None:
    """Have the system let a file's pages go."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if resident(path) > 0.1:
        pytest.skip("this file system keeps the pages of its files")


def test_the_files_are_those_that_are_read_and_the_unet_comes_first(model: Path, tmp_path: Path) -> None:
    parts = [path.relative_to(MODEL_DIR).parts[0] for path in weights_of(ModelSettings(base="demo"))]
    assert parts == ["unet", "vae", "text_encoder"]
    other = tmp_path / "other-vae"
    other.mkdir()
    (other / "config.json").write_text("{}")
    (other / WEIGHTS).write_bytes(b"x")
    assert weights_of(ModelSettings(base=str(model))) == [model / "unet" / WEIGHTS, model / "vae" / WEIGHTS]
    assert weights_of(ModelSettings(base=str(model), vae=str(other)))[1:] == [other / WEIGHTS]


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="pages can only be dropped on Linux")
@pytest.mark.parametrize("asked", [True, False], ids=["asked for", "read"])
def test_pages_that_were_on_the_disk_are_in_memory(model: Path, asked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    files = weights_of(ModelSettings(base=str(model)))
    for path in files:
        forget(path)
    with monkeypatch.context() as patched:
        if not asked:
            patched.delattr(os, "posix_fadvise")  # as on Windows and macOS
        read_ahead(ModelSettings(base=str(model))).join()
    deadline = time.monotonic() + 60
    while min(resident(path) for path in files) < 0.9:
        assert time.monotonic() < deadline, "the files were not read"
        time.sleep(0.05)


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="pages can only be dropped on Linux")
def test_a_model_that_does_not_fit_into_memory_is_left_on_the_disk(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = model / "unet" / WEIGHTS
    forget(path)
    monkeypatch.setattr(reading_ahead, "_MOST_OF_MEMORY", 0)
    read_ahead(ModelSettings(base=str(model))).join()
    time.sleep(0.2)
    assert resident(path) < 0.1


@pytest.mark.parametrize("base", ["/no/such/model", "nobody/nothing", "not a name"])
def test_a_model_that_is_not_there_is_told_of_by_loading_alone(base: str, capfd: pytest.CaptureFixture[str]) -> None:
    read_ahead(ModelSettings(base=base)).join()
    assert capfd.readouterr() == ("", "")


def test_a_folder_without_weights_has_no_files(tmp_path: Path) -> None:
    with pytest.raises(UserError):
        weights_of(ModelSettings(base=str(tmp_path)))
    (tmp_path / "model_index.json").write_text("{}")
    assert weights_of(ModelSettings(base=str(tmp_path))) == []


def test_reading_begins_before_the_libraries_are_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []
    monkeypatch.setattr(loading, "read_ahead", lambda model: begun.append(model.base))
    monkeypatch.setattr(loading, "_nothing_to_collect", lambda module: pytest.fail(f"{module} after {begun}"))
    with pytest.raises(pytest.fail.Exception, match=r"after \['demo'\]"):
        loading.load_train(ModelSettings(base="demo"))
