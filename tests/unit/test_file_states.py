"""Files that stayed as they were are not read again; those that changed are, however they hide it."""

from __future__ import annotations

import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from trainer import file_states
from trainer.families import parts
from trainer.file_states import FileDigests, file_state, is_settled, mark_of


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of files whose bytes are read."""
    read: list[str] = []
    opened = Path.open

    def opening(path: Path, mode: str = "r", *more: object, **named: object) -> object:
        if mode == "rb":
            read.append(path.name)
        return opened(path, mode, *more, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "open", opening)
    return read


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if all files had been left alone for a while."""
    monkeypatch.setattr(file_states, "SETTLED_NS", -1)


def overwrite(path: Path, data: bytes) -> None:
    """Other contents of the same length, and the time of before."""
    before = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace(path: Path, data: bytes) -> None:
    """Likewise by a new file that takes the name."""
    other, before = path.with_suffix(".new"), path.stat()
    other.write_bytes(data)
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(path)


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("change", [overwrite, replace])
def test_only_what_changed_is_read_again(
    change: Callable[[Path, bytes], None], tmp_path: Path, reads: list[str]
) -> None:
    files = [tmp_path / name for name in ("a.png", "b.png")]
    for file in files:
        file.write_bytes(b"before")
    first = FileDigests(tmp_path / "kept")
    assert {first.digest(file) for file in files} == {sha256(b"before").hexdigest()}
    first.keep()
    reads.clear()
    again = FileDigests(tmp_path / "kept")
    assert {again.digest(file) for file in files} == {sha256(b"before").hexdigest()} and reads == []
    change(files[0], b"behind")
    third = FileDigests(tmp_path / "kept")
    reads.clear()
    assert third.digest(files[0]) == sha256(b"behind").hexdigest() and reads == ["a.png"]
    third.keep()
    assert third.digest(files[1]) == sha256(b"before").hexdigest() and reads == ["a.png"]
    with pytest.raises(FileNotFoundError):
        third.digest(tmp_path / "gone.png")


def test_a_file_that_was_just_written_is_not_trusted(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(b"x")
    state = file_state(file)
    assert not is_settled(state, state[2]) and is_settled(state, state[2] + file_states.SETTLED_NS + 1)
    digests = FileDigests(tmp_path / "kept")
    digests.digest(file)
    digests.keep()
    assert not (tmp_path / "kept").exists()


def test_a_mark_changes_with_the_file_and_once_it_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.png"
    assert mark_of(file) is None
    file.write_bytes(b"before")
    seen = [mark_of(file)]
    replace(file, b"behind")
    seen.append(mark_of(file))
    monkeypatch.setattr(file_states, "SETTLED_NS", -1)
    seen.append(mark_of(file))
    assert len(set(seen)) == 3 and mark_of(file) == seen[-1]


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("damaged", ["", "[]", "{", '{"a.png": 3}', '{"a.png": []}'])
def test_a_damaged_memory_is_none(damaged: str, tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(b"x")
    digests = FileDigests(tmp_path / "kept")
    digests.digest(file)
    digests.keep()
    (kept,) = (tmp_path / "kept").iterdir()
    kept.write_text(damaged)
    assert FileDigests(tmp_path / "kept").digest(file) == sha256(b"x").hexdigest()


@pytest.mark.usefixtures("settled")
def test_without_a_folder_or_a_disk_it_still_answers(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(b"x")
    (tmp_path / "kept").write_text("a file where a folder should be")
    for folder in (None, tmp_path / "kept"):
        digests = FileDigests(folder)
        assert digests.digest(file) == sha256(b"x").hexdigest()
        digests.keep()


@pytest.mark.usefixtures("settled")
def test_a_models_weights_are_hashed_once(tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    vae = tmp_path / "vae"
    vae.mkdir()
    (vae / "config.json").write_text("{}")
    weights = vae / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(b"weights")
    expected = sha256(b"config.json{}" + weights.name.encode() + b"weights").hexdigest()[:32]
    assert parts.fingerprint(vae) == expected and weights.name in reads
    reads.clear()
    assert parts.fingerprint(vae) == expected and weights.name not in reads
    overwrite(weights, b"WEIGHTS")
    assert parts.fingerprint(vae) != expected
    weights.write_bytes(b"weights")
    assert parts.fingerprint(vae) == expected
