"""Marks in a profile that say which part of a step is computed, set by hooks: the step itself knows nothing of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn
from torch.profiler import record_function

from trainer.families.base import Family

STEP = "step"
DATA = "data"
TEXT = "text"
FORWARD = "forward"
_SPAN = "bench/"
_LAYER = "layer/"


@contextmanager
def span(name: str) -> Iterator[None]:
    """A part of a step, in the profile under its name."""
    with record_function(_SPAN + name):
        yield


def span_name(event_name: str) -> str | None:
    """The part that an event of the profile marks; None for all other events."""
    return event_name.removeprefix(_SPAN) if event_name.startswith(_SPAN) else None


def layer_name(event_name: str) -> str | None:
    """The layer that an event of the profile marks; None for all other events."""
    return event_name.removeprefix(_LAYER) if event_name.startswith(_LAYER) else None


@contextmanager
def parts_marked(family: Family) -> Iterator[None]:
    """Inside, forward passes are marked: the denoiser's and the text encoders', and each of the denoiser's layers."""
    with ExitStack() as hooks:
        _mark(hooks, family.denoiser, _SPAN + FORWARD)
        for part, module in family.loaded.items():
            if part.startswith("text_encoder"):
                _mark(hooks, module, _SPAN + TEXT)
        for name, layer in layers_of(family.denoiser):
            _mark(hooks, layer, _LAYER + name)
        yield


def layers_of(module: nn.Module, inside: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The outermost modules that compute by themselves, with their names: a layer with an adapter on it is one."""
    for name, child in module.named_children():
        full = f"{inside}.{name}" if inside else name
        if not any(True for _ in child.children()) or type(child).__name__.endswith(("Linear", "Conv2d")):
            yield full, child
        else:
            yield from layers_of(child, full)


def _mark(hooks: ExitStack, module: nn.Module, name: str) -> None:
    """Begin a mark before each call of a module and end it behind."""
    begun: list[Any] = []

    def before(*_: object) -> None:
        begun.append(record_function(name))
        begun[-1].__enter__()

    def behind(*_: object) -> None:
        begun.pop().__exit__(None, None, None)

    hooks.callback(module.register_forward_pre_hook(before).remove)
    hooks.callback(module.register_forward_hook(behind, always_call=True).remove)
