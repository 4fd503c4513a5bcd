"""``trainer queue``: what waits, in which order and for which device; adding to it, and pausing it."""

from __future__ import annotations

import argparse
from contextlib import suppress
from pathlib import Path
from typing import Any

from trainer.commands.arguments import add_workspace, workspace_of
from trainer.config_io import load_config
from trainer.errors import UserError
from trainer.runs import interrupted, queue
from trainer.runs.events import EventSink
from trainer.runs.gpus import worker_devices
from trainer.runs.queue import MOVES, queued_runs, read_queue
from trainer.runs.store import ALIVE, Run, Workspace
from trainer.runs.worker import enqueue, ensure_workers

OF_A_RUN = (*MOVES, "remove", "device")
ACTIONS = ("list", "add", "pause", "resume", *OF_A_RUN, "put-back")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to do, with which run or config, and for which device."""
    parser.add_argument(
        "action",
        nargs="?",
        default="list",
        choices=ACTIONS,
        help="`add` takes a config file, the moves, `remove` and `device` a run; `put-back` queues all runs again that "
        "a restart interrupted",
    )
    parser.add_argument("subject", nargs="?", metavar="CONFIG.yaml|RUN", help="what to add, or the id of a waiting run")
    parser.add_argument(
        "--set", action="append", default=[], metavar="a.b=value", help="with `add`: change one setting"
    )
    parser.add_argument(
        "--device",
        default="any",
        help="with `add` and `device`: any, cpu, cuda:0, mps:0 ...; cuda:0,cuda:1 trains on both together",
    )
    add_workspace(parser)


def run(args: argparse.Namespace, events: EventSink) -> dict[str, Any]:
    """Change the queue, and tell how it is then. Raises UserError when it makes no sense now."""
    workspace = workspace_of(args)
    if args.action in ("add", *OF_A_RUN):
        if not args.subject:
            what = "a config file" if args.action == "add" else "a waiting run"
            raise UserError("queue.which", f"`queue {args.action}` needs {what}.", "`queue` shows what waits.")
        _about(workspace, args.action, args.subject, args)
    elif args.subject:
        raise UserError("queue.which", f"`queue {args.action}` is about the whole queue.", f"Leave {args.subject} out.")
    elif args.action == "pause":
        queue.pause(workspace)
    elif args.action == "resume":
        queue.go_on(workspace)
        ensure_workers(workspace)
    elif args.action == "put-back":
        interrupted.put_back(workspace)
    return _as_it_is(workspace)


def describe(answer: dict[str, Any]) -> str:
    """A line for each run that is going or waits."""
    lines = ["The queue is paused: `queue resume` lets it go on."] if answer["paused"] else []
    lines += [f"going  {item['run']}  {item['state']} on {item['device'] or 'a device'}" for item in answer["going"]]
    lines += [f"{item['place']:>5}  {item['run']}  for {item['device']}" for item in answer["waiting"]]
    return "\n".join(lines) or "Nothing is going or waiting."


def _about(workspace: Workspace, action: str, subject: str, args: argparse.Namespace) -> None:
    device = None if args.device == "any" else args.device
    if action == "add":
        enqueue(workspace, load_config(Path(subject), args.set), device=device)
        return
    chosen = workspace.run(subject)
    if action == "device":
        queue.set_device(chosen, device)
        ensure_workers(workspace)
    elif action == "remove":
        queue.remove(chosen)
    else:
        queue.move(chosen, next(move for move in MOVES if move == action))


def _as_it_is(workspace: Workspace) -> dict[str, Any]:
    going = []
    for other in reversed(workspace.runs()):
        with suppress(UserError):
            info = other.status()
            if info.state in ALIVE:
                device = info.queue_device or info.device
                going.append({"run": other.id, "name": info.name, "state": info.state, "device": device})
    waiting = [_waiting(place, other) for place, other in enumerate(queued_runs(workspace), start=1)]
    paused, devices = read_queue(workspace).paused, worker_devices()
    return {"paused": paused, "devices": devices, "going": going, "waiting": waiting}


def _waiting(place: int, waiting: Run) -> dict[str, Any]:
    info = waiting.read()
    return {"place": place, "run": waiting.id, "name": info.name, "device": info.wanted_device or "any"}
