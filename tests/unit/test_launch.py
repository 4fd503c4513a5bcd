"""``launch.sh`` on a bare folder: real virtual environments, real pip, no network needed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
UNREACHABLE_REGISTRY = {
    "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
    "PIP_EXTRA_INDEX_URL": "",
    "PIP_FIND_LINKS": "",
    "PIP_RETRIES": "0",
    "PIP_CONFIG_FILE": os.devnull,
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with ``launch.sh``, nothing to install, and an app that says what it was given."""
    shutil.copy(ROOT / "launch.sh", tmp_path)
    for name in ("requirements.txt", "requirements-gpu.txt", "requirements-dev.txt"):
        (tmp_path / name).write_text("# nothing\n")
    (tmp_path / "app.py").write_text("import sys\nsys.stdout.write(' '.join(['app', *sys.argv[1:]]))\n")
    (tmp_path / "trainer").mkdir()
    (tmp_path / "trainer" / "__main__.py").write_text(
        "import sys\nsys.stdout.write(' '.join(['trainer', *sys.argv[1:]]))\n"
    )
    return tmp_path


def launch(checkout: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(checkout / "launch.sh"), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "TMPDIR": str(checkout), **environment},
        cwd="/",
    )


def test_installs_once_then_starts_at_once_and_offline(checkout: Path) -> None:
    first = launch(checkout, "--port", "7861")
    assert (first.returncode, first.stdout) == (0, "app --port 7861"), first.stderr
    before = os.times()
    again = launch(checkout, "trainer", "inspect", "a b.safetensors", **UNREACHABLE_REGISTRY)
    after = os.times()
    seconds = after.children_user + after.children_system - before.children_user - before.children_system
    assert (again.returncode, again.stdout, again.stderr) == (0, "trainer inspect a b.safetensors", "")
    assert seconds < 1, f"nothing to install, and yet {seconds:.1f} s of work"


def test_a_changed_requirement_is_installed_and_an_old_one_is_not_believed(checkout: Path) -> None:
    assert launch(checkout).returncode == 0
    (checkout / "requirements.txt").write_text("no-such-package-of-ours==1\n")
    changed = launch(checkout, **UNREACHABLE_REGISTRY)
    assert changed.returncode == 1
    assert "registry could not be reached" in changed.stderr
    assert (checkout / ".venv" / "bin" / "python").exists(), "a working environment must survive a failed update"
    (checkout / "requirements.txt").write_text("# nothing\n")
    assert launch(checkout, **UNREACHABLE_REGISTRY).returncode == 0


def test_copies_of_the_program_share_a_folder_and_none_of_somebody_else_is_touched(checkout: Path) -> None:
    shared = str(checkout / "shared")
    for _ in range(2):
        result = launch(checkout, "trainer", "runs", **UNREACHABLE_REGISTRY, LORA_ATELIER_VENV=shared)
        assert (result.returncode, result.stdout) == (0, "trainer runs"), result.stderr
    assert not (checkout / ".venv").exists()
    (checkout / "shared" / "installed").unlink()
    assert launch(checkout, **UNREACHABLE_REGISTRY, LORA_ATELIER_VENV=shared).returncode == 0
    (checkout / "own").mkdir()
    (checkout / "own" / "letter.txt").write_text("dear")
    result = launch(checkout, **UNREACHABLE_REGISTRY, LORA_ATELIER_VENV=str(checkout / "own"))
    assert result.returncode == 1 and "was not made by LoRA Atelier" in result.stderr
    assert (checkout / "own" / "letter.txt").read_text() == "dear"


def test_a_failed_first_installation_leaves_nothing(checkout: Path) -> None:
    (checkout / "requirements.txt").write_text("no-such-package-of-ours==1\n")
    result = launch(checkout, **UNREACHABLE_REGISTRY)
    assert result.returncode == 1
    assert "The package registry could not be reached" in result.stderr
    assert not (checkout / ".venv").exists()


@pytest.mark.parametrize("after_seconds", [0.0, 0.03, 0.3, 1.5])
def test_an_interrupted_installation_leaves_nothing(checkout: Path, after_seconds: float) -> None:
    """Whatever the installer is at: starting up, or waiting for the registry."""
    (checkout / "requirements.txt").write_text("no-such-package-of-ours==1\n")
    environment = {**os.environ, **UNREACHABLE_REGISTRY, "PIP_RETRIES": "50", "TMPDIR": str(checkout)}
    process = subprocess.Popen(
        ["bash", "launch.sh"],
        cwd=checkout,
        env=environment,
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
        # where the tests run in the background, Ctrl+C is ignored, and no shell below may then heed it
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stderr is not None
    assert process.stderr.readline().startswith("Installing")
    time.sleep(after_seconds)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert not (checkout / ".venv").exists()


def test_half_an_environment_is_made_anew(checkout: Path) -> None:
    (checkout / ".venv" / "bin").mkdir(parents=True)
    (checkout / ".venv" / "bin" / "python").symlink_to("/usr/bin/false")
    result = launch(checkout)
    assert (result.returncode, result.stdout) == (0, "app"), result.stderr


@pytest.fixture
def bare_path(tmp_path: Path) -> Path:
    """A PATH with the usual tools and no Python."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in ("bash", "dirname", "cksum", "grep", "df", "awk", "rm", "mv", "cat", "sed", "touch"):
        found = shutil.which(tool)
        assert found, tool
        (folder / tool).symlink_to(found)
    return folder


def test_no_python_is_said_in_one_sentence(checkout: Path, bare_path: Path) -> None:
    result = launch(checkout, PATH=str(bare_path), PYTHON="")
    assert result.returncode == 1
    assert result.stderr.startswith("Python 3.10 or newer is needed") and result.stderr.count("\n") == 1


def test_no_venv_module_is_said_in_one_sentence(checkout: Path, bare_path: Path) -> None:
    script = bare_path / "python3"
    script.write_text('#!/bin/bash\nif [ "$1" = -m ]; then echo "No module named venv" >&2; exit 1; fi\nexit 0\n')
    script.chmod(0o755)
    result = launch(checkout, PATH=str(bare_path), PYTHON="")
    assert result.returncode == 1
    assert "python3-venv" in result.stderr and result.stderr.count("\n") == 1
    assert not (checkout / ".venv").exists()


def test_a_full_disk_is_said_in_one_sentence(checkout: Path, bare_path: Path) -> None:
    (bare_path / "python3").symlink_to(sys.executable)
    (bare_path / "df").unlink()
    (bare_path / "df").write_text('#!/bin/bash\necho header\necho "disk 100 90 2048 90% /"\n')
    (bare_path / "df").chmod(0o755)
    result = launch(checkout, PATH=str(bare_path), PYTHON="")
    assert result.returncode == 1
    assert "2 MB are free here" in result.stderr and result.stderr.count("\n") == 1
    assert not (checkout / ".venv").exists()


def put_torch(checkout: Path, version: str) -> None:
    """Let pip find a torch of a version in the environment; nothing of it is there."""
    (packages,) = (checkout / ".venv" / "lib").glob("python*/site-packages")
    folder = packages / f"torch-{version}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n")
    (folder / "RECORD").write_text("")


def test_a_torch_of_the_users_own_is_kept_and_renewed_from_where_it_came(checkout: Path) -> None:
    assert launch(checkout).returncode == 0
    put_torch(checkout, "2.13.0+rocm7.1")
    (checkout / "requirements.txt").write_text("torch==2.13.0\nno-such-package-of-ours==1\n")
    assert launch(checkout, **UNREACHABLE_REGISTRY, PIP_PROXY="http://127.0.0.1:9").returncode == 1
    (log,) = checkout.glob("lora-atelier-install-*.log")
    told = log.read_text()
    assert "Requirement already satisfied: torch==2.13.0" in told
    assert "Looking in indexes: http://127.0.0.1:9/simple, https://download.pytorch.org/whl/rocm7.1" in told
