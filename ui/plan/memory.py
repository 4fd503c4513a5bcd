"""Memory of a planned run as a bar against what is free, and what other settings would take. No Gradio."""

from __future__ import annotations

import html
from itertools import groupby
from typing import Any

PARTS: dict[str, str] = {
    "weights": "model",
    "lora": "LoRA",
    "gradients": "gradients",
    "optimizer": "optimizer",
    "activations": "activations",
    "cache": "cache",
    "overhead": "overhead",
}
"""What takes memory, in the order of the bar."""
_GIB = 2**30


def memory_html(plan: dict[str, Any]) -> str:
    """The bar with its legend, who else holds memory, the fit, and the table of other settings."""
    estimate = plan["estimate"]
    room, needed = estimate["room"], estimate["vram_bytes"]
    parts = [(name, estimate["vram_parts"][name]) for name in PARTS if estimate["vram_parts"][name]]
    free = room["free_bytes"] if room else needed
    scale = max(needed, free)
    bar = "".join(f'<i class="{name}" style="width:{count / scale:.3%}"></i>' for name, count in parts)
    keys = "".join(f'<li><i class="{name}"></i>{PARTS[name]} {gib(count)}</li>' for name, count in parts)
    limit = f'<b style="left:{free / scale:.3%}" title="free"></b>' if room else ""
    title = "Memory" if room and room["kind"] == "cpu" else "GPU memory"
    state = "over" if estimate["fits"] is False else "fits"
    label = html.escape(f"{title}: {_told(estimate)}", quote=True)
    return (
        f'<div class="memory {state}"><h3>{title} <span>{html.escape(_told(estimate))}</span></h3>'
        f'<div class="bar" role="img" aria-label="{label}">{bar}{limit}</div><ul class="keys">{keys}</ul>'
        f"{_measured(estimate)}{_others(room)}{_fit(plan)}{_what_if(plan)}</div>"
    )


def gib(count: int) -> str:
    """``5.1 GiB``; small amounts in MiB."""
    return f"{count / _GIB:.1f} GiB" if count >= _GIB / 2 else f"{count / 2**20:.0f} MiB"


def _told(estimate: dict[str, Any]) -> str:
    needed, room = f"about {gib(estimate['vram_bytes'])}", estimate["room"]
    if room is None:
        return needed
    if room["kind"] == "given":
        return f"{needed}, on {room['name']}"
    return f"{needed}; {gib(room['free_bytes'])} are free of {gib(room['total_bytes'])} on {room['name']}"


def _measured(estimate: dict[str, Any]) -> str:
    measured = estimate["measured_bytes"]
    if not measured:
        return ""
    return f'<p class="hint">Measured with these settings: {gib(measured)}, without what CUDA itself takes.</p>'


def _others(room: dict[str, Any] | None) -> str:
    others = [f"{each['name']} {gib(each['bytes'])}" for each in (room["holders"] if room else []) if not each["ours"]]
    if not others:
        return ""
    return f'<p class="hint">Held by other programs: {html.escape(", ".join(others))}. Closing them frees it.</p>'


def _fit(plan: dict[str, Any]) -> str:
    """The button that fits the run, with what it would do; a line where there is nothing to do."""
    fitted = plan.get("fitted")
    if not fitted:
        return ""
    if not fitted["steps"]:
        words = "These are the fastest settings that fit." if fitted["fits"] else "No settings that learn the same fit."
        return f'<p class="hint">{words}</p>'
    steps = "".join(
        f"<li>{html.escape(each['label'])}"
        f" <small>{html.escape(each['reason'])}; {gib(each['bytes_after'])}</small></li>"
        for each in fitted["steps"]
    )
    text = "Fit to this memory" if fitted["fits"] else "Make it as small as can be"
    return (
        f'<div class="fit"><button type="button" data-fit>{text}</button>'
        f"<p class=hint>It learns the same, with as many pictures a step:</p><ol>{steps}</ol></div>"
    )


def _what_if(plan: dict[str, Any]) -> str:
    rows = plan["what_if"]
    sizes = sorted({each["batch_size"] for each in rows})
    head = "".join(f"<th scope=col>{size}</th>" for size in sizes)
    body = ""
    for (quantize, checkpointing), cells in groupby(enumerate(rows), _kind):
        name = "model as it is" if quantize == "none" else f"model in {quantize}"
        name += {"off": "", "some": ", some checkpointing", "all": ", checkpointing"}[checkpointing]
        body += f"<tr><th scope=row>{name}</th>{''.join(_cell(number, each) for number, each in cells)}</tr>"
    return (
        "<details class=what-if><summary>What if: batch size, checkpointing, quantisation</summary><div class=table>"
        f"<table><thead><tr><th>Batch size</th>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        "<p class=hint>Choose one to use it. Gradients are added up where that keeps the pictures a step.</p></details>"
    )


def _kind(numbered: tuple[int, dict[str, Any]]) -> tuple[str, str]:
    return numbered[1]["quantize"], numbered[1]["checkpointing"]


def _cell(number: int, row: dict[str, Any]) -> str:
    state = "" if row["fits"] is None else "yes" if row["fits"] else "no"
    chosen = ' aria-pressed="true"' if row["chosen"] else ""
    hint = "" if row["fits"] is None else "fits" if row["fits"] else "does not fit"
    return (
        f'<td><button type="button" class="{state}" data-row="{number}" title="{hint}"{chosen}>{gib(row["bytes"])}'
        "</button></td>"
    )
