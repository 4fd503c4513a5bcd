"""``trainer inspect FILE``: what is in a LoRA, a base model or a checkpoint.

The keys of ``--json`` are stable; others may come. For all:

* ``what``: ``lora``, ``model`` (a base model) or ``other``, and then ``said``: what it is in words.
* ``file``, ``size_bytes``, ``metadata`` (as in the file), ``family`` (``sd1 sd2 sdxl``, ``flux sd3``, ``unknown``).
* ``precision``: ``fp16 bf16 float``, of models also ``mixed``; ``formats``: tensors by safetensors' names of formats.
* ``warnings``: ``[{"code", "message", "hint"}]``, everything that is not as it should be.
* ``parts``: of a LoRA the number of layers by part; of a model ``{"numbers", "precision"}`` by part.

For a LoRA:

* ``naming``: whose names it has (``kohya``, ``diffusers``, ``old diffusers``, ``peft``, ``comfyui``, ``lycoris``).
* ``modules``, ``convolutions``, ``kinds``, ``ranks``, ``alphas``: how many layers, in all and by each.
* ``norm``: Frobenius norm of the changes of all layers together, alpha and all; ``blocks``: ``[{"block", "layers",
  "norm", "share"}]`` in the model's order, ``share`` of the square of the whole.
* ``energy``: what lower ranks keep of the squared norm: ``{"layers", "kept": [{"rank", "energy"}], "needed":
  [{"energy", "median_rank", "largest_rank"}]}``, or null where it is not known.
* ``trigger``: as the file names it, or null; ``triggers``: ``[{"word", "score", "reasons"}]``, likeliest first;
  ``frequent_tags``: tags of the captions, most frequent first.
* ``zero_layers``, ``broken_layers`` (key to what is wrong), ``unknown_keys``, ``other_kinds`` (kind to tensors).
* ``hashes``: ``sha256 autov2 autov3``, and ``sshs_model_hash sshs_legacy_hash`` with ``{"said", "found", "right"}``;
  null for a folder of several files.
* ``about``: the metadata for people, ``[{"topic", "label", "value"}]``.
* ``layers``, with ``--layers``: ``[{"layer", "path", "part", "block", "kind", "rank", "alpha", "shape", "norm",
  "rank_for_90", "rank_for_99"}]``.
* ``checkpoint``, for a checkpoint of a run: ``{"step", "validation_loss", "valid"}``.

For a model: ``prediction`` (``{"type", "said", "zero_terminal_snr"}``), ``vae`` (``included``, ``missing``), ``ema``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainer.runs.events import EventSink


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The file, and how much is told."""
    parser.add_argument(
        "file",
        type=Path,
        help="a .safetensors or .ckpt file, the folder of an adapter or a model, or a LoRA of the hub",
    )
    parser.add_argument("--layers", action="store_true", help="a row for each layer")


def run(args: argparse.Namespace, events: EventSink) -> dict[str, Any]:
    """Look into the file. Raises UserError when it is broken or holds no weights."""
    from trainer.devices import use_threads_for
    from trainer.hub_loras import lora_file
    from trainer.inspection import inspect_path

    use_threads_for(0)  # a thousand small matrices: more threads only wait for each other
    return inspect_path(lora_file(args.file, field="file", events=events), layers=args.layers, events=events)


def describe(answer: dict[str, Any]) -> str:
    """The answer as a page of text."""
    from trainer.lora.readable import printable

    lines = list(_of_lora(answer) if answer["what"] == "lora" else _of_model(answer))
    lines += [f"Warning: {warning['message']} {warning['hint']}" for warning in answer["warnings"]]
    return "\n".join(printable(line, longest=None) for line in lines)


def _of_lora(answer: dict[str, Any]) -> Iterator[str]:
    parts = ", ".join(f"{name} {count}" for name, count in answer["parts"].items())
    yield f"{answer['file']}  {answer['size_bytes'] / 1e6:.1f} MB  {answer['precision']}  {answer['naming']} names"
    yield f"family   {answer['family']}"
    yield f"kind     {_listing(answer['kinds']) or 'none that is read'}"
    yield f"layers   {answer['modules']} ({parts}; {answer['convolutions']} large convolutions)"
    yield f"rank     {_listing(answer['ranks'])}"
    yield f"alpha    {_listing(answer['alphas'])}"
    if "checkpoint" in answer:
        state = "" if answer["checkpoint"]["valid"] else ", damaged"
        yield f"run      checkpoint of step {answer['checkpoint']['step']}{state}"
    yield from _triggers(answer)
    yield from ("", f"{'block':<32}{'layers':>8}{'norm':>10}{'share':>8}")
    for row in answer["blocks"]:
        yield f"{row['block']:<32}{row['layers']:>8}{row['norm']:>10.3f}{row['share']:>8.1%}"
    yield from _energy(answer["energy"])
    yield from _layers(answer)
    yield from _hashes(answer["hashes"])
    yield ""
    for row in answer["about"]:
        yield f"{row['topic'] + ': ' + row['label']:<32}{row['value']}"
    yield from (f"not understood: {key}" for key in answer["unknown_keys"])
    yield from (f"broken: {key} {fault}" for key, fault in answer["broken_layers"].items())


def _triggers(answer: dict[str, Any]) -> Iterator[str]:
    if not answer["triggers"]:
        yield f"trigger  {answer['trigger'] or ', '.join(answer['frequent_tags']) or 'not told'}"
    for number, trigger in enumerate(answer["triggers"]):
        yield f"{'' if number else 'trigger':<9}{trigger['word']} ({'; '.join(trigger['reasons'])})"


def _energy(energy: dict[str, Any] | None) -> Iterator[str]:
    if energy is None:
        return
    kept = ", ".join(f"{row['rank']}: {row['energy']:.1%}" for row in energy["kept"])
    needed = ", ".join(f"{row['energy']:.0%} at {row['median_rank']} (median)" for row in energy["needed"])
    yield from ("", f"kept of the change at rank {kept}", f"ranks needed: {needed}")


def _layers(answer: dict[str, Any]) -> Iterator[str]:
    if "layers" in answer:
        yield from ("", f"{'norm':>10}{'rank':>6}{'alpha':>8}  {'kind':<6} layer")
        for row in answer["layers"]:
            yield f"{row['norm']:>10.4f}{row['rank']:>6}{row['alpha']:>8g}  {row['kind']:<6} {row['layer']}"


def _hashes(hashes: dict[str, Any] | None) -> Iterator[str]:
    if hashes is None:
        return
    yield from ("", f"sha256   {hashes['sha256']}  (AutoV2 {hashes['autov2']}, AutoV3 {hashes['autov3']})")


def _of_model(answer: dict[str, Any]) -> Iterator[str]:
    yield f"{answer['file']}  {answer['size_bytes'] / 1e6:.1f} MB  {answer['precision']}"
    if answer["what"] == "other":
        yield f"It {answer['said']}."
        return
    sure = "" if answer["prediction"].get("said", True) else " (likely)"
    ending = ", zero terminal SNR" if answer["prediction"]["zero_terminal_snr"] else ""
    yield f"family   {answer['family']}, a base model"
    yield f"predicts {answer['prediction']['type']}{sure}{ending}"
    yield f"VAE      {answer['vae']}"
    for part, told in answer["parts"].items():
        numbers = "" if told["numbers"] is None else f"{told['numbers'] / 1e6:.1f} million numbers, "
        yield f"{part:<16} {numbers}{told['precision']}"


def _listing(counts: dict[str, int]) -> str:
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{value} ({count} layers)" for value, count in counts.items())
