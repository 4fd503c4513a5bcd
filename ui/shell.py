"""The screen: reads like its table of contents."""

from __future__ import annotations

import html
import json
from types import ModuleType
from typing import Any

import gradio as gr

from trainer.runs.settings import read_settings
from ui import journeys, welcome
from ui.context import AppContext
from ui.page import Handler, News, due, joined
from ui.scripted import told_key
from ui.tabs import dataset, generate, merge, runs, settings, train
from ui.theme import asset
from ui.welcome import Welcome
from ui.wiring import QUIET

TABS: dict[str, ModuleType] = {
    "Dataset": dataset,
    "Train": train,
    "Runs": runs,
    "Merge": merge,
    "Generate": generate,
    "Settings": settings,
}
_UNSEEN = {**QUIET, "concurrency_limit": None}
MARK = (
    '<svg class="mark" viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="2" aria-hidden="true">'
    '<rect x="3" y="3" width="18" height="18" rx="4"/><path d="M8 8v8h8"/><circle cx="15.5" cy="8.5" r="1.5"/></svg>'
)


def build_page(context: AppContext) -> gr.Blocks:
    """Build every tab and wire what reaches from one to another."""
    with gr.Blocks(title="LoRA Atelier", analytics_enabled=False, delete_cache=(3600, 86400)) as page:
        unseen = gr.Column(elem_id="unseen")  # first: Gradio looks for a component through all that stand before it
        with gr.Row(elem_classes=["masthead-row"]):
            gr.HTML(_masthead(context), padding=False)
            again = gr.Button("Try the demo", size="sm", scale=0, min_width=130, elem_id="demo-again")
        card = welcome.build(context, again)
        with gr.Tabs(overflow_behavior="wrap") as context.page.tabs:
            tabs = {label.lower(): _build_tab(label, module, context) for label, module in TABS.items()}
        _wire(context, card, tabs)
        _start_timer(page, context, unseen)
    return page


def _build_tab(label: str, module: ModuleType, context: AppContext) -> Any:
    context.page.tab = label.lower()
    with gr.Tab(label, id=context.page.tab, elem_id=f"tab-{context.page.tab}"):
        built = module.build(context)
    context.page.tab = ""
    return built


def _wire(context: AppContext, card: Welcome, tabs: dict[str, Any]) -> None:
    """Events that start on one tab and end on another."""
    journeys.from_card(context, card, tabs["train"], tabs["runs"])
    journeys.from_dataset(context, tabs["dataset"], tabs["train"])
    journeys.from_train(context, tabs["train"], tabs["runs"])
    journeys.from_runs(context, tabs["runs"], tabs["train"])
    journeys.from_checkpoints(context, tabs["runs"], tabs["generate"])
    journeys.to_grid(context, tabs["runs"], tabs["generate"])
    journeys.with_lora(context, card, tabs["runs"], tabs["generate"], tabs["merge"])


def _start_timer(page: gr.Blocks, context: AppContext, unseen: gr.Column) -> None:
    """The page's one timer, what happens when it is opened, and the components for it that nobody sees."""
    with unseen:
        theme = gr.Textbox(visible=False)
    context.page.load(lambda: [read_settings(context.workspace).theme], outputs=[theme])
    loaded = _attach(page.load, context.page.load_handlers)
    loaded.then(None, theme, None, js="theme => { atelier.setTheme(theme); atelier.opened(); }")
    with unseen:
        _pulse(context.page.pollers)
        for part in dict.fromkeys(part for poller in context.page.pollers for part in poller.inputs):
            part.render()
    _show_no_progress(page, theme)


def _pulse(pollers: list[Handler]) -> None:
    """Has the browser ask which pollers have something new, and scripts be told it with the answer.

    An event of Gradio costs the browser time by its inputs and outputs, a good part of a tenth of a second and more on
    this page. So the question is none, nor is what changes all the time while a run goes on; only what a script cannot
    show is sent by an event of its poller.
    """

    def ask(asked: Any) -> list[tuple[int, News | None]]:
        kept = asked["kept"]
        return due(pollers, str(asked["tab"]), lambda part: str(kept.get(part.key) or ""), told_key, gr.skip())

    events = ", ".join(f'() => trigger("due{number}")' for number in range(len(pollers)))
    read = json.dumps(list(dict.fromkeys(part.key for poller in pollers for part in poller.inputs)))
    script = f"const send = [{events}], READ = {read};\n{asset('pulse.js')}"
    pulse = gr.HTML("", html_template="", js_on_load=script, padding=False, server_functions=[ask])
    for number, poller in enumerate(pollers):
        _attach(getattr(pulse, f"due{number}"), [poller])
    pulse.lost(lambda: None, **_UNSEEN)


def _show_no_progress(page: gr.Blocks, absent: gr.Textbox) -> None:
    """Events that show no progress have Gradio keep their progress on one component that is not on the page.

    Otherwise the browser keeps it for every component that ever was an output, and looks each of them up among all
    components whenever any event starts or ends: over a second of work on this page.
    """
    for event in page.fns.values():
        if event.show_progress == "hidden":
            event.show_progress_on = [absent]


def _attach(event: Any, handlers: list[Handler]) -> Any:
    return event(
        joined(handlers, gr.skip),
        [component for handler in handlers for component in handler.inputs],
        [component for handler in handlers for component in handler.outputs],
        **_UNSEEN,
    )


def _masthead(context: AppContext) -> str:
    place = html.escape(str(context.workspace.dir))
    return (
        f'<header class="masthead">{MARK}<h1 class="name">LoRA Atelier</h1>'
        f'<span class="place" title="Workspace"><bdi>{place}</bdi></span></header>'
    )
