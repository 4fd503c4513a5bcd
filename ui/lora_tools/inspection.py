"""What ``trainer inspect`` answers, as HTML: facts, strength per block, trigger words, metadata. No gradio in here."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from trainer.lora.merge_recipe import read_recipe
from ui import picture_html
from ui.lora_tools.recipes import recipe_rows
from ui.run_view import file_size

_SHOWN_NAMES = 12
_LONGEST_VALUE = 400


def inspection_html(inspection: dict[str, Any]) -> str:
    """The whole view."""
    parts = [
        picture_html.facts(fact_rows(inspection)),
        _warnings(inspection.get("warnings") or []),
        _triggers(inspection),
        _blocks(inspection.get("blocks") or []),
        _energy(inspection.get("energy") or {}),
        _about(inspection.get("about") or []),
        _recipe(inspection.get("metadata") or {}),
        _unknown(inspection.get("unknown_keys") or []),
        _hashes(inspection.get("hashes") or {}),
        _metadata(inspection.get("metadata") or {}),
    ]
    return f'<div class="inspection">{"".join(parts)}</div>'


def fact_rows(inspection: dict[str, Any]) -> list[tuple[str, str]]:
    """The telling parts as names and values; what a file has nothing of is left out."""
    rows = [
        ("What it is", str(inspection.get("said") or "")),
        ("Size", f"{file_size(int(inspection['size_bytes']))}, {inspection['precision']}"),
        ("Family", str(inspection["family"])),
        ("Names", str(inspection.get("naming") or "")),
        ("Kind", _counted(inspection.get("kinds"))),
        ("Layers", _by_part(inspection)),
        ("Rank", _counted(inspection.get("ranks"))),
        ("Alpha", _counted(inspection.get("alphas"))),
        ("Predicts", str((inspection.get("prediction") or {}).get("type") or "")),
    ]
    return [(name, value) for name, value in rows if value]


def _by_part(inspection: dict[str, Any]) -> str:
    """The layers of a LoRA, or the numbers of a model, by part."""
    parts = inspection.get("parts") or {}
    if inspection.get("what") == "model":
        return ", ".join(f"{part} {value['numbers'] / 1e6:,.0f} million numbers" for part, value in parts.items())
    listing = ", ".join(f"{count} in {part}" for part, count in parts.items())
    modules = inspection.get("modules")
    return f"{modules}: {listing}" if modules and listing else str(modules or "")


def _counted(counts: Mapping[str, Any] | None) -> str:
    """``16 (200), 8 (12)``; the count is left out where there is one entry only."""
    if not counts:
        return ""
    return ", ".join(f"{key} ({count})" if len(counts) > 1 else str(key) for key, count in counts.items())


def _warnings(found: Sequence[Any]) -> str:
    items = "".join(f"<li>{html.escape(_words(item))}</li>" for item in found)
    return f'<ul class="notes">{items}</ul>' if items else ""


def _words(item: Any) -> str:
    if isinstance(item, Mapping):
        return f"{item.get('message', '')} {item.get('hint', '')}".strip()
    return str(item)


def _blocks(blocks: Sequence[Mapping[str, Any]]) -> str:
    """A bar for the strength of each block: where the LoRA acts."""
    largest = max((float(block["norm"]) for block in blocks), default=0.0)
    if not largest:
        return ""
    rows = "".join(
        f"<tr><th scope='row'>{html.escape(str(block['block']))}</th><td>{block['layers']}</td>"
        f"<td class='bar-cell'><span class='bar'><i style='width:{float(block['norm']) / largest:.1%}'></i></span></td>"
        f"<td>{float(block['norm']):.3g}</td></tr>"
        for block in blocks
    )
    head = "<tr><th>Block</th><th>Layers</th><th></th><th>Strength</th></tr>"
    return _folded(
        "Strength per block", f"<table class='block-table'><thead>{head}</thead><tbody>{rows}</tbody></table>"
    )


def _triggers(inspection: dict[str, Any]) -> str:
    """Words that call the LoRA up, the likeliest first, with why they are thought to."""
    rows = [(str(item["word"]), ", ".join(map(str, item["reasons"]))) for item in inspection.get("triggers") or []]
    return _folded("Trigger words", picture_html.facts(rows[:_SHOWN_NAMES]), is_open=True) if rows else ""


def _energy(energy: dict[str, Any]) -> str:
    """What lower ranks would keep: whether a resize is worth it."""
    rows = [(f"Rank {item['rank']}", f"keeps {item['energy']:.2%}") for item in energy.get("kept") or []]
    return _folded("What lower ranks keep", picture_html.facts(rows)) if rows else ""


def _about(about: Sequence[Mapping[str, Any]]) -> str:
    rows = [(str(item["label"]), _shortened(str(item["value"]))) for item in about]
    return _folded("How it was trained", picture_html.facts(rows)) if rows else ""


def _recipe(metadata: Mapping[str, Any]) -> str:
    recipe = read_recipe({name: str(value) for name, value in metadata.items()})
    return "" if recipe is None else _folded("What it was merged from", picture_html.facts(recipe_rows(recipe)))


def _hashes(hashes: Mapping[str, Any]) -> str:
    rows = []
    for name, value in hashes.items():
        if isinstance(value, Mapping):
            fits = "right" if value["right"] else f"the file says {value['said']}"
            value = f"{value['found']}, {fits}" if value.get("said") else value.get("found")
        if value:
            rows.append((name, str(value)))
    return _folded("Hashes", picture_html.facts(rows)) if rows else ""


def _unknown(names: Sequence[str]) -> str:
    if not names:
        return ""
    items = "".join(f"<li><code>{html.escape(str(name))}</code></li>" for name in names[:_SHOWN_NAMES])
    more = f"<li>and {len(names) - _SHOWN_NAMES} more</li>" if len(names) > _SHOWN_NAMES else ""
    return _folded(f"Not understood: {len(names)} tensors", f"<ul>{items}{more}</ul>", is_open=True)


def _metadata(metadata: Mapping[str, Any]) -> str:
    rows = [(name, _shortened(str(value))) for name, value in metadata.items()]
    return _folded(f"Metadata: {len(rows)} entries", picture_html.facts(rows)) if rows else ""


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]} … ({len(text):,} characters)"


def _folded(title: str, content: str, *, is_open: bool = False) -> str:
    return f"<details{' open' if is_open else ''}><summary>{html.escape(title)}</summary>{content}</details>"
