"""``trainer remote``: other machines that train, over SSH: add one, see whether it works, leave a run to itself."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
from typing import Any

from trainer.commands.arguments import add_workspace, workspace_of
from trainer.errors import UserError
from trainer.remote import hosts
from trainer.remote.driving import give_up, leave
from trainer.remote.hosts import Host, host_of
from trainer.remote.sending import There, send_program
from trainer.remote.ssh import Connection
from trainer.runs.events import EventSink
from trainer.runs.store import Run

ACTIONS = ("list", "add", "check", "remove", "leave", "give-up")
_KEPT = ("address", "port", "folder", "python", "devices", "ssh_config")
"""What `add` takes and keeps with a machine's name; one that is not given is as ``Host`` has it."""
_MACHINE = """
uname -sm
df -Pk -- "$1" | awk 'NR == 2 { print $4 }'
nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null || :
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to do, with which machine, and how it is reached."""
    parser.add_argument(
        "action",
        nargs="?",
        default="list",
        choices=ACTIONS,
        help="`check` connects and installs; `leave` takes a run: it goes on there, `runs resume` follows it again; "
        "`give-up` takes one that is lost there: it goes on here from what has come",
    )
    parser.add_argument("name", nargs="?", metavar="NAME|RUN", help="what you call the machine, or a run's id")
    parser.add_argument("address", nargs="?", help="with `add`: user@machine, or a name of ~/.ssh/config")
    kept = parser.add_argument_group("with `add`").add_argument
    kept("--port", type=int, help="of its SSH server")
    kept(
        "--folder",
        help=f"for all there, in the home folder or a full path (default: {Host.model_fields['folder'].default})",
    )
    kept("--python", help="a Python there that has the packages; else they are installed")
    kept("--devices", help="there: cuda:1; cuda:0,cuda:1; cpu. Without, any free GPU")
    kept("--ssh-config", metavar="FILE", help="settings for ssh in place of ~/.ssh/config")
    add_workspace(parser)


def run(args: argparse.Namespace, events: EventSink) -> dict[str, Any]:
    """Do it. Raises UserError for what cannot be, and where the machine cannot be reached."""
    workspace = workspace_of(args)
    given = {name: value for name in _KEPT if (value := getattr(args, name)) is not None}
    if given and args.action != "add":
        raise _only_with_add(args.action, list(given))
    if args.action == "list":
        return {"hosts": [host.model_dump() for host in hosts.hosts(workspace)]}
    if not args.name or (args.action == "add" and not args.address):
        message = f"`remote {args.action}` needs a name{' and an address' if args.action == 'add' else ''}."
        raise UserError("remote.which", message, "For example: `remote add gpubox me@gpubox.example`.")
    if args.action == "leave":
        return _leave(workspace.run(args.name))
    if args.action == "give-up":
        give_up(workspace.run(args.name))
        return {"given_up": args.name}
    if args.action == "add":
        hosts.add(workspace, Host(name=args.name, **given))
        return {"kept": args.name}
    if args.action == "remove":
        hosts.remove(workspace, args.name)
        return {"forgotten": args.name}
    return _check(host_of(workspace, args.name))


def describe(answer: dict[str, Any]) -> str:
    """A line for each machine, or what became of one."""
    if "hosts" in answer:
        lines = [f"{host['name']}  {host['address']}:{host['folder']}" for host in answer["hosts"]]
        return "\n".join(lines) or "No other machines yet: `remote add NAME user@machine`."
    if "kept" in answer:
        return f"Kept. `remote check {answer['kept']}` connects to it and installs what is needed."
    if "forgotten" in answer:
        return f"{answer['forgotten']} is forgotten; what lies there stays."
    if "given_up" in answer:
        return f"{answer['given_up']} is this machine's again, as it is here."
    if "run" in answer:
        return f"{answer['run']} goes on there. `runs resume {answer['run']}` follows it again."
    devices = ", ".join([*answer["gpus"], *answer["devices"]])
    return f"{answer['name']} is ready: {answer['system']}, {devices}, {answer['free_bytes'] / 1e9:.0f} GB free."


def _only_with_add(action: str, given: list[str]) -> UserError:
    words = ["an address" if name == "address" else f"--{name.replace('_', '-')}" for name in given]
    message = f"`remote {action}`: {' and '.join(words)} given, which only `remote add` takes."
    return UserError("remote.only_add", message, "`remote add` keeps the machine anew under its name.", given[0])


def _check(host: Host) -> dict[str, Any]:
    """Bring the program there, and see whether it runs and has the devices that runs are to be queued for."""
    connection = Connection(host)
    try:
        there = There(connection)
        send_program(there)
        devices = there.trainer("queue")["devices"]
        system, free, *gpus = connection.run(_MACHINE, there.folder).strip().splitlines()
    finally:
        connection.close()
    missing = [name for name in host.devices.split(",") if name and name not in devices]
    if missing:
        message = f"{host.name}: there is no {' and no '.join(missing)}; there are {', '.join(devices)}."
        raise UserError("remote.devices", message, "`remote add` it again with other --devices, or without.", "devices")
    free_bytes = int(free) * 1024
    return {"name": host.name, "folder": there.folder, "system": system, "free_bytes": free_bytes, "gpus": gpus,
            "devices": devices}  # fmt: skip


def _leave(run: Run) -> dict[str, Any]:
    pid = run.status().pid
    leave(run, for_good=True)
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)  # it may end at any time, and whatever it would still write is not so now
    return {"run": run.id}
