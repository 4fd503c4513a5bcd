"""``trainer merge``: LoRAs into one LoRA, or into a model with ``--base``."""

from __future__ import annotations

import argparse
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.accelerators import DEVICES
from trainer.commands.results import PRECISIONS
from trainer.errors import UserError
from trainer.lora.merge_settings import MODES, MergeSettings
from trainer.lora.strengths import Strength, parse_loras
from trainer.runs.events import EventSink

if TYPE_CHECKING:
    import torch

_LORA_ONLY = ("rank", "conv_rank", "density", "seed", "dora_base")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """LoRAs, their strengths, and what to make of them."""
    add = parser.add_argument
    add(
        "--lora",
        nargs="+",
        action="extend",
        required=True,
        metavar="FILE=STRENGTH",
        help="a LoRA and its strength: 0.8, or with parts and blocks 0.8,text_encoder:0,unet.mid_block:1.2",
    )
    add("--out", type=Path, required=True, help="new .safetensors file; with --base also a new folder")
    add("--base", default=None, help="model to merge into: demo, a folder, a .safetensors or .ckpt file, or a hub id")
    add("--mode", choices=MODES, default="exact", help="how LoRAs are merged with each other")
    add("--rank", type=int, default=None, help="rank of the result, for --mode svd, ties and dare")
    add("--conv-rank", type=int, default=None, help="rank of the result's 3x3 convolutions; without it --rank")
    add("--density", type=float, default=None, help="share of each LoRA's change kept by --mode ties and dare")
    add("--seed", type=int, default=None, help="of the random choice of --mode dare")
    add("--dora-base", default=None, metavar="MODEL", help="model that a DoRA was made for; its effect depends on it")
    add("--device", choices=DEVICES, default="auto", help="where to compute")
    add("--precision", choices=PRECISIONS, default="float", help="number format of the sums; --base and --mode kohya")
    add(
        "--save-precision", choices=PRECISIONS, default=None, help="number format written; without it that of the input"
    )
    add("--overwrite", action="store_true", help="replace --out where it exists")
    add("--dry-run", action="store_true", help="only tell what would be done")
    partial = "leave out LoRA layers that the model does not have, where it has most of them; for --base"
    add("--allow-partial", action="store_true", help=partial)


def run(args: argparse.Namespace, events: EventSink) -> dict[str, Any]:
    """Merge. Raises UserError when something does not fit, and then writes nothing."""
    from trainer.hub_loras import lora_file

    loras = [(lora_file(path, events=events), strength) for path, strength in parse_loras(args.lora)]
    return _into_model(args, loras, events) if args.base else _into_lora(args, loras, events)


def describe(answer: dict[str, Any]) -> str:
    """What was written, and what was left out."""
    if answer.get("dry_run"):
        size = f"about {answer['size_bytes'] / 1e6:.1f} MB"
        lines = [f"Would be written: {answer['out']}, {size}", *_table(answer)]
    else:
        lines = [f"Written: {answer['out']}", *_table(answer)]
    for file, modules in answer.get("left_out", {}).items():
        lines.append(f"Not in the model, left out of {file}: {', '.join(modules)}")
    for file, keys in answer["unknown_keys"].items():
        lines.append(f"Not understood in {file}, left out: {', '.join(keys)}")
    return "\n".join(lines)


def _table(answer: dict[str, Any]) -> list[str]:
    """The LoRAs and what they become, a line each."""
    rows = [row for row in answer["loras"] if "ranks" in row]
    if not rows:
        return []
    lines = [f"{'LoRA':<32}{'kind':<12}{'rank':<12}{'layers':>8}  strength"]
    for row in [*rows, {**answer, "file": answer["out"], "kinds": ["LoRA"], "layers_used": answer["layers"]}]:
        name, kinds = Path(row["file"]).name, " and ".join(row["kinds"])
        ranks = f"{row['ranks'][0]}" if len(row["ranks"]) == 1 else f"{row['ranks'][0]} to {row['ranks'][-1]}"
        lines.append(f"{name:<32}{kinds:<12}{ranks:<12}{row['layers_used']:>8}  {row.get('ratio', answer['mode'])}")
    return lines


def _into_lora(args: argparse.Namespace, loras: list[tuple[Path, Strength]], events: EventSink) -> dict[str, Any]:
    from trainer.lora.merge_files import LoraMerge, merge_lora_files, plan_lora_merge

    if args.allow_partial:
        hint = "Leave --allow-partial out, or give --base."
        raise UserError("merge.partial", "allow-partial: it is for merging into a model.", hint, "allow_partial")
    with _device(args, events) as device:
        wanted = LoraMerge(
            loras,
            args.out.expanduser(),
            MergeSettings(args.mode, args.rank, args.conv_rank, args.density, args.seed, args.precision),
            save_precision=args.save_precision,
            dora_base=args.dora_base,
            device=device,
            overwrite=args.overwrite,
        )
        return plan_lora_merge(wanted, events=events) if args.dry_run else merge_lora_files(wanted, events=events)


def _into_model(args: argparse.Namespace, loras: list[tuple[Path, Strength]], events: EventSink) -> dict[str, Any]:
    from trainer.lora.merge_model import merge_into_model

    useless = [f"--{name.replace('_', '-')}" for name in _LORA_ONLY if getattr(args, name) is not None]
    if args.mode != "exact" or useless:
        hint = f"Leave {', '.join(['--mode', *useless])} out."
        raise UserError("merge.mode", "mode: merging into a model is always exact.", hint, "mode")
    base = _base_path(args.base, events)
    with _device(args, events) as device:
        done = merge_into_model(
            base,
            loras,
            args.out.expanduser(),
            precision=args.precision,
            save_precision=args.save_precision,
            device=device,
            overwrite=args.overwrite,
            allow_partial=args.allow_partial,
            dry_run=args.dry_run,
            events=events,
        )
    rows = [
        {"file": str(path), "ratio": ratio, "layers_used": done["layers"][str(path)]}
        for (path, _), ratio in zip(loras, done["ratios"], strict=True)
    ]
    return {**done, "base": args.base, "loras": rows}


def _device(args: argparse.Namespace, events: EventSink) -> AbstractContextManager[torch.device]:
    """Where to compute; nothing is, where it is only to be told what would be done."""
    from trainer.devices import tool_device

    return tool_device("cpu" if args.dry_run else args.device, f"merging into {args.out.name}", events)


def _base_path(base: str, events: EventSink) -> Path:
    """The file or folder that ``--base`` names."""
    path = Path(base).expanduser()
    if path.is_file():
        return path
    from trainer.families import model_folder  # it loads diffusers, which a file does not need

    return model_folder(base, None, field="base", events=events)
