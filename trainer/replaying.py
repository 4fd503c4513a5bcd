"""A model whose denoiser is captured in a graph when a size is drawn again, and replayed from then on."""

from __future__ import annotations

import itertools
import logging
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners.lora import LoraLayer as LoraTunerLayer
from torch import Tensor, nn

from trainer.devices import is_out_of_memory
from trainer.families.base import Conditioning, Family
from trainer.graphs import Graph, GraphMaker
from trainer.lora.scalings import Scalings, active_adapters

MOST_GRAPHS = 4
"""Each holds the memory of one call of the denoiser."""
MOST_SEEN = 64

_Shapes = tuple[tuple[str, ...], tuple[tuple[torch.Size, torch.dtype], ...]]
_Key = tuple[Hashable, _Shapes]
_log = logging.getLogger(__name__)


class Replaying:
    """Passes everything on to a family, but for predictions that it can replay.

    Within ``picture``, a call of a kind that an earlier picture needed too is captured: a single picture never pays for
    it. Where capturing fails, all goes on as without it.
    """

    def __init__(self, family: Family, make_graph: GraphMaker) -> None:
        """``make_graph`` captures functions on the denoiser's device, where the denoiser has to stay."""
        self._family = family
        self._make_graph = make_graph
        self._graphs: OrderedDict[_Key, _Captured] = OrderedDict()
        self._seen: OrderedDict[_Key, None] = OrderedDict()
        self._asked: set[_Key] = set()
        self._too_large: set[_Shapes] = set()
        self._state: Hashable = None
        self._pictures = 0
        self._given_up = "it is told the guidance" if family.reads_guidance else ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._family, name)

    @property
    def in_words(self) -> str:
        """For people."""
        if self._given_up:
            return f"The denoiser is not captured in graphs: {self._given_up}."
        return f"The denoiser is captured for sizes that are drawn again. CUDA graphs held: {len(self._graphs)}."

    @contextmanager
    def picture(self) -> Iterator[None]:
        """Within, pictures are drawn together, and neither weights nor adapters change."""
        self._state = _state_of(self._family.denoiser)
        self._pictures += 1
        self._asked.clear()
        try:
            yield
        finally:
            self._state = None
            self._seen.update(dict.fromkeys(self._asked))
            while len(self._seen) > MOST_SEEN:
                self._seen.popitem(last=False)

    def make_room(self) -> bool:
        """Let go of all graphs, and capture what the last picture needed no more; False where there are none."""
        self._too_large |= {shapes for _, shapes in self._asked}
        if not self._graphs:
            return False
        self._graphs.clear()
        _log.warning("The memory does not suffice for CUDA graphs beside pictures of this size.")
        return True

    def predict(
        self,
        noisy_latents: Tensor,
        timesteps: Tensor,
        conditioning: Conditioning,
        sizes: Tensor,
        *,
        guidance: float | None = None,
    ) -> Tensor:
        """See ``Family.predict``."""
        names, extra = tuple(conditioning.extra), conditioning.extra.values()
        inputs = [noisy_latents, timesteps, conditioning.hidden_states, sizes, *extra]
        captured = self._captured(names, [each.to(noisy_latents.device) for each in inputs])
        if captured is None:
            return self._family.predict(noisy_latents, timesteps, conditioning, sizes, guidance=guidance)
        return captured.replay(inputs, self._pictures)

    def _captured(self, names: tuple[str, ...], inputs: list[Tensor]) -> _Captured | None:
        """The graph for such inputs; None where there is none to be."""
        if self._state is None or self._given_up:
            return None
        shapes = (names, tuple((each.shape, each.dtype) for each in inputs))
        key = (self._state, shapes)
        self._asked.add(key)
        if key not in self._graphs and key in self._seen and shapes not in self._too_large:
            self._capture(key, names, inputs)
        if key in self._graphs:
            self._graphs.move_to_end(key)
        return self._graphs.get(key)

    def _capture(self, key: _Key, names: tuple[str, ...], inputs: list[Tensor]) -> None:
        family, scalings = self._family, Scalings(self._family.denoiser)

        def predict(noisy: Tensor, timesteps: Tensor, states: Tensor, sizes: Tensor, *extra: Tensor) -> Tensor:
            conditioning = Conditioning(states, dict(zip(names, extra, strict=True)))
            return family.predict(noisy, timesteps, conditioning, sizes)

        while len(self._graphs) >= MOST_GRAPHS:
            self._graphs.popitem(last=False)
        try:
            with scalings.in_place():
                graph = self._make_graph(predict, inputs)
        except RuntimeError as error:
            if is_out_of_memory(error):
                self.make_room()
            else:
                self._give_up(f"{type(error).__name__}: {error}".splitlines()[0])
        else:
            self._graphs[key] = _Captured(graph, scalings, self._pictures)

    def _give_up(self, reason: str) -> None:
        self._graphs.clear()
        self._given_up = reason
        _log.warning(self.in_words)


class _Captured:
    """A graph with the strengths that it reads, of the picture that they were last read for."""

    def __init__(self, graph: Graph, scalings: Scalings, picture: int) -> None:
        self._graph, self._scalings, self._picture = graph, scalings, picture

    def replay(self, inputs: Sequence[Tensor], picture: int) -> Tensor:
        if picture != self._picture:
            self._scalings.refresh()
            self._picture = picture
        return self._graph.replay(inputs).clone()  # samplers keep what was predicted for their next steps


def _state_of(denoiser: nn.Module) -> Hashable:
    """What is built into a graph: where all that it reads lies, and which adapters take part in which order.

    Not the numbers there: weights that change in place are read anew.
    """
    tensors = itertools.chain(denoiser.named_parameters(), denoiser.named_buffers())
    plain = tuple(tensor.data_ptr() for name, tensor in tensors if ".lora_" not in name)
    adapters = tuple((id(layer), name, *_addresses(layer, name)) for layer, name in active_adapters(denoiser))
    return plain, adapters


def _addresses(layer: LoraTunerLayer, name: str) -> list[int]:
    return [each.data_ptr() for part in (layer.lora_A, layer.lora_B) for each in part[name].parameters()]
