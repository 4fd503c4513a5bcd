"""What the panels of the Runs tab share: which run is shown, and the one look at the files that fills them all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import gradio as gr
from gradio.blocks import Block
from gradio.components import Component

from ui.context import AppContext
from ui.runs.desk import Overview, RunsDesk, Shown
from ui.scripted import kept
from ui.wiring import QUIET

_RUN = "/run"
"""Under which the shown run's id is kept beside what each panel shows; no panel is called so."""

Seen = TypeVar("Seen")


@dataclass(frozen=True)
class Panel(Generic[Seen]):
    """A part of the tab that follows the files.

    Attributes:
        name: tells the panels apart.
        outputs: the components it fills.
        key: what they show, in any form whose ``repr`` changes with it: quick, as it is asked about once a second.
        updates: a value for each output; asked only where ``key`` has changed or another run is shown.
        inputs: texts made by ``ui.scripted.kept``, which ``key`` and ``updates`` are given after what is seen.
    """

    name: str
    outputs: Sequence[Block]
    key: Callable[..., Any]
    updates: Callable[..., list[Any]]
    inputs: Sequence[Component] = ()


class RunsBoard:
    """Made before the panels are laid out; each of them adds itself. ``wire`` comes after the last one.

    Attributes:
        desk: what is read.
        chosen: id of the run that somebody asked to see; empty until then. Only what people do writes it.
        selected: id of the run that is shown; empty for none. Only what follows the files writes it, so that an answer
            that was on its way when a run was chosen does not take the choice back.
    """

    def __init__(self, desk: RunsDesk) -> None:
        self.desk = desk
        self.chosen = kept()
        self.selected = kept()
        self._seen = kept()
        self._of_all: list[Panel[Overview]] = []
        self._of_run: list[Panel[Shown]] = []
        self._refreshing: list[Any] = []

    def add(self, panel: Panel[Shown]) -> None:
        """A panel about the run that is shown; it is left alone while there is none."""
        self._of_run.append(panel)

    def add_overall(self, panel: Panel[Overview]) -> None:
        """A panel about all runs."""
        self._of_all.append(panel)

    def then_refresh(self, event: Any) -> None:
        """Have the tab show at once what an event changed."""
        self._refreshing.append(event)

    def select(self, run_id: str) -> str:
        """The value of ``chosen`` that shows a run, also when the page is opened again."""
        self.desk.remember(run_id)
        return run_id

    def wire(self, context: AppContext) -> None:
        """Fill the panels when the page is opened, while it is open, and after the events that asked for it."""
        panels: list[Panel[Any]] = [*self._of_all, *self._of_run]
        inputs = [
            self._seen,
            self.chosen,
            self.selected,
            *(component for panel in panels for component in panel.inputs),
        ]
        outputs = [self._seen, self.selected, *(component for panel in panels for component in panel.outputs)]

        def refresh_now(*values: Any) -> list[Any]:
            return self._refresh(*values) or [gr.skip() for _ in outputs]

        context.page.poll(self._refresh, inputs, outputs)
        context.page.load(self._refresh, inputs, outputs)
        for event in self._refreshing:
            event.then(refresh_now, inputs, outputs, **QUIET)

    def _refresh(self, seen: str, chosen: str, selected: str, *values: Any) -> list[Any] | None:
        """Values for all outputs, those of panels that show what there is skipped; None where that is all of them."""
        overview = self.desk.look(chosen, selected)
        before = json.loads(seen) if seen else {}
        now: dict[str, str] = {_RUN: overview.selected}
        same_run = before.get(_RUN) == overview.selected
        rest = list(values)
        answers: list[Any] = []
        for of_all in self._of_all:
            answers += _answer(of_all, overview, before, now, _taken(rest, of_all))
        for of_run in self._of_run:
            given = _taken(rest, of_run)
            if overview.shown is None:
                answers += [gr.skip() for _ in of_run.outputs]
            else:
                answers += _answer(of_run, overview.shown, before if same_run else {}, now, given)
        if before == now:
            return None
        return [json.dumps(now), overview.selected, *answers]


def _taken(rest: list[Any], panel: Panel[Any]) -> list[Any]:
    """The values of a panel's inputs, which are the next of ``rest``."""
    given = rest[: len(panel.inputs)]
    del rest[: len(panel.inputs)]
    return given


def _answer(
    panel: Panel[Seen], seen: Seen, before: dict[str, str], now: dict[str, str], given: Sequence[Any]
) -> list[Any]:
    """Values for a panel's outputs; what it shows from now on is noted in ``now``."""
    now[panel.name] = hashlib.sha256(repr(panel.key(seen, *given)).encode()).hexdigest()[:12]
    if now[panel.name] == before.get(panel.name):
        return [gr.skip() for _ in panel.outputs]
    return panel.updates(seen, *given)
