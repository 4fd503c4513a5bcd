"""What another machine may do to this one by what it has in a run's folder: tell how the run is, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests import forked
from tests.ssh_server import SshServer
from tests.unit.queue_trainer import wait
from trainer.__main__ import main
from trainer.config import Config
from trainer.config_io import save_config
from trainer.remote import hosts, mirror
from trainer.remote.driving import train_elsewhere
from trainer.runs.events import Events
from trainer.runs.store import Run, Workspace

SECONDS = 120


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """Our folder on the other machine."""
    return tmp_path / "there"


@pytest.fixture
def run(tmp_path: Path, ssh_server: SshServer, there: Path) -> Run:
    """A run that was begun on the other machine, and that nobody follows; there it has finished."""
    workspace = Workspace(tmp_path / "workspace")
    hosts.add(workspace, ssh_server.host(there))
    source = {"path": str(tmp_path / "pictures")}
    config = Config.model_validate({"name": "mine", "dataset": {"sources": [source]}, "train": {"max_steps": 40}})
    run = workspace.create_run(config, queued=False)
    run.update(state="failed", host="gpubox", step=10)
    shutil.copytree(run.dir, theirs_of(run, there).dir)
    tell(run, there)
    return run


def theirs_of(run: Run, there: Path) -> Run:
    """The run's folder there."""
    return Run(there / "workspace" / "runs" / run.id)


def told(run: Run, **changes: Any) -> bytes:
    """What the other machine tells of the run."""
    values = {"state": "finished", "step": 40, "max_steps": 40, "exit_code": 0}
    return json.dumps({**run.read().model_dump(), **values, **changes}).encode()


def tell(run: Run, there: Path) -> None:
    """Have the other machine tell that the run is finished."""
    theirs_of(run, there).info_path.write_bytes(told(run))


def with_sleep(sleep: Callable[[float], None]) -> SimpleNamespace:
    """A clock with which waiting is something else."""
    return SimpleNamespace(sleep=sleep, monotonic=time.monotonic, strftime=time.strftime)


def follow(run: Run) -> None:
    """Follow it to its end."""
    host = hosts.host_of(run.workspace, "gpubox")
    train_elsewhere(run, host, Events())


def test_no_setting_but_the_prompts_is_taken(run: Run, there: Path, tmp_path: Path) -> None:
    ours = run.config()
    theirs = theirs_of(run, there)
    secrets = str(tmp_path / "secrets")
    changed = ours.model_dump()
    changed["dataset"]["sources"].append({**changed["dataset"]["sources"][0], "path": secrets})
    changed["model"]["vae"] = secrets
    changed["output"]["hub_repo"] = "somebody/takes-it"
    changed["lora"]["init_from"] = f"{secrets}/a.safetensors"
    changed["samples"]["prompts"] = [{"prompt": "another"}]
    save_config(Config.model_validate(changed), theirs.config_path)
    follow(run)
    found = run.config()
    assert [prompt.prompt for prompt in found.samples.prompts] == ["another"]
    found.samples.prompts = ours.samples.prompts
    assert found == ours
    assert run.read().state == "finished"


def test_a_run_that_was_renamed_here_keeps_its_name(run: Run, there: Path) -> None:
    output = theirs_of(run, there).output_path
    output.parent.mkdir(exist_ok=True)
    output.write_text("learned")
    tell(run, there)
    run.update(name="renamed")
    follow(run)
    assert [path.name for path in run.output_dir.iterdir()] == ["renamed.safetensors"]
    assert run.output_path.read_text() == "learned"


def test_more_steps_do_not_cost_what_was_learned_meanwhile(run: Run, there: Path) -> None:
    """The process here had ended at step 10, and it goes no further than fetching: the pictures are gone here."""
    theirs = theirs_of(run, there)
    for path in (theirs.checkpoints_dir / "step-000040" / "lora.safetensors", theirs.output_path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("learned")
    tell(run, there)
    assert main(["resume", str(run.dir), "--on", "gpubox", "--max-steps", "60"]) == 2
    assert (run.checkpoints_dir / "step-000040" / "lora.safetensors").read_text() == "learned"
    assert (run.output_path.read_text(), theirs.output_path.read_text()) == ("learned", "learned")
    assert (run.read().step, run.read().state) == (40, "failed")


def test_a_checkpoint_goes_when_the_next_one_has_come(
    run: Run, there: Path, ssh_server: SshServer, request: pytest.FixtureRequest
) -> None:
    """It is on its way for some time, and in the middle of that the other machine is lost."""
    request.addfinalizer(ssh_server.start)
    before, coming = (folder / f"step-00000{step}" / "state" for folder, step in
                      ((run.checkpoints_dir, 1), (theirs_of(run, there).checkpoints_dir, 2)))  # fmt: skip
    for path in (before, coming):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("learned")
    os.truncate(coming, 2 << 30)
    here = run.checkpoints_dir / coming.parent.name
    command = forked.start("resume", str(run.dir), "--on", "gpubox")
    try:
        wait(lambda: here.is_dir() and any(path.stat().st_size for path in here.iterdir()), SECONDS)
        ssh_server.cut_off()
        wait(lambda: "No answer from gpubox" in run.read().host_words, SECONDS)
        assert before.read_text() == "learned"
    finally:
        command.send_signal(signal.SIGKILL)
        command.wait()


def test_links_and_pipes_do_not_come(run: Run, there: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("of this user")
    samples = theirs_of(run, there).samples_dir
    samples.mkdir(exist_ok=True)
    (samples / "link.png").symlink_to(tmp_path / "secret")
    os.mkfifo(samples / "pipe.png")
    (samples / "real.png").write_text("drawn")
    follow(run)
    assert [path.name for path in run.samples_dir.iterdir()] == ["real.png"]


def test_a_run_that_is_gone_there_is_not_sent_again_by_itself(run: Run, there: Path) -> None:
    (run.dir / ".there").mkdir()
    (run.dir / ".there" / "told").touch()  # it was, at the last look
    theirs_of(run, there).info_path.unlink()
    assert main(["resume", str(run.dir), "--on", "gpubox"]) == 2
    assert "is not in" in str(run.read().error) and run.read().host is None
    assert sorted(path.name for path in there.iterdir()) == ["workspace"], "nothing was sent"


def test_what_is_no_run_is_waited_for(run: Run, there: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One thing after the other that is none, until there is one."""
    mine = tmp_path / "lora.safetensors"
    mine.write_text("of this user")
    broken = [b"{", b"[]", b"[" * 100_000, b'{"id": "x"}', b"\xff\xfe", b" " * (5 << 20), told(run, step=10**400)]
    broken += [told(run, name=name) for name in (f"{tmp_path}/lora", "../../../../lora", "..")]
    expected = 1 + len(broken)
    words: list[str] = []

    def next_one(seconds: float) -> None:
        words.append(run.read().host_words)
        if broken:
            theirs_of(run, there).info_path.write_bytes(broken.pop())
        else:
            tell(run, there)

    next_one(0)
    monkeypatch.setattr(mirror, "time", with_sleep(next_one))
    follow(run)
    assert len(words) == expected
    for each in words[2:]:
        assert each.startswith("Cannot keep up with gpubox since") and "What it tells of the run cannot be read" in each
    assert run.read().state == "finished"
    assert mine.read_text() == "of this user"


def test_events_that_are_none_are_passed_over(run: Run, there: Path) -> None:
    lines = ['{"type": "metric", "kind": 1, "self": 2}', '{"type": {"a": 1}, "step": "x"}', "[]", "nonsense"]
    theirs_of(run, there).events_path.write_text("".join(f"{line}\n" for line in lines))
    follow(run)
    assert run.read().state == "finished"


def test_a_disk_that_is_nearly_full_is_filled_no_further(
    run: Run, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (theirs_of(run, there).samples_dir).mkdir(exist_ok=True)
    (theirs_of(run, there).samples_dir / "more.png").write_text("drawn")
    free = [mirror.LEFT_BYTES - 1]
    words: list[str] = []

    def wait_for_room(seconds: float) -> None:
        words.append(run.read().host_words)
        assert not run.samples_dir.is_dir() or not list(run.samples_dir.iterdir())
        free[0] = mirror.LEFT_BYTES

    monkeypatch.setattr(mirror, "free_disk_bytes", lambda folder: free[0])
    monkeypatch.setattr(mirror, "time", with_sleep(wait_for_room))
    follow(run)
    assert len(words) == 1 and "nearly full. Free some space." in words[0]
    assert (run.samples_dir / "more.png").exists() and run.read().state == "finished"
