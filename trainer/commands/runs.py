"""``trainer runs``: the queue and its controls."""

from __future__ import annotations

import argparse
from typing import Any

from trainer.commands.arguments import add_workspace, workspace_of
from trainer.errors import UserError
from trainer.runs import actions
from trainer.runs.events import EventSink
from trainer.runs.store import Workspace

ACTIONS = ("list", "pause", "resume", "stop", "sample", "save", "delete")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to do, and with which run."""
    parser.add_argument("action", choices=ACTIONS)
    parser.add_argument("run", nargs="?", help="id of the run, as `list` shows it")
    add_workspace(parser)


def run(args: argparse.Namespace, events: EventSink) -> dict[str, Any]:
    """List the runs, or ask one for something. Raises UserError when it makes no sense now."""
    workspace = workspace_of(args)
    if args.action == "list":
        return {"runs": _listing(workspace)}
    if not args.run:
        raise UserError("runs.which", f"`runs {args.action}` needs a run.", "`runs list` shows the runs there are.")
    chosen = workspace.run(args.run)
    if args.action == "delete":
        actions.delete(chosen)
        return {"action": "delete", "run": chosen.id, "state": "deleted"}
    info = actions.ask(chosen, args.action)
    return {"action": args.action, "run": chosen.id, "state": info.state}


def describe(answer: dict[str, Any]) -> str:
    """A line for each run, or what was asked."""
    if "runs" in answer:
        lines = [f"{info['id']}  {info['state']:<9} {info['step']}/{info['max_steps']}" for info in answer["runs"]]
        return "\n".join(lines) or "No runs yet."
    return f"{answer['run']}: {answer['action']} asked, state {answer['state']}."


def _listing(workspace: Workspace) -> list[dict[str, Any]]:
    return [run.status().model_dump() for run in workspace.runs()]
