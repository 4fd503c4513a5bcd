"""What a profile of PyTorch says about a step: the time of its phases, operations and layers, and when nothing ran."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch.autograd import DeviceType

from trainer.profiling.spans import DATA, FORWARD, STEP, TEXT, layer_name, span_name

_BACKWARD = "autograd::engine::evaluate_function"
_OPTIMIZER = "Optimizer.step#"
PHASES = {
    DATA: "pictures and captions of the batch",
    "inputs": "noise, timesteps, noisy latents, copies to the device",
    TEXT: "text encoders",
    FORWARD: "denoiser, forward",
    "loss": "target, loss and its weights",
    "backward": "backward",
    "clipping": "length of the gradient, and the wait for it",
    "optimizer": "optimizer",
    "rest": "after the optimizer: limits, running mean, gradients forgotten",
}
"""The phases of a step in their order, and what is in them."""
_LEADS_TO = {DATA: "inputs", TEXT: "inputs", FORWARD: "inputs", "backward": "loss", "optimizer": "clipping"}


@dataclass(frozen=True)
class Phase:
    """One phase of a step, in ms of the host's clock; ``device_ms`` is what a GPU computed of what was begun in it."""

    name: str
    ms: float
    share: float
    device_ms: float


@dataclass(frozen=True)
class Operation:
    """All calls of one operation in a step, and the time they took by themselves, without what they called."""

    name: str
    calls: float
    ms: float
    share: float


@dataclass(frozen=True)
class LayerTime:
    """One layer of the denoiser in a step, adapters included."""

    name: str
    kind: str
    forward_ms: float
    backward_ms: float
    share: float


@dataclass(frozen=True)
class _Mark:
    """A stretch of a step that is known by itself."""

    phase: str
    start: float
    end: float


class Trace:
    """The events of some profiled steps, which were spans themselves."""

    def __init__(self, events: Sequence[Any]) -> None:
        """``events`` are those of ``torch.profiler.profile.events()``."""
        self._events = sorted(events, key=lambda event: event.time_range.start)
        self._steps = [event.time_range for event in self._events if _is_span(event, STEP)]
        self._on_gpu = any(event.device_type == DeviceType.CUDA for event in self._events)

    @property
    def step_ms(self) -> float:
        """A step's time, as the profiler saw it: longer than without it."""
        return sum(each.end - each.start for each in self._steps) / len(self._steps) / 1000

    @property
    def kernels(self) -> int | None:
        """What a GPU was given to do in a step; None on the CPU."""
        count = sum(event.device_type == DeviceType.CUDA and span_name(event.name) is None for event in self._events)
        return round(count / len(self._steps)) if self._on_gpu else None

    @property
    def idle_ms(self) -> float:
        """How long in a step nothing was computed: the device waits for Python."""
        busy = [event for event in self._events if self._is_work(event)]
        covered = _covered([(event.time_range.start, event.time_range.end) for event in busy])
        return max(0.0, self.step_ms - covered / len(self._steps) / 1000)

    def phases(self) -> list[Phase]:
        """The phases of a step, in their order; together they are the step."""
        spent: dict[str, float] = defaultdict(float)
        stretches: list[_Mark] = []
        for step in self._steps:
            stretches += self._stretches(step)
        for each in stretches:
            spent[each.phase] += each.end - each.start
        device = self._device_us(stretches)
        return [
            Phase(name, self._ms(spent[name]), self._share(spent[name]), self._ms(device[name]))
            for name in PHASES
            if spent[name] > 0
        ]

    def operations(self, most: int) -> list[Operation]:
        """The operations that took most of a step by themselves, longest first."""
        calls: dict[str, int] = defaultdict(int)
        spent: dict[str, float] = defaultdict(float)
        for event in self._events:
            if event.device_type == DeviceType.CPU and event.name.startswith("aten::"):
                calls[event.name] += 1
                spent[event.name] += event.self_device_time_total if self._on_gpu else event.self_cpu_time_total
        longest = sorted(spent, key=lambda name: -spent[name])[:most]
        count = len(self._steps)
        return [
            Operation(name, round(calls[name] / count, 1), self._ms(spent[name]), self._share(spent[name]))
            for name in longest
        ]

    def layers(self, kinds: dict[str, str], most: int) -> list[LayerTime]:
        """The layers that took most of a step, longest first; ``kinds`` has what each of them is by name.

        Backward passes are known by the number that autograd gives to each forward operation.
        """
        forward: dict[str, float] = defaultdict(float)
        backward: dict[str, float] = defaultdict(float)
        owners: dict[int, str] = {}
        open_until, inside = 0.0, ""
        for event in self._events:
            name = layer_name(event.name)
            if name is not None and event.device_type == DeviceType.CPU:
                forward[name] += self._time_of(event)
                open_until, inside = event.time_range.end, name
            elif event.name.startswith(_BACKWARD):
                backward[owners.get(event.sequence_nr, "")] += self._time_of(event)
            elif event.sequence_nr >= 0 and event.scope == 0:
                owners[event.sequence_nr] = inside if event.time_range.end <= open_until else ""
        times = {name: forward[name] + backward[name] for name in forward}
        longest = sorted(times, key=lambda name: -times[name])[:most]
        return [
            LayerTime(name, kinds[name], self._ms(forward[name]), self._ms(backward[name]), self._share(times[name]))
            for name in longest
        ]

    def _stretches(self, step: Any) -> list[_Mark]:
        """A step cut into phases without a gap: what is not marked leads to what comes next."""
        cut, now = [], step.start
        for mark in self._marks(step):
            if mark.start > now:
                cut.append(_Mark(_LEADS_TO[mark.phase], now, mark.start))
            cut.append(mark)
            now = max(now, mark.end)
        return [*cut, _Mark("rest", now, step.end)]

    def _marks(self, step: Any) -> list[_Mark]:
        """What is marked in a step, one after the other; the operations of a backward pass are one stretch."""
        marks: list[_Mark] = []
        for event in self._events:
            phase = _phase_of(event)
            place = event.time_range
            if phase is None or place.start < step.start or place.end > step.end:
                continue
            if marks and place.start < marks[-1].end:
                continue  # within another: layers that are computed again in the backward pass
            if marks and phase == marks[-1].phase == "backward":
                marks[-1] = _Mark(phase, marks[-1].start, place.end)
            else:
                marks.append(_Mark(phase, place.start, place.end))
        return marks

    def _device_us(self, stretches: list[_Mark]) -> dict[str, float]:
        """The GPU's time by the phase in which it was given the work."""
        spent: dict[str, float] = defaultdict(float)
        if not self._on_gpu:
            return spent
        waiting = iter(stretches)
        stretch = next(waiting, None)
        for event in self._events:
            if not event.kernels:
                continue
            while stretch is not None and event.time_range.start >= stretch.end:
                stretch = next(waiting, None)
            if stretch is not None and event.time_range.start >= stretch.start:
                spent[stretch.phase] += sum(kernel.duration for kernel in event.kernels)
        return spent

    def _is_work(self, event: Any) -> bool:
        if self._on_gpu:
            return event.device_type == DeviceType.CUDA and span_name(event.name) is None
        return event.name.startswith("aten::")

    def _time_of(self, event: Any) -> float:
        return event.device_time_total if self._on_gpu else event.cpu_time_total

    def _ms(self, us: float) -> float:
        return round(us / len(self._steps) / 1000, 3)

    def _share(self, us: float) -> float:
        return round(us / len(self._steps) / 1000 / self.step_ms, 4)


def _is_span(event: Any, name: str) -> bool:
    return event.device_type == DeviceType.CPU and span_name(event.name) == name


def _phase_of(event: Any) -> str | None:
    if event.device_type != DeviceType.CPU:
        return None
    if event.name.startswith(_BACKWARD):
        return "backward"
    if event.name.startswith(_OPTIMIZER):
        return "optimizer"
    name = span_name(event.name)
    return name if name in (DATA, TEXT, FORWARD) else None


def _covered(stretches: Iterable[tuple[float, float]]) -> float:
    """How much is covered by stretches that may overlap."""
    total, until = 0.0, float("-inf")
    for start, end in sorted(stretches):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total
