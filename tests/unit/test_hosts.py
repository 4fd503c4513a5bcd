"""Other machines as they are kept, and what of a run is said in whose words."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.recipe.tiny_runs import make_pictures
from trainer.__main__ import main
from trainer.config import Config
from trainer.config_io import save_config
from trainer.errors import UserError
from trainer.files import write_json
from trainer.remote import hosts
from trainer.remote.hosts import Host, check_place, host_name, host_of
from trainer.remote.sending import config_there
from trainer.remote.ssh import last_json
from trainer.runs import actions, control, interrupted, worker
from trainer.runs.queue import set_device, suits
from trainer.runs.store import Run, Workspace, this_process
from trainer.runs.worker import enqueue, requeue, resume_command

GPUBOX = Host(name="gpubox", address="me@gpubox.example")


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """One with a host, in which nothing is started."""
    workspace = Workspace(tmp_path / "workspace")
    for module in (worker, interrupted):
        monkeypatch.setattr(module, "ensure_workers", lambda space: None)
    hosts.add(workspace, GPUBOX)
    return workspace


@pytest.fixture
def config() -> Config:
    return Config.model_validate({"name": "mine"})


def test_a_host_is_kept_changed_and_forgotten(workspace: Workspace) -> None:
    assert host_of(workspace, "gpubox") == GPUBOX
    hosts.add(workspace, GPUBOX.model_copy(update={"port": 2222}))
    hosts.add(workspace, Host(name="another", address="another"))
    assert [(host.name, host.port) for host in hosts.hosts(workspace)] == [("another", None), ("gpubox", 2222)]
    hosts.remove(workspace, "another")
    with pytest.raises(UserError, match="There is no host 'another'; there are: gpubox"):
        host_of(workspace, "another")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "-oProxyCommand=touch x"), ("name", ""), ("name", "a b"), ("name", "a/b"), ("name", "x" * 41),
        ("address", "-oProxyCommand=touch x"), ("address", "-l"), ("address", "a b"), ("address", "host:path"),
        ("address", "a;touch x"), ("address", "$(touch x)"), ("address", "me@-x"), ("address", "me@a\nb"),
        ("address", ""),
        ("port", 0), ("port", 65536), ("port", -1),
        ("folder", "-x"), ("folder", "~/x"), ("folder", "/"), ("folder", "."), ("folder", ""), ("folder", "a\nb"),
        ("python", "-c"), ("python", "a\0b"), ("ssh_config", "-F"), ("ssh_config", "a\rb"),
        ("devices", "gpu"), ("devices", "cuda"), ("devices", "cuda:0;x"), ("devices", "cuda:0,"),
    ],
)  # fmt: skip
def test_what_a_command_would_take_for_something_else_is_refused(workspace: Workspace, field: str, value: Any) -> None:
    with pytest.raises(UserError) as raised:
        hosts.add(workspace, GPUBOX.model_copy(update={field: value}))
    assert [problem.field for problem in raised.value.problems] == [field]
    assert hosts.hosts(workspace) == [GPUBOX]


def test_what_cannot_be_added_is_not_read_either(workspace: Workspace) -> None:
    wrong = [{"name": "x", "address": "-oProxyCommand=x"}, {"name": "y"}, 7, {"name": "z", "address": "z", "port": "?"}]
    for kept in ([*wrong, GPUBOX.model_dump()], {"gpubox": 1}, None):
        write_json(workspace.dir / "hosts.json", {"hosts": kept})
        assert hosts.hosts(workspace) == ([GPUBOX] if isinstance(kept, list) else [])


def test_all_that_is_wrong_is_told_at_once(workspace: Workspace) -> None:
    with pytest.raises(UserError) as raised:
        hosts.add(workspace, Host(name="a b", address="-x", port=0, folder="/", python="-c", devices="gpu"))
    fields = [problem.field for problem in raised.value.problems]
    assert fields == ["name", "address", "port", "folder", "python", "devices"]


@pytest.mark.parametrize("address", ["gpubox", "me@gpubox", "me.too@10.0.0.7", "a-b_c@host-1.example.org"])
def test_what_people_write_is_taken(workspace: Workspace, address: str) -> None:
    hosts.add(
        workspace, GPUBOX.model_copy(update={"address": address, "folder": "/data/my loras", "devices": "cuda:1"})
    )
    assert host_of(workspace, "gpubox").address == address


def test_a_host_is_a_device_of_its_workspace(workspace: Workspace, config: Config, tmp_path: Path) -> None:
    run = enqueue(workspace, config, device="ssh:gpubox")
    assert suits(run.read(), "ssh:gpubox")
    assert not suits(run.read(), "cpu") and not suits(run.read(), "ssh:another")
    assert not suits(enqueue(workspace, config).read(), "ssh:gpubox"), "nobody has asked for another machine"
    assert resume_command(run, workspace)[-2:] == ["--on", "gpubox"]
    with pytest.raises(UserError, match="There is no host 'another'"):
        set_device(run, "ssh:another")
    with pytest.raises(UserError, match="gpubox"):
        check_place(Workspace(tmp_path / "elsewhere"), "ssh:gpubox")
    assert [host_name(device) for device in (None, "cpu", "cuda:0", "ssh:gpubox")] == [None, None, None, "gpubox"]
    with pytest.raises(UserError, match="waits for it"):
        hosts.remove(workspace, "gpubox")


def test_what_is_not_given_on_the_command_line_is_as_usual(workspace: Workspace) -> None:
    command = ["remote", "add", "another", "me@another", "--port", "2222", "--devices", "cpu"]
    assert main([*command, "--workspace", str(workspace.dir)]) == 0
    assert host_of(workspace, "another") == Host(name="another", address="me@another", port=2222, devices="cpu")


@pytest.mark.parametrize("action", ["list", "check", "remove", "leave", "give-up"])
@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--port", "22", "--folder", "/data"], "--port and --folder"),
        (["--python", "/usr/bin/python3"], "--python"),
        (["--devices", "cuda:1"], "--devices"),
        (["--ssh-config", "/etc/x"], "--ssh-config"),
        (["me@elsewhere"], "an address"),
    ],
)
def test_only_adding_a_machine_takes_what_is_kept_with_it(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], action: str, given: list[str], words: str
) -> None:
    assert main(["remote", action, "gpubox", *given, "--workspace", str(workspace.dir)]) == 2
    assert f"`remote {action}`: {words} given, which only `remote add` takes" in capsys.readouterr().err
    assert hosts.hosts(workspace) == [GPUBOX]


def test_options_for_this_machine_are_not_passed_over(
    workspace: Workspace, config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_config(config, tmp_path / "config.yaml")
    place = ["--workspace", str(workspace.dir), "--on", "gpubox"]
    for command in (["train", str(tmp_path / "config.yaml")], ["resume", str(enqueue(workspace, config).dir)]):
        before = len(workspace.runs())
        assert main([*command, *place, "--processes", "2", "--share-gpu"]) == 2
        assert "--on gpubox: --processes and --share-gpu given too" in capsys.readouterr().err
        assert len(workspace.runs()) == before


def on_the_host(workspace: Workspace, config: Config) -> Run:
    """A run that goes on there; the process here that followed it is gone."""
    run = enqueue(workspace, config, device="ssh:gpubox")
    run.update(state="training", host="gpubox", step=7, **{**this_process(), "pid_mark": 1, "pid_started": 1.0})
    return run


def test_a_run_that_nobody_follows_is_followed_again(workspace: Workspace, config: Config) -> None:
    run = on_the_host(workspace, config)
    assert run.status().state == "failed"
    assert (
        run.read().error == "The run goes on on gpubox, but nothing follows it here any more. Resume follows it again."
    )
    with pytest.raises(UserError, match="waits for it"):
        hosts.remove(workspace, "gpubox")
    assert interrupted.follow_again(workspace) == [run]
    assert (run.read().state, run.read().host) == ("queued", "gpubox")
    assert interrupted.follow_again(workspace) == []
    with pytest.raises(UserError, match="goes on on gpubox"):
        set_device(run, None)


def test_what_was_asked_of_it_is_still_passed_on(workspace: Workspace, config: Config) -> None:
    run = on_the_host(workspace, config)
    control.ask(run.control_dir, "stop")
    run.status()
    assert interrupted.follow_again(workspace) == [run]
    assert control.waiting(run.control_dir) == {"stop"}
    run.update(state="failed", host=None)
    requeue(run)
    assert control.waiting(run.control_dir) == set(), "one of this machine begins anew"


def test_its_folder_is_not_changed_meanwhile(workspace: Workspace, config: Config) -> None:
    run = on_the_host(workspace, config)
    moved = GPUBOX.model_copy(update={"folder": "elsewhere"})
    with pytest.raises(UserError, match=f"The run {run.id} is on gpubox"):
        hosts.add(workspace, moved)
    hosts.add(workspace, GPUBOX.model_copy(update={"address": "me@its.new.address"}))
    run.update(state="failed", host=None)
    hosts.add(workspace, moved)
    assert host_of(workspace, "gpubox") == moved


def test_one_that_is_lost_there_can_be_given_up(workspace: Workspace, config: Config) -> None:
    run = on_the_host(workspace, config)
    control.ask(run.control_dir, "stop")
    place = ["--workspace", str(workspace.dir)]
    run.update(state="queued")
    assert main(["remote", "give-up", run.id, *place]) == 2, "it is about to be followed"
    run.update(state="failed")
    with pytest.raises(UserError, match="give-up"):
        actions.delete(run)
    assert main(["remote", "give-up", run.id, *place]) == 0
    info = run.read()
    assert (info.state, info.host, info.interrupted, info.step) == ("failed", None, None, 7)
    assert control.waiting(run.control_dir) == set()
    assert main(["remote", "give-up", run.id, *place]) == 2
    hosts.remove(workspace, "gpubox")
    actions.delete(run)


def test_one_that_was_left_stays_alone(workspace: Workspace, config: Config) -> None:
    run = on_the_host(workspace, config)
    run.status()
    run.update(interrupted=None)
    assert interrupted.follow_again(workspace) == []
    requeue(run)
    assert suits(run.read(), "ssh:gpubox")


def test_settings_are_said_in_the_words_of_each_machine(tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    source = {"path": str(make_pictures(tmp_path / "ten faces")), "mask_path": str(tmp_path / "masks"), "repeats": 3}
    values: dict[str, Any] = {"name": "mine", "dataset": {"sources": [source]}, "train": {"max_steps": 7}}
    ours = Config.model_validate(values)
    theirs, files = config_there(ours, "/their folder")
    there = theirs.dataset.sources[0]
    assert files == {str(there.path): tmp_path / "ten faces", str(there.mask_path): tmp_path / "masks"}
    assert all(place.startswith("/their folder/data/") for place in files)
    assert (there.repeats, theirs.model) == (3, ours.model)
    assert str(tmp_path) not in theirs.model_dump_json()
    assert config_there(ours, "/their folder") == (theirs, files), "the same place the next time"


def test_links_that_lead_out_of_a_folder_are_not_followed(tmp_path: Path) -> None:
    pictures = make_pictures(tmp_path / "pictures")
    (tmp_path / "secret").write_text("of this user")
    (pictures / "again.png").symlink_to("0.png")
    values = {"dataset": {"sources": [{"path": str(pictures)}]}}
    assert config_there(Config.model_validate(values), "/there")[1]
    for number in range(5):
        (pictures / f"{number}.txt").unlink(missing_ok=True)
        (pictures / f"{number}.txt").symlink_to(tmp_path / "secret")
    with pytest.raises(UserError, match=r"0\.txt, 1\.txt, 2\.txt and 2 more lead out of the folder"):
        config_there(Config.model_validate(values), "/there")


@pytest.mark.parametrize("said", ['{"a": 1}', 'Welcome!\n{"b": 2}\n{\n  "a": 1\n}\n', '{"a": {\n"x": 2}}\n{"a": 1}'])
def test_the_answer_is_what_comes_last(said: str) -> None:
    assert last_json(said) == {"a": 1}


def test_no_answer_is_told() -> None:
    with pytest.raises(ValueError, match="Welcome"):
        last_json(f"Welcome to {os.name}!")
    with pytest.raises(ValueError, match="nested too deeply"):
        last_json('{"a": ' + "[" * 100_000)
