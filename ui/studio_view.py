"""What the picture process holds, in words. No gradio in here."""

from __future__ import annotations

import html
from pathlib import Path

from trainer.errors import UserError
from trainer.studio import Studio, StudioInfo
from ui.run_view import file_size

_DEVICES = {"cpu": "the processor"}


def held(info: StudioInfo) -> str:
    """What is loaded, where, and how much of the memory it takes, as HTML."""
    if info.state in ("off", "starting") or info.model is None:
        return "<p class='quiet'>No model is loaded.</p>"
    model = html.escape(info.model)
    if info.state == "loading":
        return f"<p class='quiet'>Loading {model}.</p>"
    loras = [Path(path).stem for path in info.loras]
    facts = [f"Loaded: {model}, for {html.escape(_DEVICES.get(str(info.device), 'the GPU'))}"]
    if info.memory_bytes is not None:
        facts.append(f"{file_size(info.memory_bytes)} of memory")
    if loras:
        facts.append(f"LoRAs: {html.escape(', '.join(loras))}")
    told = [*info.savers, *filter(None, [info.replays])]
    lines = [". ".join(facts) + ".", *map(html.escape, told)]
    return "".join(f"<p class='quiet'>{line}</p>" for line in lines)


def let_go(studio: Studio) -> None:
    """End the picture process. Raises UserError while it has something to draw."""
    if studio.pending():
        message = "The picture model is in use: pictures are being drawn or wait to be."
        raise UserError("studio.in_use", message, "Cancel them on the Generate tab, or wait for their end.")
    studio.let_go()
