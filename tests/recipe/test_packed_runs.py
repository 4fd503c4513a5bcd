"""A packed training, moved to another place, trains there with its one command what it would have trained here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.recipe.tiny_runs import losses_of, make_pictures, train_here
from tests.tiny_models import tiny_model
from trainer.__main__ import main
from trainer.config import Config
from trainer.config_io import load_config, save_config
from trainer.errors import UserError
from trainer.packing import planned
from trainer.runs.store import Run, Workspace


@pytest.fixture
def config(config_of: Callable[..., Config], tmp_path: Path) -> Config:
    """Pictures and a model that are deleted after packing."""
    pictures = make_pictures(tmp_path / "here" / "circles")
    model = tiny_model("sd1", tmp_path / "here" / "model")
    settings = config_of(train__max_steps=2, model__base=str(model))
    source = settings.dataset.sources[0].model_copy(update={"path": str(pictures)})
    dataset = settings.dataset.model_copy(update={"sources": [source]})
    return settings.model_copy(update={"dataset": dataset})


def test_it_trains_elsewhere_what_it_trains_here(
    config: Config, workspace: Workspace, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    here = workspace.create_run(config)
    train_here(here)
    place = ["--workspace", str(workspace.dir), "--json"]
    assert main(["pack", here.id, "--out", str(tmp_path / "packed"), "--with-data", "--with-model", *place]) == 0
    answer = json.loads(capfd.readouterr().out)
    assert answer["missing"] == [] and answer["copied"] == ["models/1/model", "data/2/circles"]
    assert main(["pack", here.id, "--out", str(tmp_path / "packed"), *place]) == 2  # it is there

    moved = shutil.move(tmp_path / "packed", tmp_path / "on another machine")
    shutil.rmtree(tmp_path / "here")
    for name in ("config.yaml", "run.sh", "README.md", "job.sbatch", "job.yaml"):
        assert str(tmp_path) not in (moved / name).read_text()
    environment = {**os.environ, "PYTHON": sys.executable}
    environment.pop("PYTHONPATH", None)

    def run_it(*options: str) -> int:
        command = ["bash", str(moved / "run.sh"), *options]
        process = subprocess.Popen(command, cwd="/", env=environment, stderr=subprocess.PIPE, text=True)
        said = process.communicate()[1]
        assert process.returncode == 0, said
        return process.pid

    run_it("--set", "train.max_steps=2")
    there = Run(moved / "run")
    assert there.output_path.read_bytes() == here.output_path.read_bytes() and losses_of(there) == losses_of(here)

    teller = tmp_path / "tells what it is asked for"
    teller.write_text('#!/bin/sh\nprintf "%s\\n" $$ "$@" > "$0.told"\n')
    teller.chmod(0o755)
    environment["PYTHON"] = str(teller)
    number = run_it("--max-steps", "3")  # the same command goes on
    process, *told = Path(f"{teller}.told").read_text().splitlines()
    assert process == str(number), "a scheduler tells the process that it has started: the trainer has to be that"
    assert told == ["-m", "trainer", "resume", str(there.dir), "--max-steps", "3"]


def test_what_is_not_packed_is_named_and_settings_of_the_hub_stay(config: Config, tmp_path: Path) -> None:
    lora = config.lora.model_copy(update={"init_from": "owner/lora"})
    packed = planned(config.model_copy(update={"lora": lora}), with_data=False, with_model=False)
    assert list(packed.missing) == ["models/1/model", "data/2/circles"] and not packed.copies
    assert packed.config.lora.init_from == "owner/lora" and packed.config.model.base == "models/1/model"
    save_config(config, tmp_path / "config.yaml")
    out = tmp_path / "packed"
    assert main(["pack", str(tmp_path / "config.yaml"), "--out", str(out)]) == 0
    assert "data/2/circles" in (out / "README.md").read_text()
    assert load_config(out / "config.yaml").dataset.sources[0].path == str(out / "data" / "2" / "circles")
    pod = yaml.safe_load((out / "job.yaml").read_text())["spec"]["template"]["spec"]
    assert pod["containers"][0]["command"] == ["bash", "/job/run.sh"]
    subprocess.run(["bash", "-n", str(out / "run.sh")], check=True)
    subprocess.run(["bash", "-n", str(out / "job.sbatch")], check=True)
    assert "#SBATCH --signal=B:TERM@120\n" in (out / "job.sbatch").read_text(), "else only job steps get it: sbatch(1)"

    shutil.rmtree(tmp_path / "here" / "circles")
    with pytest.raises(UserError, match="is not there"):
        planned(config, with_data=True, with_model=True)
    assert main(["pack", str(tmp_path / "config.yaml"), "--out", str(tmp_path / "again"), "--with-data"]) == 2
    assert not (tmp_path / "again").exists()
