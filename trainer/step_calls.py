"""How the device's halves of a step are run: called, or replayed from graphs that were captured of them."""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.config import Config
from trainer.devices import features_of, is_out_of_memory, is_small
from trainer.families.base import Family
from trainer.graphs import Function, Graph, GraphMaker, sharing_graph_maker
from trainer.learning import Learning
from trainer.processor_graph import ProcessorGraph
from trainer.runs.events import EventSink

MOST_GRAPHS = 16
"""They share the memory of the largest, but each has its list of thousands of kernels."""
LATELY = 8 * MOST_GRAPHS
"""Calls within which a graph was of use: another takes its place only when it was not. Where there are more kinds than
places, and all come in turn, the first ones stay and the others are called."""
CALLED_FIRST_ON_CPU = 24
"""Steps of a kind before it is recorded, which takes as long as some ten of them: a short run would gain nothing."""

_log = logging.getLogger("trainer")


@dataclass
class _Held:
    graph: Graph
    used: int


class Calls:
    """Runs functions of tensors, and replays those that are asked for with inputs of the same kind again and again.

    What such a function changes lies in the same places each time, and it leaves nothing behind in Python. With inputs
    of a kind it is called first, as the part of the training that it is: meanwhile libraries choose their kernels. Then
    it is captured, which computes nothing, and replayed from then on.
    """

    def __init__(
        self,
        learning: Learning | None = None,
        new_maker: Callable[[], GraphMaker] | None = None,
        tell: Callable[[str], None] = _log.warning,
        called_first: int = 1,
    ) -> None:
        """Without arguments all is called.

        Args:
            learning: whose gradients the functions add to.
            new_maker: gives what captures functions; the graphs of one share their memory.
            tell: is told why there are no graphs any more.
            called_first: how often a function is called with inputs of a kind before it is captured.
        """
        self._learning, self._new_maker, self._tell = learning, new_maker, tell
        self._make_graph: GraphMaker | None = None
        self._graphs: OrderedDict[Hashable, _Held] = OrderedDict()
        self._seen: Counter[Hashable] = Counter()
        self._called_first = called_first
        self._count = 0
        if learning is not None:
            learning.stays_in_place = new_maker is not None

    @property
    def graphs(self) -> int:
        """How many are held."""
        return len(self._graphs)

    def run(self, kind: Hashable, function: Function, inputs: Sequence[Tensor], device: torch.device) -> Tensor:
        """``function(*inputs)``, with the inputs on the device. What it returns is overwritten by the next run.

        Args:
            kind: what tells functions apart; with the inputs' shapes and formats it says which graph is replayed.
            function: see the class.
            inputs: at least one, on the host or the device.
            device: where the function computes.
        """
        self._count += 1
        sent = [_on_the_way(each, device) for each in inputs]
        key = (kind, tuple((each.shape, each.dtype) for each in inputs))
        held = self._graphs.get(key) or self._captured(key, function, sent, device)
        if held is None:
            self._seen[key] += 1
            beside = features_of(device).streams  # else what is on its way must stay until it is there
            return function(*[each.to(device, non_blocking=beside) for each in sent])
        held.used = self._count
        self._graphs.move_to_end(key)
        return held.graph.replay(sent)

    def within_memory(self, work: Callable[[], None], afresh: Callable[[], None]) -> None:
        """Do some work; where it fails for the memory that graphs hold, let them go and do it again.

        Args:
            work: may be begun anew.
            afresh: takes back what was done of it.
        """
        try:
            work()
            return
        except (RuntimeError, MemoryError) as error:
            if not (self._graphs and is_out_of_memory(error)):
                raise
        self._give_up("there is no memory for graphs beside a step without them")
        afresh()
        work()

    def forget(self) -> None:
        """Let go of all graphs, as what they read is going to lie elsewhere: where, a step that is called settles."""
        self._graphs.clear()
        self._seen.clear()
        self._make_graph = None

    def _captured(
        self, key: Hashable, function: Function, inputs: Sequence[Tensor], device: torch.device
    ) -> _Held | None:
        """The graph for such inputs; None where there is none to be."""
        if self._new_maker is None or self._seen[key] < self._called_first or not self._has_place():
            return None
        assert self._learning is not None
        before = self._learning.places()
        self._make_graph = self._make_graph or self._new_maker()
        try:
            graph = self._make_graph(torch.enable_grad()(function), [each.to(device) for each in inputs])
            if any(one is not other for one, other in zip(before, self._learning.places(), strict=True)):
                raise RuntimeError("a gradient lies elsewhere than before")
        except RuntimeError as error:
            why = "there is no memory for it" if is_out_of_memory(error) else f"{type(error).__name__}: {error}"
            self._give_up(why.splitlines()[0])
            self._learning.restore(before)
            return None
        self._graphs[key] = held = _Held(graph, self._count)
        return held

    def _has_place(self) -> bool:
        """Whether there is room for one more graph, or one that was of no use lately and is let go for it."""
        if len(self._graphs) < MOST_GRAPHS:
            return True
        oldest, held = next(iter(self._graphs.items()))
        if self._count - held.used < LATELY:
            return False
        del self._graphs[oldest]
        return True

    def _give_up(self, why: str) -> None:
        self.forget()
        self._new_maker = None
        if self._learning is not None:
            self._learning.stays_in_place = False
        self._tell(why)


CALLED = Calls()
"""Replays nothing."""


def calls_of(
    config: Config,
    learning: Learning,
    family: Family,
    device: torch.device,
    events: EventSink,
    *,
    in_step: bool = False,
) -> Calls:
    """How steps are run by the settings. Told as ``progress`` on a GPU, and as ``warning`` once it fails.

    On a CPU a small model's are replayed: a large one's wait for arithmetic, and recording holds all that it computes.
    """
    why, features = why_called(config, in_step=in_step), features_of(device)
    if not features.beside_host:
        if why is not None or not is_small(family.denoiser):
            return CALLED
        return Calls(learning, lambda: ProcessorGraph, _teller(learning, events), CALLED_FIRST_ON_CPU)
    if why is None and not features.graphs:
        why = f"PyTorch captures no graphs for the {features.name}"
    if why is not None:
        events.emit("progress", what=f"steps are called, not replayed: {why}", done=1, total=1)
        return CALLED
    rest = "" if learning.decides_on_device else f"; {config.train.optimizer} is called, and waited for in each step"
    events.emit("progress", what=f"steps are replayed as CUDA graphs{rest}", done=1, total=1)
    return Calls(learning, sharing_graph_maker, _teller(learning, events))


def _teller(learning: Learning, events: EventSink) -> Callable[[str], None]:
    """What says that there are no graphs any more."""

    def tell(reason: str) -> None:
        message = f"Steps are not replayed any more: {reason}."
        hint = "They are called from now on: the result is the same, only slower."
        _log.warning("%s %s", message, hint)
        events.emit("warning", learning.step, code="train.compile", message=message, hint=hint)

    return tell


def why_called(config: Config, *, in_step: bool = False) -> str | None:
    """Why a run's steps cannot or must not be captured, as far as its settings tell; None where they can.

    ``in_step``: whether its processes hold the model together.
    """
    train, lora = config.train, config.lora
    if train.compile == "off":
        return "train.compile is off"
    if config.model.offload:
        return "model.offload copies weights to the GPU in the course of a step"
    if in_step:
        return "model.share_out brings weights together in the course of a step"
    if train.gradient_checkpointing != "off" and lora.has_dropout:
        return "gradient checkpointing computes dropout twice, and a graph cannot draw the same numbers again"
    if lora.type != "lora" and lora.rank_dropout:
        return f"lora.type {lora.type} computes dropped ranks twice, and a graph cannot draw the same numbers again"
    return None


def _on_the_way(tensor: Tensor, device: torch.device) -> Tensor:
    """Where a copy to the device waits for nobody."""
    return tensor.pin_memory() if features_of(device).streams and tensor.is_cpu else tensor
