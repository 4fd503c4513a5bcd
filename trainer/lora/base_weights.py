"""The weights of a base model that the layers of DoRAs change, each read when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor

from trainer.errors import Problem, UserError
from trainer.lora.keys import sdxl_key
from trainer.lora.merge import MergeSource
from trainer.lora.model_weights import Weight, open_model
from trainer.runs.events import EventSink


class BaseWeights:
    """An open model, as a function from a layer's kohya key to its weight."""

    def __init__(self, places: dict[str, Weight], name: str, field: str) -> None:
        self._places = places
        self._name = name
        self._field = field

    def __call__(self, module: str) -> Tensor:
        """The weight of a layer. Raises KeyError where ``check`` would have said that the model has no such layer."""
        return self._places[self._key(module)].load()

    def check(self, sources: Sequence[MergeSource]) -> None:
        """Raise UserError with one problem for each DoRA that has layers without a place in the model."""
        problems = []
        for source in sources:
            doras = {module: layer for module, layer in source.lora.layers.items() if layer.magnitude is not None}
            wrong = [
                module
                for module, layer in doras.items()
                if self._key(module) not in self._places or not layer.fits(self._places[self._key(module)].shape)
            ]
            if wrong:
                count = f"{len(wrong)} of {len(doras)} layers do not fit, such as {wrong[0]}"
                message = f"{self._field}: {source.name} was not made for {self._name}: {count}."
                problems.append(Problem("merge.no_fit", message, "Use the model that it was made for.", self._field))
        if problems:
            raise UserError.many(problems)

    def _key(self, module: str) -> str:
        return module if module in self._places else sdxl_key(module)


@contextmanager
def open_base_weights(model: str, *, field: str, events: EventSink) -> Iterator[BaseWeights]:
    """Open ``demo``, a folder, a file or a hub id. Raises UserError(field) when it is no model that can be read."""
    with open_model(model, field=field, events=events) as opened:
        weights = (weight for weight in opened.weights.values() if weight.name.endswith(".weight"))
        yield BaseWeights({opened.lora_key(weight): weight for weight in weights}, opened.name, field)
