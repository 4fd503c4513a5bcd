"""Argument forms that several commands share."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from trainer.errors import UserError
from trainer.remote.hosts import Host, host_of
from trainer.runs.store import Workspace

DEFAULT_WORKSPACE = Path(__file__).resolve().parents[2] / "workspace"


def add_workspace(parser: argparse.ArgumentParser) -> None:
    """``--workspace DIR``; without it ``LORA_ATELIER_WORKSPACE`` or the folder beside the program."""
    parser.add_argument("--workspace", type=Path, default=None, help="folder for runs, caches and results")


def workspace_of(args: argparse.Namespace) -> Workspace:
    """The workspace that the arguments or the environment name."""
    folder = args.workspace or os.environ.get("LORA_ATELIER_WORKSPACE") or DEFAULT_WORKSPACE
    return Workspace(Path(folder).expanduser().resolve())


def add_gpu_sharing(parser: argparse.ArgumentParser) -> None:
    """``--share-gpu``: without it a job that needs a GPU waits while another one has it."""
    more = "do not wait for the GPU: compute beside a training or another job, where the memory suffices for both"
    parser.add_argument("--share-gpu", action="store_true", help=more)


def add_host(parser: argparse.ArgumentParser) -> None:
    """``--on HOST``: without it this machine trains."""
    parser.add_argument("--on", default=None, metavar="HOST", help="train on another machine: one of `remote list`")


def host_asked(args: argparse.Namespace, workspace: Workspace) -> Host | None:
    """The machine that ``--on`` names; None without it.

    Raises UserError where there is none of this name, and for options beside it that are about this machine.
    """
    if args.on is None:
        return None
    beside = [name for name in ("processes", "devices", "share_gpu") if getattr(args, name)]
    if beside:
        given = " and ".join(f"--{name.replace('_', '-')}" for name in beside)
        message = f"--on {args.on}: {given} given too, which is about the devices of this machine."
        hint = f"Leave it out; `remote add {args.on} ... --devices` says what is used there."
        raise UserError("remote.devices_here", message, hint, beside[0])
    return host_of(workspace, args.on)


def add_names(parser: argparse._ActionsContainer, what: str) -> None:
    """``--names FILE``: only some files of the folder DIR; ``what`` says which."""
    more = "one name a line, or a JSON list in a .json file; relative to DIR"
    parser.add_argument("--names", type=Path, metavar="FILE", help=f"{what}: {more}")


def names_of(args: argparse.Namespace) -> list[str] | None:
    """The names in the file that ``--names`` gives; None without it. Raises UserError when it cannot be read."""
    if args.names is None:
        return None
    try:
        text = args.names.read_text(encoding="utf-8")
        names = json.loads(text) if args.names.suffix == ".json" else text.split("\n")
    except (OSError, ValueError) as error:
        message = f"names: {args.names} cannot be read ({error})."
        raise UserError("cli.names", message, "One name a line, or a JSON list in a .json file.", "names") from error
    return [name.rstrip("\r") for name in names if isinstance(name, str) and name.strip()]
