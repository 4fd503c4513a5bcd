"""sd-scripts' preview pictures: how often, and the prompt file (``docs/train_network_README.md``, "Sample images")."""

from __future__ import annotations

import json
from typing import Any

from trainer.imports import values
from trainer.imports.base import ReadText
from trainer.imports.draft import Draft
from trainer.imports.toml_texts import TomlError, load_toml
from trainer.prompt_lines import parse_line, parse_lines
from trainer.sampler_names import read_sampler

_USUAL = {"steps": 30, "guidance": 7.5, "width": 512, "height": 512}
"""Of a line that says nothing else (``line_to_prompt_dict`` and ``sample_image_inference``)."""
_FIELDS = {
    "prompt": "prompt",
    "negative_prompt": "negative",
    "width": "width",
    "height": "height",
    "seed": "seed",
    "scale": "guidance",
    "sample_steps": "steps",
    "sample_sampler": "sampler",
}
"""Keys of prompt files in TOML and JSON."""
_PROMPT_FILES = (".txt", ".toml", ".json")


def put_samples(draft: Draft, companion: ReadText) -> None:
    """When previews are drawn, and of what."""
    epochs, steps = draft.whole("sample_every_n_epochs"), draft.whole("sample_every_n_steps")
    draft.put("samples.every_steps", steps or 0, "sample_every_n_steps")
    if epochs:
        draft.put("samples.every_epochs", epochs, "sample_every_n_epochs")
    draft.unused("sample_every_n_epochs", "off in the file")
    draft.put("samples.at_start", draft.flag("sample_at_first"), "sample_at_first")
    found = read_sampler(draft.text("sample_sampler"))
    sampler, note = (found[0], "") if found else ("euler", "not there; euler is used")
    given = draft.text("sample_prompts")
    prompts, unknown = _prompts(given, companion) if given else ([], [])
    if given and not prompts:
        draft.lost("sample_prompts", "its file is not here; write the prompts under Previews")
    if prompts:
        filled = [{"sampler": sampler, **_USUAL, **prompt} for prompt in prompts]
        skipped = f"; left out: {', '.join(sorted(unknown))}" if unknown else ""
        told = f"{len(prompts)} prompts{skipped}" if unknown else ""
        draft.put("samples.prompts", filled, "sample_prompts", note=told)
        draft.tell("samples.prompts", f"sampler {sampler}", "sample_sampler", note=note)
    draft.all_unused(("sample_prompts", "sample_sampler"), "there are no preview prompts")


def _prompts(given: str, companion: ReadText) -> tuple[list[dict[str, Any]], set[str]]:
    """The prompts, and the flags that mean nothing here. kohya_ss keeps the text itself, sd-scripts a file's name."""
    text = given
    if given.lower().endswith(_PROMPT_FILES) and "\n" not in given:
        found = companion(given)
        if found is None:
            return [], set()
        text = found
    lines = _structured(text) if given.lower().endswith((".toml", ".json")) else parse_lines(text)
    unknown = {name for line in lines for name in line if name.startswith("--")}
    return [_usable(line) for line in lines], unknown


def _structured(text: str) -> list[dict[str, Any]]:
    """A prompt file in JSON (a list) or TOML (``prompt`` with ``subset`` in it)."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        try:
            data = load_toml(text)
        except TomlError:
            return []
    if isinstance(data, dict):
        shared = data.get("prompt", {})
        shared = shared if isinstance(shared, dict) else {}
        subsets = shared.get("subset", [])
        shared = {key: value for key, value in shared.items() if key != "subset"}
        data = [{**shared, **each} for each in subsets if isinstance(each, dict)]
    lines = []
    for each in data if isinstance(data, list) else []:
        if isinstance(each, str):
            lines.append(parse_line(each))
        elif isinstance(each, dict):
            lines.append({_FIELDS.get(key, f"--{key}"): value for key, value in each.items()})
    return lines


def _usable(line: dict[str, Any]) -> dict[str, Any]:
    """What we know of a prompt; sizes are rounded down to 8 pixels, as sd-scripts does."""
    kept = {name: value for name, value in line.items() if not name.startswith("--") and not values.is_blank(value)}
    for side in ("width", "height"):
        size = values.whole(kept.get(side))
        if size is not None:
            kept[side] = max(64, size - size % 8)
    return kept
