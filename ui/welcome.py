"""The card over the tabs that leads a newcomer from one button to a picture of their own."""

from __future__ import annotations

import html
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from trainer.demo.concepts import PICTURES
from trainer.runs.store import Workspace
from trainer.runs.worker import expect_start
from ui import demo_tour
from ui.context import AppContext
from ui.demo_tour import Tour
from ui.messages import tells_problems
from ui.run_view import duration
from ui.scripted import kept

NAMES = {"neon": "neon style", "robot": "robot"}
ASSETS = Path(__file__).resolve().parent / "assets"


@dataclass(frozen=True)
class Welcome:
    """What the shell wires.

    Attributes:
        buttons: one per concept; each starts the demo that teaches it.
        watch: leads to the run.
        generate: leads to the Generate tab with what was learned.
    """

    buttons: dict[str, gr.Button]
    watch: gr.Button
    generate: gr.Button
    again: gr.Button
    card: gr.Column
    text: gr.HTML
    shown: gr.HTML

    @property
    def outputs(self) -> list[Any]:
        """What ``updates`` changes."""
        return [self.shown, self.card, self.text, *self.buttons.values(), self.watch, self.generate, self.again]

    def updates(self, workspace: Workspace) -> list[Any]:
        """The card as it should be now."""
        tour = demo_tour.read_tour(workspace)
        stage = tour.stage
        return [
            tour.key,
            gr.update(visible=tour.shown),
            card_html(tour),
            *(gr.update(visible=stage in ("offer", "stopped")) for _ in self.buttons),
            gr.update(visible=stage in ("waiting", "preparing", "training", "stopped")),
            gr.update(visible=stage == "finished"),
            gr.update(visible=not tour.shown),
        ]


def build(context: AppContext, again: gr.Button) -> Welcome:
    """Lay the card out; ``again`` is the button in the page's head that brings it back."""
    tour = demo_tour.read_tour(context.workspace)
    with gr.Column(elem_classes=["card", "welcome"], elem_id="welcome", visible=tour.shown) as card:
        text = gr.HTML(card_html(tour), padding=False)
        with gr.Row(elem_classes=["actions"]):
            neon = gr.Button("Try the demo", variant="primary", elem_id="try-demo", scale=0, min_width=160)
            robot = gr.Button("Or teach it a robot", elem_id="try-robot", scale=0, min_width=170)
            watch = gr.Button("Watch it learn", visible=False, elem_id="watch-demo", scale=0, min_width=160)
            generate = gr.Button(
                "Generate with it", variant="primary", visible=False, elem_id="generate-demo", scale=0, min_width=180
            )
            close = gr.Button("Close", scale=0, min_width=80, elem_classes=["fold"], elem_id="close-demo")
    again.visible = not tour.shown
    shown = kept()
    welcome = Welcome({"neon": neon, "robot": robot}, watch, generate, again, card, text, shown)
    _wire(context, welcome, close, again)
    return welcome


def _wire(context: AppContext, welcome: Welcome, close: gr.Button, again: gr.Button) -> None:
    workspace = context.workspace

    def poll(shown: str) -> list[Any] | None:
        tour = demo_tour.read_tour(workspace)
        if tour.shown and tour.stage == "offer":
            expect_start(workspace)
        return None if tour.key == shown else welcome.updates(workspace)

    @tells_problems
    def put_away() -> list[Any]:
        demo_tour.hide(workspace)
        return welcome.updates(workspace)

    @tells_problems
    def bring_back() -> list[Any]:
        demo_tour.offer(workspace)
        return welcome.updates(workspace)

    close.click(put_away, None, welcome.outputs, show_progress="hidden", queue=False)
    again.click(bring_back, None, welcome.outputs, show_progress="hidden", queue=False)
    context.page.poll(poll, [welcome.shown], welcome.outputs)
    context.page.load(lambda: welcome.updates(workspace), outputs=welcome.outputs)


def card_html(tour: Tour) -> str:
    """Title, the three steps with a tick at those done, and a picture of what happens."""
    title, text = _words(tour)
    steps = "".join(
        f'<li class="{state}"><strong>{html.escape(name)}</strong> {html.escape(about)}</li>'
        for name, about, state in _steps(tour)
    )
    picture = (ASSETS / f"demo_{tour.concept}.svg").read_text(encoding="utf-8")
    look = "welcome-text" if tour.stage == "offer" else "welcome-text under-way"
    return (
        f'<div class="{look}"><div><h2>{html.escape(title)}</h2><p>{html.escape(text)}</p><ol>{steps}</ol></div>'
        f'<figure aria-hidden="true">{picture}</figure></div>'
    )


def _words(tour: Tour) -> tuple[str, str]:
    what = NAMES[tour.concept]
    if tour.stage == "offer":
        return (
            "See it work: teach a picture model something new",
            "Press one button. Nothing is downloaded, and no graphics card is needed: a small model is built in. "
            "It takes three to four minutes, and you can watch all of it.",
        )
    if tour.stage == "waiting":
        return "The pictures are made. Training starts in a moment.", "Another run may have to end first."
    if tour.stage == "preparing":
        return "Getting ready to train", "The pictures are being read. The first preview appears in a few seconds."
    if tour.stage == "training":
        return (
            f"Learning the {what}: step {tour.step} of {tour.max_steps}",
            f"{_left(tour)}The Runs tab shows new previews every 100 steps: watch them change.",
        )
    if tour.stage == "finished":
        return f"Done: the model knows the {what} now", "Make pictures with it: change the words and see what comes."
    return "The demo run has ended early", tour.error or "It was stopped. Continue it on the Runs tab, or start again."


def _left(tour: Tour) -> str:
    return f"About {duration(tour.seconds_left)} left. " if tour.seconds_left else ""


def _steps(tour: Tour) -> list[tuple[str, str, str]]:
    done = {"offer": 0, "waiting": 1, "preparing": 1, "training": 1, "stopped": 1, "finished": 2}[tour.stage]
    trained = f"step {tour.step} of {tour.max_steps}" if tour.stage == "training" else "three to four minutes"
    steps = [
        ("Pictures", f"{PICTURES} practice pictures with captions are made."),
        ("Training", f"The model learns from them: {trained}."),
        ("Your turn", "You write a prompt and get a picture with what it learned."),
    ]
    states = ["done" if number < done else "now" if number == done else "next" for number in range(len(steps))]
    return [(name, about, state) for (name, about), state in zip(steps, states, strict=True)]
