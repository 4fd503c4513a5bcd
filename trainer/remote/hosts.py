"""Other machines that runs can go to, in ``WORKSPACE/hosts.json``. Never torch.

Keys, passwords and known hosts are OpenSSH's own: nothing secret is kept here.
"""

from __future__ import annotations

import re
from contextlib import suppress

from pydantic import BaseModel, ConfigDict, ValidationError

from trainer.errors import Problem, UserError
from trainer.files import json_object, write_json
from trainer.runs.gpus import check_device
from trainer.runs.store import Workspace

SSH = "ssh:"
"""In front of a host's name it is a device that runs can be queued for."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")
_ADDRESS = re.compile(r"([\w.][\w.+-]*@)?\w[\w.-]*", re.ASCII)
_DEVICES = re.compile(r"(cpu|[a-z]+:\d+)(,(cpu|[a-z]+:\d+))*|", re.ASCII)


class Host(BaseModel):
    """A machine with an SSH server, and where LoRA Atelier lies there."""

    model_config = ConfigDict(extra="ignore")

    name: str
    address: str
    """``user@machine``, or a name of the user's ``~/.ssh/config``."""
    port: int | None = None
    folder: str = "lora-atelier"
    """For program, pictures, models and runs; in the user's home folder there unless it is a full path."""
    python: str = ""
    """A Python there that has the packages; without one they are installed into ``folder``."""
    devices: str = ""
    """What its runs are queued for there: ``cuda:1``, ``cuda:0,cuda:1``, ``cpu``; empty for any free GPU."""
    ssh_config: str = ""
    """A file for ``ssh -F``, in place of the user's."""

    @property
    def device(self) -> str:
        """The device that runs of this host are queued for here."""
        return SSH + self.name


def hosts(workspace: Workspace) -> list[Host]:
    """The hosts there are, by name. What somebody has written into the file that could not be added is left out."""
    kept = json_object(workspace.dir / "hosts.json").get("hosts")
    found = []
    for values in kept if isinstance(kept, list) else []:
        with suppress(ValidationError):
            host = Host.model_validate(values)
            if not _problems(host):
                found.append(host)
    return sorted(found, key=lambda host: host.name)


def host_devices(workspace: Workspace) -> tuple[str, ...]:
    """The hosts as devices that runs can be queued for."""
    return tuple(host.device for host in hosts(workspace))


def host_of(workspace: Workspace, name: str) -> Host:
    """The host of this name. Raises UserError when there is none."""
    found = hosts(workspace)
    for host in found:
        if host.name == name:
            return host
    names = ", ".join(host.name for host in found) or "none yet"
    raise UserError("remote.unknown", f"There is no host {name!r}; there are: {names}.", "`remote add` adds one.")


def add(workspace: Workspace, host: Host) -> None:
    """Keep a host, in place of one of the same name.

    Raises UserError with every problem, and for another folder while a run is in the one before.
    """
    problems = _problems(host)
    if problems:
        raise UserError.many(problems)
    if any(other.name == host.name and other.folder != host.folder for other in hosts(workspace)):
        _check_unused(workspace, host)
    with workspace.lock("hosts"):
        _write(workspace, [*(other for other in hosts(workspace) if other.name != host.name), host])


def remove(workspace: Workspace, name: str) -> None:
    """Forget a host; what lies there stays. Raises UserError when there is none, and while it has or awaits a run."""
    _check_unused(workspace, host_of(workspace, name))
    with workspace.lock("hosts"):
        _write(workspace, [other for other in hosts(workspace) if other.name != name])


def host_name(device: str | None) -> str | None:
    """The host that a device is; None for a device of this machine."""
    return device.removeprefix(SSH) if device is not None and device.startswith(SSH) else None


def check_place(workspace: Workspace, device: str | None) -> None:
    """Raise UserError unless a run can be queued for it: a device of this machine, or a host."""
    name = host_name(device)
    if name is None:
        check_device(device)
    else:
        host_of(workspace, name)


def _check_unused(workspace: Workspace, host: Host) -> None:
    for run in workspace.runs():
        info = run.read()
        if info.host == host.name or (info.state == "queued" and info.wanted_device == host.device):
            message = f"The run {run.id} is on {host.name}, or waits for it."
            hint = "Let it end, stop it, or queue it for another device first; `remote give-up` if it is lost there."
            raise UserError("remote.in_use", message, hint)


def _problems(host: Host) -> list[Problem]:
    """What ssh, rsync or a shell would take for something else than is meant: an option, or another command."""
    problems = []
    if not _NAME.fullmatch(host.name):
        message = f"name: {host.name!r} given; letters, digits, dots, hyphens and underscores are allowed, at most 40."
        problems.append(Problem("remote.name", message, "Choose a short name.", "name"))
    if not _ADDRESS.fullmatch(host.address):
        message = f"address: {host.address!r} given; user@machine, or a name of ~/.ssh/config, is allowed."
        problems.append(Problem("remote.address", message, "All else belongs into the settings of ssh.", "address"))
    if host.port is not None and not 0 < host.port < 65536:
        message = f"port: {host.port} given; 1 to 65535 is allowed."
        problems.append(Problem("remote.port", message, "Leave it out for the usual one.", "port"))
    for field in ("folder", "python", "ssh_config"):
        text = getattr(host, field)
        if not text.isprintable() or text.startswith(("-", "~")) or (field == "folder" and not text.strip("/. ")):
            message = f"{field}: {text!r} given; a path without ~ and line ends is allowed."
            problems.append(Problem(f"remote.{field}", message, "A full path, or one in the home folder.", field))
    if not _DEVICES.fullmatch(host.devices):
        message = f"devices: {host.devices!r} given; cuda:0, several with commas, or cpu is allowed."
        problems.append(Problem("remote.devices", message, "Leave it out for any free GPU.", "devices"))
    return problems


def _write(workspace: Workspace, kept: list[Host]) -> None:
    write_json(workspace.dir / "hosts.json", {"hosts": [host.model_dump(exclude_defaults=True) for host in kept]})
