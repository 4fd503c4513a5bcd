"""``trainer pull NAME``: a LoRA of the Hugging Face Hub, to use it by its name from then on, without a network too."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

from trainer.errors import UserError
from trainer.runs.events import EventSink


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which one, and whether a copy is wanted."""
    parser.add_argument("name", help="owner/name or owner/name/file.safetensors, with @revision behind it if need be")
    parser.add_argument("--out", type=Path, default=None, help="also copy it here: a new .safetensors file")


def run(args: argparse.Namespace, events: EventSink) -> dict[str, Any]:
    """Download. Where a repository holds several LoRAs, ``choices`` names them and nothing is downloaded."""
    from trainer.hub_loras import SeveralLorasError, fetch_lora
    from trainer.hub_names import hub_file
    from trainer.lora.outputs import lora_file_problems
    from trainer.outputs import new_output

    found = hub_file(args.name)
    if found is None:
        hint = "Example: owner/name, owner/name/file.safetensors or owner/name@v2."
        raise UserError("lora.name", f"name: {args.name!r} does not name a LoRA on the hub.", hint, "name")
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


def describe(answer: dict[str, Any]) -> str:
    """Where it is, or what there is to choose from."""
    if answer["choices"]:
        return "\n".join([f"{answer['name']} holds several LoRAs. Name one of them:", *answer["choices"]])
    made_for = f"\nMade for {answer['base_model']}" if answer["base_model"] else ""
    return f"{answer['name']}  {answer['size_bytes'] / 1e6:.1f} MB\n{answer['path']}{made_for}"
