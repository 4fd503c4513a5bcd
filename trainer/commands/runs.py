"""``trainer runs``: the queue, its controls, and what can be done with a run."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from trainer.commands.arguments import add_workspace, workspace_of
from trainer.errors import UserError
from trainer.runs import actions
from trainer.runs.bin import Bin
from trainer.runs.control import REQUESTS
from trainer.runs.events import EventSink
from trainer.runs.queue import queued_runs
from trainer.runs.store import ALIVE, Run, Workspace, about_newer

WITH_TEXT: dict[str, Callable[[Run, str], Any]] = {"rename": actions.rename, "note": actions.note}
ACTIONS = ("list", *REQUESTS, *WITH_TEXT, "delete", "bin", "restore", "empty-bin")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to do, and with which run."""
    parser.add_argument(
        "action",
        choices=ACTIONS,
        help="`delete` moves a run to the bin, `bin` lists what is in it, `restore` takes an id of that list",
    )
    parser.add_argument("run", nargs="?", help="id of the run, as `list` shows it")
    parser.add_argument("text", nargs="?", help="the new name for `rename`, the text for `note`")
    add_workspace(parser)


def run(args: argparse.Namespace, events: EventSink) -> dict[str, Any]:
    """List the runs, or ask one for something. Raises UserError when it makes no sense now."""
    workspace = workspace_of(args)
    rubbish = Bin(workspace.dir)
    if args.action == "list":
        if newer := workspace.newer_runs():
            events.emit("warning", **vars(about_newer(len(newer))))
        return {"runs": _listing(workspace)}
    if args.action == "bin":
        return {"bin": [item.model_dump() for item in rubbish.items()]}
    if args.action == "empty-bin":
        return {"freed_bytes": rubbish.empty()}
    if not args.run:
        raise UserError("runs.which", f"`runs {args.action}` needs a run.", "`runs list` shows the runs there are.")
    if args.action == "restore":
        return {"action": "restore", "run": rubbish.restore(args.run).name, "state": "restored"}
    return _with_run(workspace.run(args.run), args.action, args.text)


def describe(answer: dict[str, Any]) -> str:
    """A line for each run or item of the bin, or what was asked."""
    if "runs" in answer:
        return "\n".join(map(_line, answer["runs"])) or "No runs yet."
    if "bin" in answer:
        lines = [f"{item['id']}  {item['size_bytes'] / 1e6:8.1f} MB  {item['title']}" for item in answer["bin"]]
        return "\n".join(lines) or "The bin is empty."
    if "freed_bytes" in answer:
        return f"{answer['freed_bytes'] / 1e6:.1f} MB freed."
    return f"{answer['run']}: {answer['action']} asked, state {answer['state']}."


def _with_run(chosen: Run, action: str, text: str | None) -> dict[str, Any]:
    if action == "delete":
        item = actions.delete(chosen)
        return {"action": action, "run": chosen.id, "state": "deleted", "bin_item": item.id}
    if action in WITH_TEXT:
        if text is None:
            raise UserError("runs.text", f"`runs {action}` needs a text.", f"`runs {action} {chosen.id} 'some text'`")
        info = WITH_TEXT[action](chosen, text)
    else:
        info = actions.ask(chosen, action)  # type: ignore[arg-type]
    return {"action": action, "run": chosen.id, "state": info.state}


def _listing(workspace: Workspace) -> list[dict[str, Any]]:
    """Each run as its ``run.json`` tells, with its place in the queue, counted from 1, while it waits."""
    places = {waiting.id: place for place, waiting in enumerate(queued_runs(workspace), start=1)}
    return [run.status().model_dump() | {"queue_place": places.get(run.id)} for run in workspace.runs()]


def _line(info: dict[str, Any]) -> str:
    line = f"{info['id']}  {info['state']:<9} {info['step']}/{info['max_steps']}"
    if info["queue_place"] is not None:
        return f"{line}  number {info['queue_place']}, for {info['wanted_device'] or 'any device'}"
    return f"{line}  on {info['queue_device']}" if info["state"] in ALIVE and info["queue_device"] else line
