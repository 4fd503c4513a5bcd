"""``trainer pull NAME``: a LoRA or model of the Hugging Face Hub, to use it by its name, without a network too."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

from trainer.errors import UserError
from trainer.hub_names import HubFile, hub_file
from trainer.runs.events import EventSink


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which one, what it is, and whether a copy is wanted."""
    parser.add_argument("name", help="owner/name or owner/name/file.safetensors, with @revision behind it if need be")
    parser.add_argument("--model", action="store_true", help="it is a base model, and not a LoRA")
    parser.add_argument("--out", type=Path, default=None, help="also copy it here: a new .safetensors file")


def run(args: argparse.Namespace, events: EventSink) -> dict[str, Any]:
    """Download. Where a repository holds several LoRAs, ``choices`` names them and nothing is downloaded."""
    from trainer.hub_loras import SeveralLorasError, fetch_lora
    from trainer.lora.outputs import lora_file_problems
    from trainer.outputs import new_output

    found = hub_file(args.name)
    if found is None:
        hint = "Example: owner/name, owner/name/file.safetensors or owner/name@v2."
        raise UserError("hub.name", f"name: {args.name!r} does not name anything on the hub.", hint, "name")
    if args.model:
        return _pull_model(args, found, events)
    out = args.out.expanduser() if args.out else None
    if out is not None and (problems := lora_file_problems(out, [], overwrite=False)):
        raise UserError.many(problems)
    try:
        lora = fetch_lora(found, field="name", events=events)
    except SeveralLorasError as error:
        return {"name": args.name, "choices": [str(choice) for choice in error.choices]}
    if out is not None:
        with new_output(out) as temporary:
            shutil.copyfile(lora.path, temporary)
    return {
        "name": str(lora.name),
        "path": str(out or lora.path),
        "base_model": lora.base_model,
        "size_bytes": lora.path.stat().st_size,
        "choices": [],
    }


def _pull_model(args: argparse.Namespace, found: HubFile, events: EventSink) -> dict[str, Any]:
    if args.out is not None or found.file is not None:
        message = "--model: a model is a whole repository, and stays in the hub's cache."
        raise UserError("pull.model", message, "Leave out the file's name and --out.", "model")
    from trainer.families import fetch_model

    folder, family = fetch_model(found.repo, found.revision, events)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return {"name": str(found), "path": str(folder), "base_model": None, "family": family, "size_bytes": size,
            "choices": []}  # fmt: skip


def describe(answer: dict[str, Any]) -> str:
    """Where it is, or what there is to choose from."""
    if answer["choices"]:
        return "\n".join([f"{answer['name']} holds several LoRAs. Name one of them:", *answer["choices"]])
    made_for = f"\nMade for {answer['base_model']}" if answer["base_model"] else ""
    if "family" in answer:
        made_for = f"\nA model of the family {answer['family']}; set model.base to {answer['name'].partition('@')[0]}"
    return f"{answer['name']}  {answer['size_bytes'] / 1e6:.1f} MB\n{answer['path']}{made_for}"
