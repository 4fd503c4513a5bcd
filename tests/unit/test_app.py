"""app.py: options, refusals in one sentence, and a page process that never loads torch."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

import app
from tests.running_app import free_port
from trainer.errors import UserError
from ui import serving

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "options", [["--host", "0.0.0.0"], ["--share"], ["--host", "192.168.1.5", "--share"], ["--allowed-host", "box"]]
)
def test_an_open_page_without_password_is_refused(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main([*options, "--no-browser"]) == 2
    assert "--auth-file" in capsys.readouterr().err


def test_a_busy_port_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert app.main(["--port", str(port), "--workspace", str(tmp_path), "--no-browser"]) == 2
    message = capsys.readouterr().err
    assert f"--port {port}" in message and "already" in message


@pytest.mark.parametrize("port", ["70000", "-1"])
def test_a_number_that_is_no_port_is_told(port: str, tmp_path: Path) -> None:
    assert app.main([f"--port={port}", "--workspace", str(tmp_path), "--no-browser"]) == 2


def test_folders_that_do_not_exist_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="missing"):
        serving.check_folders([tmp_path, tmp_path / "missing"])
    assert serving.check_folders([tmp_path]) == (tmp_path.resolve(),)


def test_a_workspace_that_cannot_be_written_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("x")
    assert app.main(["--port", str(free_port()), "--workspace", str(tmp_path / "file"), "--no-browser"]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_the_page_never_loads_torch(tmp_path: Path) -> None:
    script = (
        "from ui.context import AppContext\n"
        "from ui.shell import build_page\n"
        "build_page(AppContext(workspace))\n"
        "print(sorted({'torch', 'diffusers', 'transformers', 'peft'} & set(sys.modules)))\n"
    )
    assert prepared(script, tmp_path) == "[]"


def test_it_starts_on_a_busy_machine_too(tmp_path: Path) -> None:
    """Gradio asks its own page whether it is there, and takes an answer after more than 3 s for none."""
    script = (
        "from gradio import networking\n"
        "networking.url_ok = lambda url: False\n"
        "options = dict(host='127.0.0.1', port=int(sys.argv[2]), door=None, share=False)\n"
        "print(serving.start(workspace, (), **options))\n"
    )
    port = free_port()
    assert prepared(script, tmp_path, port) == f"http://127.0.0.1:{port}/"


def prepared(script: str, *arguments: object) -> str:
    """What a script prints in a process that is prepared to serve the page on the workspace that comes first."""
    beginning = (
        "import sys\n"
        "from pathlib import Path\n"
        "from trainer.runs.store import Workspace\n"
        "from ui import serving\n"
        "workspace = Workspace(Path(sys.argv[1]))\n"
        "serving.prepare_process(workspace)\n"
    )
    command = [sys.executable, "-c", beginning + script, *map(str, arguments)]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, env=_environment())
    return answer.stdout.strip()


def _environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": str(ROOT)}
