"""Runs on another machine, behind a real SSH server: trained there, told here, and never lost on the way."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import forked
from tests.forked import Command
from tests.recipe.tiny_runs import losses_of, make_pictures, quick_settings, train_here
from tests.running_app import processes_of
from tests.ssh_server import SshServer
from tests.tiny_models import tiny_model
from tests.unit.queue_trainer import wait
from trainer.__main__ import main
from trainer.checkpoint_folders import checkpoints, step_of
from trainer.config import Config
from trainer.config_io import save_config
from trainer.remote import hosts
from trainer.remote.sending import program_digest
from trainer.runs import actions
from trainer.runs.store import ALIVE, Run, Workspace

SECONDS = 240
"""A start over there imports torch, on a busy machine."""
ENDLESS = 100_000
"""Steps of a run that goes on until it is stopped, however fast the machine is."""


@pytest.fixture(scope="module")
def there(ssh_server: SshServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Our folder on the other machine; what works in it is ended."""
    folder = tmp_path_factory.mktemp("machine") / "its folder"
    yield folder
    for process in processes_of(folder):
        process.kill()


@pytest.fixture
def workspace(workspace: Workspace, ssh_server: SshServer, there: Path) -> Workspace:
    hosts.add(workspace, ssh_server.host(there))
    return workspace


@pytest.fixture
def config_file(config_of: Callable[..., Config], tmp_path: Path) -> Callable[[int], Path]:
    """A config file of so many steps, with a checkpoint for every five."""

    def write(steps: int) -> Path:
        settings = quick_settings(tiny_model("sd1", tmp_path / "model"), steps)
        config = config_of(**settings, output__save_every_steps=5, output__keep_last=2)
        source = config.dataset.sources[0].model_copy(
            update={"path": str(make_pictures(tmp_path / f"some {tmp_path.name}"))}
        )
        changed = config.model_copy(update={"dataset": config.dataset.model_copy(update={"sources": [source]})})
        save_config(changed, tmp_path / "config.yaml")
        return tmp_path / "config.yaml"

    return write


def begin(config: Path, workspace: Workspace) -> tuple[Command, Run]:
    """``train --on gpubox``, and its run once there is one."""
    command = forked.start("train", str(config), "--on", "gpubox", "--workspace", str(workspace.dir))
    wait(lambda: bool(workspace.runs()) or command.poll() is not None, SECONDS)
    runs = workspace.runs()
    assert runs, command.communicate()
    return command, runs[0]


def step_comes(run: Run, step: int) -> None:
    """The run is told here to have come so far, while it goes on."""
    wait(lambda: run.read().step >= step or run.read().state not in ALIVE, SECONDS)
    assert run.read().step >= step, run.read()


def test_it_is_trained_there_and_told_here(
    config_file: Callable[[int], Path], workspace: Workspace, there: Path
) -> None:
    command, run = begin(config_file(40), workspace)
    assert command.wait(SECONDS) == 0, command.communicate()
    info = run.read()
    assert (info.state, info.step, info.host, info.host_words) == ("finished", 40, None, "")
    assert list(losses_of(run)) == list(range(1, 41))
    theirs = Run(there / "workspace" / "runs" / run.id)
    for path in (*theirs.output_dir.iterdir(), theirs.events_path, theirs.log_path):
        assert (run.dir / path.relative_to(theirs.dir)).read_bytes() == path.read_bytes()
    assert [step_of(path) for path in checkpoints(run.checkpoints_dir)] == [35, 40]
    here = workspace.create_run(run.config())
    train_here(here)
    assert losses_of(here) == losses_of(run)
    assert here.output_path.read_bytes() == run.output_path.read_bytes()


def test_cut_off_killed_and_stopped_nothing_is_lost(
    config_file: Callable[[int], Path], workspace: Workspace, ssh_server: SshServer, there: Path
) -> None:
    command, run = begin(config_file(ENDLESS), workspace)
    theirs = Run(there / "workspace" / "runs" / run.id)
    step_comes(run, 3)
    assert (run.read().host, run.read().state) == ("gpubox", "training")

    ssh_server.cut_off()
    wait(lambda: "No answer from gpubox" in run.read().host_words, SECONDS)
    seen = run.read()
    assert seen.state == "training"
    wait(lambda: theirs.read().step > seen.step, SECONDS)
    ssh_server.start()
    step_comes(run, seen.step + 1)
    wait(lambda: run.read().host_words == "", SECONDS)

    command.send_signal(signal.SIGKILL)
    command.wait()
    assert run.status().state == "failed"
    assert "The run goes on on gpubox" in str(run.read().error)
    assert main(["runs", "delete", run.id, "--workspace", str(workspace.dir)]) == 2
    assert main(["resume", str(run.dir)]) == 2, "it would be trained twice"
    assert theirs.status().state == "training"
    trainer = theirs.read().pid

    older = shutil.copytree(there / "program" / program_digest(), there / "program" / "older")
    with (older / "trainer" / "commands" / "runs.py").open("a") as command_there:
        command_there.write(f"\nopen({str(there / 'asked')!r}, 'w').close()\n")
    (run.dir / ".there" / "program").write_text("older")  # the program here was updated meanwhile

    again = forked.start("resume", str(run.dir), "--on", "gpubox")
    wait(lambda: run.read().state == "training", SECONDS)
    assert theirs.read().pid == trainer, "it was followed, not begun again"
    actions.stop(run)
    assert again.wait(SECONDS) == 3, again.communicate()
    info = run.read()
    assert (there / "asked").exists(), "the run was begun by the older one"
    assert (info.state, info.host) == ("stopped", None) and info.step == theirs.read().step
    assert step_of(checkpoints(run.checkpoints_dir)[-1]) == info.step

    assert main(["resume", str(run.dir), "--max-steps", str(info.step + 2)]) == 0, "what is here goes on here"
    further = forked.start("resume", str(run.dir), "--on", "gpubox", "--max-steps", str(info.step + 4))
    assert further.wait(SECONDS) == 0, further.communicate()
    assert list(losses_of(run)) == list(range(1, info.step + 5))
    assert run.read().state == theirs.read().state == "finished"


def test_a_device_that_is_not_there_is_told(
    config_file: Callable[[int], Path],
    workspace: Workspace,
    ssh_server: SshServer,
    there: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    hosts.add(workspace, ssh_server.host(there).model_copy(update={"devices": "cuda:7"}))
    place = ["--workspace", str(workspace.dir)]
    for command in (["remote", "check", "gpubox"], ["train", str(config_file(5)), "--on", "gpubox"]):
        assert main([*command, *place]) == 2
        assert "cuda:7" in capfd.readouterr().err
    assert not workspace.runs()
    newest = Workspace(there / "workspace").runs()[0].read()
    assert (newest.state, newest.wanted_device) == ("stopped", "cuda:7"), "it does not wait there for ever"


@pytest.mark.parametrize("wrong", ["key", "machine", "port"])
def test_what_cannot_be_reached_is_told_and_leaves_nothing(
    wrong: str,
    config_file: Callable[[int], Path],
    workspace: Workspace,
    ssh_server: SshServer,
    there: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    host = ssh_server.host(there)
    settings = Path(host.ssh_config).read_text()
    if wrong == "key":
        other, expected = settings.replace("/user", "/stranger"), "Permission denied. Set up a key"
    elif wrong == "machine":
        other, expected = (
            settings.replace("known_hosts", "nobody"),
            "Host key verification failed. Connect once by hand",
        )
    else:
        other, expected = settings, "Connection refused. Is there an SSH server"
        host = host.model_copy(update={"port": 1})
    changed = workspace.dir / "ssh_config"
    changed.write_text(other)
    hosts.add(workspace, host.model_copy(update={"ssh_config": str(changed)}))
    assert main(["train", str(config_file(5)), "--on", "gpubox", "--workspace", str(workspace.dir), "--json"]) == 2
    problem = json.loads(capfd.readouterr().out)["error"][0]
    assert f"{problem['message']} {problem['hint']}".startswith(f"gpubox: {expected}"), problem
    assert not workspace.runs()


def test_what_has_changed_is_brought_there_again(
    config_file: Callable[[int], Path], workspace: Workspace, there: Path, tmp_path: Path
) -> None:
    config, pictures = config_file(1), tmp_path / f"some {tmp_path.name}"
    for _ in range(2):
        assert main(["train", str(config), "--on", "gpubox", "--workspace", str(workspace.dir)]) == 0
        sent = sorted(path.name for path in there.glob(f"data/*/some {tmp_path.name}/*"))
        assert sent == sorted(path.name for path in pictures.iterdir() if path.name[0] != ".")
        (pictures / "0.png").unlink(missing_ok=True)
        shutil.copy(pictures / "1.png", pictures / "new.png")
