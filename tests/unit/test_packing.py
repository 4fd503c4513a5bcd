"""What a packed training holds: nothing from elsewhere, in places within it, under names that schedulers take."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from trainer.__main__ import main
from trainer.config import Config
from trainer.config_io import parse_config, save_config
from trainer.pack_scripts import KUBERNETES, job_name
from trainer.packing import planned

SECRET = "of this machine only"
LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
"""An RFC 1123 label, as Kubernetes checks it."""


@pytest.fixture
def cats(tmp_path: Path) -> Path:
    """A data set, and a secret beside it."""
    (tmp_path / "key").write_text(SECRET)
    cats = tmp_path / "data" / "cats"
    (cats / "more").mkdir(parents=True)
    (cats / "a.png").write_bytes(b"a picture")
    return cats


def config_of(path: Path | str, **values: object) -> Config:
    return parse_config({"dataset": {"sources": [{"path": str(path)}]}, **values})


@pytest.fixture
def packing(cats: Path, tmp_path: Path) -> Callable[..., int]:
    """Pack the data set; the exit code."""
    save_config(config_of(cats), tmp_path / "config.yaml")
    command = ["pack", str(tmp_path / "config.yaml"), "--out", str(tmp_path / "packed")]
    return lambda *options: main([*command, *options])


def test_a_data_set_with_links_out_of_it_is_not_packed(
    cats: Path, tmp_path: Path, packing: Callable[..., int], capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.txt", "more/b.txt", "c.txt"):
        (cats / name).symlink_to(tmp_path / "key")
    (cats / "folder").symlink_to(tmp_path)
    assert packing("--with-data") == 2 and not (tmp_path / "packed").exists()
    assert "a.txt, c.txt, folder and 1 more lead out" in capfd.readouterr().err
    assert packing() == 0  # without the data


def test_links_within_a_data_set_are_packed_as_files(cats: Path, tmp_path: Path, packing: Callable[..., int]) -> None:
    (cats / "again.png").symlink_to("a.png")
    (cats / ".hidden").symlink_to(tmp_path)
    assert packing("--with-data") == 0
    packed = tmp_path / "packed" / "data" / "1" / "cats"
    assert sorted(path.name for path in packed.iterdir()) == ["a.png", "again.png", "more"]
    assert (packed / "again.png").read_bytes() == b"a picture" and not (packed / "again.png").is_symlink()
    files = [path for path in (tmp_path / "packed").rglob("*") if path.is_file()]
    assert len(files) > 100 and not any(SECRET.encode() in path.read_bytes() for path in files)


@pytest.mark.parametrize(
    "way", ["..", "../cats", "more/..", "more/../../cats", ".", "../..", "../../../../../../../.."]
)
def test_every_place_is_within_the_packed_folder(cats: Path, way: str) -> None:
    packed = planned(config_of(f"{cats}/{way}"), with_data=True, with_model=False)
    (place,) = packed.copies
    data, number, name = place.split("/")
    assert (data, number) == ("data", "1") and name.strip(".")
    assert packed.config.dataset.sources[0].path == place


def test_a_name_is_the_one_that_was_given(cats: Path, tmp_path: Path) -> None:
    (tmp_path / "dogs").symlink_to(cats)
    for path in (tmp_path / "dogs", cats / ".." / ".." / "dogs"):
        assert list(planned(config_of(path), with_data=True, with_model=False).copies) == ["data/1/dogs"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("my style", "my-style"),
        ("Müller_Straße 2", "muller-strae-2"),
        ("猫", "lora"),
        ("--x--", "x"),
        ("a" * 62 + " b", "a" * 62),
        ("2026-11-29", "2026-11-29"),
    ],
)
def test_names_of_jobs(name: str, expected: str) -> None:
    assert job_name(name) == expected


@given(st.text() | st.text("aé- _", max_size=80))
def test_every_name_is_one_that_schedulers_take(name: str) -> None:
    assert LABEL.fullmatch(job_name(name))


@pytest.mark.parametrize("name", ["cat", "1e5", "null", "no", "0x1f", "12", "2026-11-29"])
def test_the_name_stays_a_text_where_yaml_would_read_something_else(name: str) -> None:
    job = yaml.safe_load(KUBERNETES.format(name=job_name(name)))
    claim = job["spec"]["template"]["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"]
    assert job["metadata"]["name"] == claim == name
