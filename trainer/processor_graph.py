"""A function of tensors as the plain list of its operations, which a CPU calls one after the other.

A small model's step waits for Python on a CPU: modules, autograd and their bookkeeping take as long as the arithmetic.
What is recorded lies beneath all of that, the backward pass included. The operations are the same in the same order, so
the results are the same to the bit. What it gains: docs/adr/0050-steps-replayed-on-a-cpu.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from trainer.graphs import Function

_Looks = tuple[torch.dtype, bool, bool]
_Place = tuple[Any, ...]
_aten = torch.ops.aten
_READS_NUMBERS = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)
_FROM_PYTHON = (_aten.lift_fresh.default, _aten.lift_fresh_copy.default)
_INDEXING = (_aten.index.Tensor, _aten.index_put_.default)

DIRECT: dict[Any, Callable[..., Any]] = {
    _aten.add.Tensor: Tensor.add,
    _aten.add_.Tensor: Tensor.add_,
    _aten.addmm.default: torch.addmm,
    _aten.addmm_.default: Tensor.addmm_,
    _aten.as_strided.default: Tensor.as_strided,
    _aten.bmm.default: torch.bmm,
    _aten.cat.default: torch.cat,
    _aten.clone.default: torch.clone,
    _aten.convolution.default: torch.convolution,
    _aten.div.Tensor: Tensor.div,
    _aten.gelu.default: functional.gelu,
    _aten.mm.default: torch.mm,
    _aten.mul.Tensor: Tensor.mul,
    _aten.native_group_norm.default: torch.native_group_norm,
    _aten.native_layer_norm.default: torch.native_layer_norm,
    _aten.new_empty.default: Tensor.new_empty,
    _aten.sub.Tensor: Tensor.sub,
}
"""Functions that call an operation and nothing else, in half the time that Python needs by way of ``torch.ops``."""

_LINES_OF_A_PART = 500
"""What is compiled at once: Python takes some 10 kB for each line meanwhile."""


class ProcessorGraph:
    """See ``graphs.Graph``. Inputs are copied into buffers of its own; random numbers are drawn anew by each replay."""

    def __init__(self, function: Function, inputs: Sequence[Tensor]) -> None:
        """Record ``function(*inputs)``; afterwards all that it changed is what it was.

        Raises:
            RuntimeError: it reads numbers, makes tensors of Python's numbers, which would be the same for ever, or sets
                the random generator to a state of its own.
        """
        self._inputs = [each.clone(memory_format=torch.contiguous_format) for each in inputs]
        recorder, generator = _Recorder(self._inputs), torch.get_rng_state()
        try:
            with recorder:
                result = function(*self._inputs)
            recorder.follow_generator()
        finally:
            recorder.restore()
            torch.set_rng_state(generator)
        self._replay = recorder.compiled(result)
        self._output = torch.empty_like(result)

    def replay(self, inputs: Sequence[Tensor]) -> Tensor:
        """See ``graphs.Graph``."""
        for mine, given in zip(self._inputs, inputs, strict=True):
            mine.copy_(given)
        with torch.inference_mode():  # nothing is kept for a backward pass, which makes views a third cheaper
            return self._output.copy_(self._replay())


class _Recorder(TorchDispatchMode):
    """Writes down the operations that are called within, as functions in Python with one line for each.

    A tensor is known by where it lies: autograd makes others of the same memory without any operation. What is let go
    meanwhile gives its memory back, but not its storage's address, to which a weak reference is held. Views get no
    lines: one that an operation reads is taken before it, of what lies outside once for all replays.
    """

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        super().__init__()
        self._lines: list[str] = []
        self._values: dict[str, Any] = {}
        self._last_use: dict[str, int] = {}
        self._names: dict[_Place, str] = {}
        self._made: dict[int, tuple[str, _Looks]] = {}
        self._outside: dict[str, Tensor] = {}
        self._outside_storages: set[int] = set()
        self._addresses: list[StorageWeakRef] = []
        self._before: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}
        self._state = _generator_state()
        self._states = {self._state: "s0"}
        for each in inputs:
            self._argument(each)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.namespace == "profiler":  # computes nothing
            return func(*args, **kwargs)
        draws, changes = torch.Tag.nondeterministic_seeded in func.tags, func._schema.is_mutable
        if draws:
            self.follow_generator()
        leaves = list(_leaves((*args, *kwargs.values())))
        _check(func, leaves)
        call = self._call(func, args, kwargs) if changes else ""
        if changes:
            self._keep(leaves)
        result = func(*args, **kwargs)
        if not changes:
            if self._is_view(result, leaves):
                return result
            call = self._call(func, args, kwargs)
        if draws:
            self._state = _generator_state()
            self._states.setdefault(self._state, f"s{len(self._lines) + 1}")  # found before the line after this one
        self._know(result, call)
        return result

    def follow_generator(self) -> None:
        """Have a replay set the generator back where it was set back to an earlier state: checkpoints draw again in the
        backward pass what they drew in the forward pass.

        Raises RuntimeError for a state that it was not in before.
        """
        state = _generator_state()
        if state == self._state:
            return
        name = self._states.get(state)
        if name is None:
            raise RuntimeError("the random generator is set to a state of the function's own")
        if name not in self._last_use:
            found = _line_of(name)
            self._lines[found] = f"{name} = {self._value(torch.get_rng_state)}(); {self._lines[found]}"
        self._last_use[name] = len(self._lines)
        self._line(f"{self._value(torch.set_rng_state)}({name})")
        self._state = state

    def restore(self) -> None:
        """Bring back what was changed of that which lay outside."""
        for storage, before in self._before.values():
            storage.copy_(before)

    def compiled(self, result: Tensor) -> Callable[[], Tensor]:
        """The recorded function. Each tensor is let go after its last use."""
        name = self._line(self._written(result))
        end = self._last_use[name] = len(self._lines)
        uses = {each: (_line_of(each), last) for each, last in self._last_use.items() if each not in self._outside}
        scope = self._values | self._outside
        starts = range(0, end, _LINES_OF_A_PART)
        parts = [_compiled(self._part(start, min(start + _LINES_OF_A_PART, end), uses), scope) for start in starts]

        def replay() -> Tensor:
            tensors: list[Tensor] = []
            for part in parts:
                tensors = part(tensors)
            return tensors[0]

        return replay

    def _part(self, start: int, end: int, uses: dict[str, tuple[int, int]]) -> str:
        """Some of the lines as a function's source.

        It is called with the tensors in use before them, which it takes out of their list, and returns those in use
        afterwards. ``uses`` has the line in which each tensor is made and the one of its last use.
        """
        before = [name for name, (made, last) in uses.items() if made < start <= last]
        after = [name for name, (made, last) in uses.items() if made < end <= last]
        ended: dict[int, list[str]] = {}
        for name, (_, last) in uses.items():
            if start <= last < end:
                ended.setdefault(last, []).append(name)
        body = [
            f"{self._lines[line]}; del {', '.join(ended[line])}" if line in ended else self._lines[line]
            for line in range(start, end)
        ]
        unpacked = f"[{', '.join(before)}] = tensors; tensors.clear()"
        return "\n ".join(["def part(tensors):", unpacked, *body, f"return [{', '.join(after)}]"])

    def _line(self, expression: str) -> str:
        name = f"t{len(self._lines)}"
        self._last_use[name] = len(self._lines)
        self._lines.append(f"{name} = {expression}")
        return name

    def _call(self, func: Any, args: Any, kwargs: Any) -> str:
        """A call as source. The views that it reads get their lines before it."""
        for each in _leaves((*args, *kwargs.values())):
            if isinstance(each, Tensor):
                self._name(each)
        given = [self._written(each) for each in args] + [f"{name}={self._written(kwargs[name])}" for name in kwargs]
        return f"{self._value(DIRECT.get(func, func))}({', '.join(given)})"

    def _written(self, value: Any) -> str:
        """An argument as source: tensors by name, lists of them item by item, all else as a constant."""
        if isinstance(value, Tensor):
            name = self._name(value)
            self._last_use[name] = len(self._lines)
            return name
        if isinstance(value, list | tuple) and any(isinstance(each, Tensor) for each in value):
            return f"[{', '.join(self._written(each) for each in value)}]"
        return self._value(value)

    def _value(self, value: Any) -> str:
        if value is None or type(value) in (bool, int):
            return repr(value)
        name = f"c{len(self._values)}"
        self._values[name] = value
        return name

    def _is_view(self, result: Any, leaves: Sequence[Any]) -> bool:
        """Whether an operation gave nothing but other looks at its arguments, to be taken when they are read."""
        given = {each.untyped_storage()._cdata for each in leaves if isinstance(each, Tensor)}
        made = [each for each in _leaves([result]) if isinstance(each, Tensor)]
        storages = [each.untyped_storage()._cdata for each in made]
        known = [self._made.get(storage) for storage in storages]
        alike = [there is None or there[1] == _looks(each) for there, each in zip(known, made, strict=True)]
        return bool(made) and given.issuperset(storages) and all(alike)

    def _know(self, result: Any, expression: str) -> None:
        """Write down how a result is made, each part of it with a name of its own."""
        number = len(self._lines)
        if not isinstance(result, list | tuple):
            self._line(expression)
            self._remember(result, f"t{number}")
            return
        names = [f"t{number}_{index}" for index in range(len(result))]
        self._lines.append(f"[{', '.join(names)}] = {expression}")
        for name, each in zip(names, result, strict=True):
            self._last_use[name] = number
            self._remember(each, name)

    def _remember(self, result: Any, name: str) -> None:
        if isinstance(result, list | tuple):
            self._last_use[name] = len(self._lines)
            self._know(result, name)
        elif isinstance(result, Tensor):
            storage = result.untyped_storage()
            self._names[_place(result)] = name
            if storage._cdata not in self._outside_storages:
                self._made.setdefault(storage._cdata, (name, _looks(result)))
                self._addresses.append(StorageWeakRef(storage))

    def _name(self, tensor: Tensor) -> str:
        """The name of a tensor; one that no line has made yet is taken from where it lies, or is an argument."""
        name = self._names.get(_place(tensor))
        if name is not None:
            return name
        made = self._made.get(tensor.untyped_storage()._cdata)
        if made is None:
            return self._argument(tensor)
        self._last_use[made[0]] = len(self._lines)
        shape = f"{tuple(tensor.shape)}, {tensor.stride()}, {tensor.storage_offset()}"
        name = self._line(f"{self._value(DIRECT[_aten.as_strided.default])}({made[0]}, {shape})")
        self._names[_place(tensor)] = name
        return name

    def _argument(self, tensor: Tensor) -> str:
        name = f"o{len(self._outside)}"
        self._outside[name] = tensor.detach()
        self._names[_place(tensor)] = name
        self._outside_storages.add(tensor.untyped_storage()._cdata)
        return name

    def _keep(self, leaves: Sequence[Any]) -> None:
        """Remember what lies outside, before an operation that may change it."""
        for each in leaves:
            if isinstance(each, Tensor):
                storage = each.untyped_storage()
                if storage._cdata in self._outside_storages and storage._cdata not in self._before:
                    self._before[storage._cdata] = (storage, storage.clone())


def _compiled(source: str, scope: dict[str, Any]) -> Callable[[list[Tensor]], list[Tensor]]:
    exec(compile(source, "<recorded>", "exec"), scope)  # nothing but the names and calls written by the recorder
    part: Callable[[list[Tensor]], list[Tensor]] = scope.pop("part")
    return part


def _generator_state() -> bytes:
    """Of the generator that operations on a CPU draw from by themselves."""
    return torch.get_rng_state().numpy().tobytes()


def _leaves(values: Sequence[Any]) -> Iterator[Any]:
    """The arguments of an operation, those in lists one by one."""
    for each in values:
        if isinstance(each, list | tuple):
            yield from _leaves(each)
        else:
            yield each


def _place(tensor: Tensor) -> _Place:
    storage = tensor.untyped_storage()._cdata
    return storage, tensor.storage_offset(), tensor.shape, tensor.stride(), _looks(tensor)


def _looks(tensor: Tensor) -> _Looks:
    """How its numbers are to be read."""
    return tensor.dtype, tensor.is_conj(), tensor.is_neg()


def _line_of(name: str) -> int:
    """The line that makes a tensor."""
    return int(name[1:].partition("_")[0])


def _check(func: Any, leaves: Sequence[Any]) -> None:
    """Raise RuntimeError for an operation whose result would not follow the inputs of a replay."""
    if func in _FROM_PYTHON:
        raise RuntimeError(f"{func} makes a tensor of Python's numbers")
    if any(isinstance(each, torch.Generator) for each in leaves):
        raise RuntimeError(f"{func} draws from a generator of its own")
    by_mask = any(isinstance(each, Tensor) and each.dtype in (torch.bool, torch.uint8) for each in leaves[1:])
    if any(tag in func.tags for tag in _READS_NUMBERS) and (func not in _INDEXING or by_mask):
        raise RuntimeError(f"{func} reads numbers")
