"""What every tool has below its form: the plan, a button, Cancel, and the outcome; and how they are wired."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from ui.context import AppContext
from ui.lora_tools.desk import Order, ToolDesk
from ui.messages import tells_problems
from ui.scripted import kept, scripted
from ui.wiring import EVERY_TIME, QUIET, TELLING

FIELD: dict[str, Any] = {"interactive": True, "elem_classes": ["field"]}
PRECISIONS = [("As the input", ""), ("fp16", "fp16"), ("bf16", "bf16"), ("float32", "float")]


FORM_CHANGED = "(plan, ...values) => [{ values: JSON.stringify(values) }]"


class PlanPlace:
    """Where a tool's plan stands; asks for it anew, without an event of Gradio's, when the form has changed.

    Attributes:
        shown: the component.
        made_by: HTML of what will happen, of the form's values; raises nothing.
    """

    def __init__(self, tool: str) -> None:
        self.made_by: Callable[..., str] = lambda *values: ""

        def plan(asked: Any) -> str:
            return self.made_by(*asked["values"])

        self.shown = scripted(f"{tool}-plan", css=[], js=["loras/plan"], asks=[plan])

    def follow(self, inputs: Sequence[Any]) -> None:
        """Have the plan made of these components' values whenever one of them changes."""
        changes = [part.change for part in inputs]
        gr.on(changes, None, [self.shown, *inputs], self.shown, js=FORM_CHANGED, **QUIET, **EVERY_TIME)


@dataclass(frozen=True)
class Panel:
    """The components of a tool that its form does not differ in."""

    plan: PlanPlace
    start: gr.Button
    cancel: gr.Button
    after: gr.Row
    outcome: gr.HTML
    seen: gr.HTML

    @property
    def polled(self) -> list[Any]:
        return [self.seen, self.outcome, self.cancel, self.start]


def panel(tool: str, action: str, leads: Sequence[gr.Button] = ()) -> Panel:
    """Lay it out.

    Args:
        tool: in the elements' ids.
        action: on the button.
        leads: buttons, not rendered yet, for what can be done with the outcome; their row, ``after``, is hidden.
    """
    plan = PlanPlace(tool)
    with gr.Row(elem_classes=["actions"]):
        start = gr.Button(action, variant="primary", elem_id=f"{tool}-save")
        cancel = gr.Button("Cancel", visible=False, elem_id=f"{tool}-cancel")
    with gr.Row(visible=False, elem_classes=["actions"]) as after:
        for lead in leads:
            lead.render()
    outcome = gr.HTML("", padding=False, elem_id=f"{tool}-outcome")
    return Panel(plan, start, cancel, after, outcome, kept())


def output_name(tool: str, value: str) -> tuple[gr.Textbox, gr.Checkbox]:
    """The fields for the result's name, and whether a file of that name may be replaced."""
    name = gr.Textbox(value, label="Name", elem_id=f"{tool}-name", **FIELD)
    replace = gr.Checkbox(False, label="Replace a file of this name", elem_id=f"{tool}-replace", **FIELD)
    return name, replace


def wire(
    context: AppContext,
    panel: Panel,
    desk: ToolDesk,
    order: Callable[..., Order],
    plan: Callable[..., str],
    inputs: Sequence[Any],
) -> None:
    """Start, cancel and follow the tool's job; keep the plan true to the form.

    Args:
        order: makes the command of the form's values; may raise UserError.
        plan: HTML of what will happen, of the same values; raises nothing.
        inputs: the form's components.
    """

    @tells_problems
    def start(*values: Any) -> None:
        desk.start(order(*values))

    @tells_problems
    def cancel() -> None:
        desk.cancel()

    def poll(seen: str) -> list[Any] | None:
        now = desk.standing()
        if now.version == seen:
            return None
        return [now.version, now.html, gr.update(visible=now.going), gr.update(interactive=not now.going)]

    def refresh(seen: str) -> list[Any]:
        return poll(seen) or [gr.skip() for _ in panel.polled]

    after: dict[str, Any] = {"fn": refresh, "inputs": panel.seen, "outputs": panel.polled, **QUIET}
    panel.start.click(start, list(inputs), None, **TELLING).then(**after)
    panel.cancel.click(cancel, None, None, **TELLING).then(**after)
    context.page.poll(poll, [panel.seen], panel.polled)
    panel.plan.made_by = plan
    panel.plan.follow(inputs)
