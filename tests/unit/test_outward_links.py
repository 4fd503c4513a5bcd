"""Links in a folder of a stranger: which of them are followed when the folder is copied."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer.outward_links import outward_links


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data set with a subfolder, and a secret beside it."""
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "key").write_text("secret")
    folder = tmp_path / "set"
    (folder / "10_cat").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    for name in ("a.png", "10_cat/b.png", ".hidden/c.png"):
        (folder / name).write_bytes(b"picture")
    return folder


def found(folder: Path, *hidden: str) -> list[str]:
    return [path.as_posix() for path in outward_links(folder, hidden)]


def test_a_folder_without_links_has_none(folder: Path) -> None:
    assert found(folder) == []


@pytest.mark.parametrize("target", ["a.png", "10_cat", "10_cat/../a.png", ".hidden/c.png"])
def test_a_link_within_the_folder_is_followed(folder: Path, target: str) -> None:
    (folder / "link").symlink_to(target)
    (folder / "full").symlink_to(folder / target)
    assert found(folder) == []


@pytest.mark.parametrize("target", ["../secrets/key", "../secrets", "..", "../set-2", "/etc/hostname", "/"])
@pytest.mark.parametrize("place", ["a.txt", "10_cat/b.txt"])
def test_a_link_out_of_the_folder_is_not(folder: Path, tmp_path: Path, target: str, place: str) -> None:
    (tmp_path / "set-2").mkdir()  # its name begins like the folder's
    (folder / place).symlink_to(target if target.startswith("/") else Path(folder, target).resolve())
    assert found(folder) == [place]


def test_a_way_out_over_other_links_is_seen(folder: Path, tmp_path: Path) -> None:
    (folder / "step.txt").symlink_to(folder / "link.txt")
    (folder / "link.txt").symlink_to(tmp_path / "secrets" / "key")
    (folder / ".hidden" / "key").symlink_to(tmp_path / "secrets" / "key")
    (folder / "shown").symlink_to(".hidden")  # followed, the key would lie in it
    assert found(folder, ".*") == ["link.txt", "shown", "step.txt"]
    assert found(folder) == [".hidden/key", "link.txt", "shown", "step.txt"]


def test_links_that_never_end_are_not_followed(folder: Path) -> None:
    (folder / "circle").symlink_to("circle")
    (folder / "nothing").symlink_to("not there")
    (folder / "10_cat" / "up").symlink_to("..")
    for one, other in (("a", "b"), ("b", "c"), ("c", "a")):  # followed, each would be twice as large as the one before
        (folder / one).mkdir()
        (folder / one / "x").symlink_to(f"../{other}")
        (folder / one / "y").symlink_to(f"../{other}")
    assert found(folder) == ["10_cat/up", "a/x", "a/y", "b/x", "b/y", "c/x", "c/y", "circle", "nothing"]


def test_the_folder_itself_may_be_a_link(folder: Path, tmp_path: Path) -> None:
    (folder / "link.png").symlink_to(folder / "a.png")
    (tmp_path / "named").symlink_to(folder)
    assert found(tmp_path / "named") == []
    (folder / "key").symlink_to(tmp_path / "secrets" / "key")
    assert found(tmp_path / "named") == ["key"]


def test_a_snapshot_of_the_hub_links_to_its_blobs(tmp_path: Path) -> None:
    repository = tmp_path / "models--owner--name"
    snapshot = repository / "snapshots" / "0a1b"
    (snapshot / "unet").mkdir(parents=True)
    (repository / "blobs").mkdir()
    for name in ("blobs/123", "token"):
        (repository / name).write_text(name)
    (snapshot / "unet" / "model.safetensors").symlink_to("../../../blobs/123")
    (snapshot / "model_index.json").symlink_to("../../token")
    assert found(snapshot) == ["model_index.json"]
