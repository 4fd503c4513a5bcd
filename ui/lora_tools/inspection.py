"""What ``trainer inspect`` answers, as HTML: facts, strength per block, trigger words, metadata. No gradio in here."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from ui import picture_html
from ui.run_view import file_size

_SHOWN_NAMES = 12
_LONGEST_VALUE = 400


def inspection_html(inspection: dict[str, Any]) -> str:
    """The whole view."""
    parts = [
        picture_html.facts(fact_rows(inspection)),
        _warnings(inspection.get("warnings") or []),
        _blocks(inspection.get("blocks") or []),
        _triggers(inspection),
        _unknown(inspection.get("unknown_keys") or []),
        _metadata(inspection.get("metadata") or {}),
    ]
    return f'<div class="inspection">{"".join(parts)}</div>'


def fact_rows(inspection: dict[str, Any]) -> list[tuple[str, str]]:
    """The telling parts as names and values; what a file has nothing of is left out."""
    rows = [
        ("Size", f"{file_size(int(inspection['size_bytes']))}, {inspection['precision']}"),
        ("Family", str(inspection["family"])),
        ("Kind", _counted(inspection.get("kinds"))),
        ("Layers", _with_parts(inspection)),
        ("Rank", _counted(inspection.get("ranks"))),
        ("Alpha", _counted(inspection.get("alphas"))),
    ]
    return [(name, value) for name, value in rows if value]


def _with_parts(inspection: dict[str, Any]) -> str:
    if "modules" not in inspection:
        return ""
    parts = ", ".join(f"{count} in {part}" for part, count in (inspection.get("parts") or {}).items())
    return f"{inspection['modules']}: {parts}" if parts else str(inspection["modules"])


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
    """Words that call the LoRA up, with why they are thought to."""
    found = inspection.get("triggers") or []
    rows = [(_trigger_word(item), _trigger_reason(item)) for item in found]
    if not rows and inspection.get("trigger"):
        rows = [(str(inspection["trigger"]), "named as trigger in the file")]
    tags = inspection.get("frequent_tags") or []
    if tags and not found:
        rows.append((", ".join(map(str, tags)), "most frequent in its training captions"))
    if not rows:
        return ""
    return _folded("Trigger words", picture_html.facts(rows), is_open=True)


def _trigger_word(item: Any) -> str:
    return str(item.get("word") or item.get("text") or item.get("trigger")) if isinstance(item, Mapping) else str(item)


def _trigger_reason(item: Any) -> str:
    if not isinstance(item, Mapping):
        return ""
    reason = item.get("reason") or item.get("reasons") or item.get("source") or ""
    return ", ".join(map(str, reason)) if isinstance(reason, list | tuple) else str(reason)


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
