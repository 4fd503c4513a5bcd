"""The preview prompts of a run, changed while it goes on."""

from __future__ import annotations

from typing import Any

import gradio as gr

from trainer.config import SamplePrompt
from trainer.errors import UserError
from trainer.prompt_lines import flags_in_words, format_line
from trainer.runs import actions
from trainer.runs.control import PROMPTS
from trainer.runs.store import ALIVE, Run
from ui.dataset.board import sent
from ui.messages import inform, tells_problems
from ui.runs.board import Panel, RunsBoard
from ui.runs.desk import Shown
from ui.scripted import scripted
from ui.wiring import TELLING

_DEFAULTS = SamplePrompt.model_validate({}).model_dump()


def build(board: RunsBoard) -> None:
    """Lay the prompts out, folded."""
    with gr.Accordion("Preview prompts", open=False, elem_classes=["card", "as-text"]):
        prompts = scripted("run-prompts", css=("runs/panel",), js=("dataset/dom", "runs/prompts"))
    board.add(Panel("prompts", [prompts], _key, lambda shown: [_told(shown)]))

    @tells_problems
    def use(event: gr.EventData) -> None:
        asked = sent(event, "run", "text", "sample")
        run = board.desk.run(asked["run"])
        lines = [line.strip() for line in str(asked["text"]).splitlines()]
        changed = actions.change_prompts(run, [line for line in lines if line and not line.startswith("#")])
        if asked["sample"]:
            actions.ask(run, "sample")
        inform(f"{len(changed)} {'prompt' if len(changed) == 1 else 'prompts'} for the next previews.")

    board.then_refresh(prompts.use(use, None, None, **TELLING))


def _key(shown: Shown) -> Any:
    files = (shown.run.config_path, shown.run.control_dir / PROMPTS)
    return [path.stat().st_mtime_ns if path.is_file() else 0 for path in files], shown.view.info.state


def _told(shown: Shown) -> dict[str, Any]:
    state = shown.view.info.state
    when = {"training": "They count from the next step on.", "paused": "They count once it goes on."}.get(state, "")
    return {
        "run": shown.run.id,
        "text": _lines(shown.run),
        "can_sample": state == "training",
        "when": when or ("" if state in ALIVE else "They count when the run goes on."),
        "flags": flags_in_words(),
    }


def _lines(run: Run) -> str:
    try:
        return "\n".join(format_line(prompt.model_dump(), _DEFAULTS) for prompt in actions.prompts_of(run))
    except UserError:  # a config of another version: the head says that it cannot be read
        return ""
