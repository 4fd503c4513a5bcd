"""What a command loads before it has anything to compute: never torch, nor the libraries of models."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.recipe.tiny_runs import make_pictures
from trainer.__main__ import COMMANDS, INTERNAL_COMMANDS, module_of
from trainer.config_io import parse_config, save_config

ROOT = Path(__file__).resolve().parents[2]
HEAVY = "{'torch', 'diffusers', 'transformers', 'peft', 'accelerate', 'scipy', 'onnxruntime', 'gradio', 'datasets'}"


def loaded_by(code: str) -> list[str]:
    """Which heavy modules are there after some code ran in a process of its own."""
    script = f"import sys\n{code}\nsys.stderr.write('LOADED ' + ' '.join(sorted({HEAVY} & set(sys.modules))))"
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stderr.rpartition("LOADED ")[2].split()


def test_no_command_loads_torch_before_it_reads_its_arguments() -> None:
    modules = [f"trainer.commands.{module_of(name)}" for name in (*COMMANDS, *INTERNAL_COMMANDS)]
    assert loaded_by(f"import importlib\nfor each in {modules}:\n    importlib.import_module(each)") == []


def test_what_needs_no_model_never_loads_one(tmp_path: Path) -> None:
    """The check before the start, the queue and a look at pictures."""
    pictures = make_pictures(tmp_path / "pictures")
    config = {"dataset": {"sources": [{"path": str(pictures)}], "resolution": 64}}
    save_config(parse_config(config), tmp_path / "config.yaml")
    place = ["--workspace", str(tmp_path / "workspace")]
    commands = [
        ["plan", str(tmp_path / "config.yaml"), *place],
        ["runs", "list", *place],
        ["queue", "list", *place],
        ["dataset", str(pictures)],
        ["read-config", str(tmp_path / "config.yaml")],
    ]
    code = f"from trainer.__main__ import main\nfor each in {json.dumps(commands)}:\n    assert main(each) == 0, each"
    assert loaded_by(code) == []
