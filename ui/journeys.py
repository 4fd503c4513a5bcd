"""What leads from one tab to another: try the demo, start a run, train on a dataset, use a run's LoRA."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gradio as gr

from trainer.checkpoint_folders import LORA
from trainer.errors import UserError
from trainer.runs.actions import checkpoint_of
from ui import demo_tour
from ui.context import AppContext
from ui.dataset.board import sent
from ui.generate.desk import settings_like
from ui.messages import inform, tells_problems
from ui.run_list import RunListReader
from ui.runs.waiting import start_word
from ui.tabs.dataset import DatasetTab
from ui.tabs.generate import GenerateTab, UseLora
from ui.tabs.merge import MergeTab
from ui.tabs.runs import RunsTab
from ui.tabs.train import TrainTab
from ui.train_view import key_beside_runs
from ui.welcome import Welcome
from ui.wiring import IN_TURN, TELLING


def from_card(context: AppContext, card: Welcome, train: TrainTab, runs: RunsTab) -> None:
    """The demo's buttons: start it, with its settings in the Train form, and watch it."""
    for concept, button in card.buttons.items():
        started = button.click(
            _try_demo(context, concept, card, train),
            None,
            [train.run_started, *card.outputs, *train.handlers.filled],
            **IN_TURN,
        )
        _then_show_run(context, started, train, runs)
    card.watch.click(lambda: _shown(runs, _demo_run(context)), None, _seen(context, runs), **IN_TURN)


def from_train(context: AppContext, train: TrainTab, runs: RunsTab) -> None:
    """A started run is shown on the Runs tab."""
    _then_show_run(context, train.start, train, runs)


def from_dataset(context: AppContext, dataset: DatasetTab, train: TrainTab) -> None:
    """The open dataset becomes the Train form's folder."""

    @tells_problems
    def train_on(values: Mapping[Any, Any]) -> dict[Any, Any]:
        updates = train.handlers.use_folder(values, values[dataset.folder])
        return {**updates, context.page.tabs: gr.Tabs(selected="train")}

    inputs = {dataset.folder, *train.handlers.given}
    dataset.train_on.click(train_on, inputs, [context.page.tabs, *train.handlers.filled], **IN_TURN)


def from_runs(context: AppContext, runs: RunsTab, train: TrainTab) -> None:
    """A run's settings go back into the Train form, to be changed."""

    @tells_problems
    def edit(run_id: str) -> dict[Any, Any]:
        filled = train.handlers.change_run(context.workspace.run(run_id))
        return {**filled, context.page.tabs: gr.Tabs(selected="train")}

    runs.edit.click(edit, runs.selected, [context.page.tabs, *train.handlers.everything], **IN_TURN)


def with_lora(context: AppContext, card: Welcome, runs: RunsTab, generate: GenerateTab, merge: MergeTab) -> None:
    """A run's LoRA goes to the Generate or the Merge tab, with the run's own model and first prompt."""

    def leading_to(name: str, use_lora: UseLora) -> Callable[[str], list[Any]]:
        @tells_problems
        def lead(run_id: str) -> list[Any]:
            config = context.workspace.run(run_id).config()
            return [gr.Tabs(selected=name), *use_lora(runs.lora_of(run_id), config.model.base, settings_like(config))]

        return lead

    to_generate, to_merge = leading_to("generate", generate.use_lora), leading_to("merge", merge.use_lora)
    generated = [context.page.tabs, *generate.filled]
    runs.generate.click(to_generate, runs.selected, generated, **IN_TURN)
    card.generate.click(lambda: to_generate(_demo_run(context)), None, generated, **IN_TURN)
    runs.merge.click(to_merge, runs.selected, [context.page.tabs, *merge.filled], **IN_TURN).then(**merge.preview)

    @tells_problems
    def try_merged(model: str) -> list[Any]:
        saved = merge.saved()
        if saved is None:
            raise UserError("merge.gone", "The merged LoRA is not there any more.", "Save it again.")
        return [gr.Tabs(selected="generate"), *generate.use_lora(saved, model, None)]

    merge.try_it.click(try_merged, merge.model, generated, **TELLING)


def from_checkpoints(context: AppContext, runs: RunsTab, generate: GenerateTab) -> None:
    """The LoRA of a checkpoint, in the list of them or in the evaluation, goes to the Generate tab."""

    @tells_problems
    def draw_with(event: gr.EventData) -> list[Any]:
        asked = sent(event, "run", "step")
        run = context.workspace.run(str(asked["run"]))
        lora, config = checkpoint_of(run, int(asked["step"])) / LORA, run.config()
        return [gr.Tabs(selected="generate"), *generate.use_lora(lora, config.model.base, settings_like(config))]

    for listed in (runs.checkpoints, runs.evaluation):
        listed.generate(draw_with, None, [context.page.tabs, *generate.filled], **IN_TURN)


def to_grid(context: AppContext, runs: RunsTab, generate: GenerateTab) -> None:
    """All checkpoints of a run at several weights, as a grid to be drawn on the Generate tab."""

    @tells_problems
    def lead(run_id: str) -> list[Any]:
        run = context.workspace.run(run_id)
        axes, config = generate.grids.compare_checkpoints(run), run.config()
        form = generate.use_lora(runs.lora_of(run_id), config.model.base, settings_like(config))
        return [gr.Tabs(selected="generate"), *axes, *form]

    outputs = [context.page.tabs, *generate.grids.filled, *generate.filled]
    runs.grid.click(lead, runs.selected, outputs, **IN_TURN).then(
        None, None, None, js="() => document.getElementById('grid-panel').scrollIntoView({ behavior: 'smooth' })"
    )


def _try_demo(context: AppContext, concept: str, card: Welcome, train: TrainTab) -> Callable[[], list[Any]]:
    @tells_problems
    def start() -> list[Any]:
        run = demo_tour.start(context.workspace, concept)
        filled = train.handlers.fill(run.config(), key_beside_runs(context))
        return [run.id, *card.updates(context.workspace), *(filled[block] for block in train.handlers.filled)]

    return start


def _then_show_run(context: AppContext, started: Any, train: TrainTab, runs: RunsTab) -> None:
    queue = RunListReader(context.workspace)

    def show(run_id: str) -> list[Any]:
        if run_id:
            inform(start_word(queue.read(), run_id), title="In the queue", seconds=8)
        return _shown(runs, run_id)

    started.success(show, train.run_started, _seen(context, runs), **IN_TURN)


def _shown(runs: RunsTab, run_id: str) -> list[Any]:
    """Updates that switch to the Runs tab with this run; none where there is no run."""
    if not run_id:
        return [gr.skip() for _ in range(1 + len(runs.shown))]
    return [gr.Tabs(selected="runs"), *runs.show(run_id)]


def _seen(context: AppContext, runs: RunsTab) -> list[Any]:
    return [context.page.tabs, *runs.shown]


def _demo_run(context: AppContext) -> str:
    run = demo_tour.read_tour(context.workspace).run
    return run.id if run else ""
