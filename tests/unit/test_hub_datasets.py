"""A data set of a hub on this machine, brought in by its name: its pictures to the byte, and what is told when not."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.hub_server import Fault, Hub, hub_environment, hub_server
from tests.running_app import ROOT

pytest.importorskip("datasets")


CHUNK_BYTES = 10 << 20
"""What the client has of a file in its memory before it writes that down: of less nothing can be gone on with."""


def png(shade: int, side: int = 40) -> bytes:
    data = io.BytesIO()
    Image.effect_noise((side, side), shade).save(data, format="PNG", compress_level=0)
    return data.getvalue()


def imported(hub: Hub, tmp_path: Path, name: str) -> tuple[int, dict[str, Any], str]:
    """Exit code, answer and errors of the command, in a process that knows no other hub."""
    command = [sys.executable, "-m", "trainer", "import", name, "--name", "got", "--workspace", str(tmp_path), "--json"]
    environment = {**os.environ, **hub_environment(hub, tmp_path / "home", token=None), "HF_DATASETS_OFFLINE": "0"}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    return result.returncode, json.loads(result.stdout), result.stderr


def test_a_data_set_comes_by_its_name(tmp_path: Path) -> None:
    from datasets import Dataset, Features, Value
    from datasets import Image as ImageColumn

    pictures = [png(30), png(60, 3500)]
    rows = {"image": [{"bytes": data, "path": None} for data in pictures], "text": ["one", "two"]}
    folder = tmp_path / "offered"
    (folder / "data").mkdir(parents=True)
    columns = Features({"image": ImageColumn(), "text": Value("string")})
    Dataset.from_dict(rows, features=columns).to_parquet(folder / "data" / "train-00000-of-00001.parquet")
    with hub_server() as hub:
        hub.add("datasets/owner/pictures", folder)
        hub.faults.append(Fault(".*/resolve/.*parquet", "GET", cut=CHUNK_BYTES + 1000))
        code, answer, errors = imported(hub, tmp_path, "owner/pictures")
        assert code == 0, errors
        assert hub.ranges == [f"bytes={CHUNK_BYTES}-"], "a lost connection is taken up where it broke"
        assert answer["pictures"] == 2 and answer["captions"] == 2
        got = tmp_path / "datasets" / "got"
        assert sorted(path.read_bytes() for path in got.glob("*.png")) == sorted(pictures)
        assert (got / "0000001.txt").read_text() == "two"
        shutil.rmtree(got)

        code, answer, _ = imported(hub, tmp_path, "owner/nothing")
        (problem,) = answer["error"]
        assert code == 2 and "owner/nothing" in problem["message"] and not got.exists()
