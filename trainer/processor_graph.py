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
    _aten.expand.default: Tensor.expand,
    _aten.gelu.default: functional.gelu,
    _aten.mm.default: torch.mm,
    _aten.mul.Tensor: Tensor.mul,
    _aten.native_group_norm.default: torch.native_group_norm,
    _aten.native_layer_norm.default: torch.native_layer_norm,
    _aten.new_empty.default: Tensor.new_empty,
    _aten.permute.default: Tensor.permute,
    _aten.split_with_sizes.default: torch.split_with_sizes,
    _aten.sub.Tensor: Tensor.sub,
    _aten.t.default: Tensor.t,
    _aten.transpose.int: Tensor.transpose,
    _aten.unsqueeze.default: Tensor.unsqueeze,
    _aten.view.default: Tensor.view,
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
    meanwhile gives its memory back, but not its storage's address, to which a weak reference is held. A view of what
    lies outside is taken once, for all replays; one that is taken already, not again.
    """

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        super().__init__()
        self._lines: list[str] = []
        self._values: dict[str, Any] = {}
        self._last_use: dict[str, int] = {}
        self._names: dict[_Place, str] = {}
        self._made: dict[int, str] = {}
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
        draws = torch.Tag.nondeterministic_seeded in func.tags
        if draws:
            self.follow_generator()
        given = [self._written(each) for each in args] + [f"{name}={self._written(kwargs[name])}" for name in kwargs]
        leaves = list(_leaves((*args, *kwargs.values())))
        _check(func, leaves)
        if func._schema.is_mutable:
            self._keep(leaves)
        result = func(*args, **kwargs)
        if draws:
            self._state = _generator_state()
            self._states.setdefault(self._state, f"s{len(self._lines) + 1}")  # found before the line after this one
        made = [each for each in _leaves([result]) if isinstance(each, Tensor)]
        self._addresses += [StorageWeakRef(each.untyped_storage()) for each in made]
        if func._schema.is_mutable or not made or not all(self._is_at_hand(each) for each in made):
            self._know(result, self._line(f"{self._value(DIRECT.get(func, func))}({', '.join(given)})"))
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
            found = int(name[1:])
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
        uses = {each: (int(each[1:]), last) for each, last in self._last_use.items() if each not in self._outside}
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

    def _written(self, value: Any) -> str:
        """An argument as source: tensors by name, lists of them item by item, all else as a constant."""
        if isinstance(value, Tensor):
            name = self._names.get(_place(value)) or self._view_or_argument(value)
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

    def _is_at_hand(self, result: Tensor) -> bool:
        """Whether what an operation gave that changes nothing needs no line: a view that has a name, or can be kept."""
        if _place(result) not in self._names and result.untyped_storage()._cdata in self._outside_storages:
            self._argument(result)
        return _place(result) in self._names

    def _know(self, result: Any, name: str) -> None:
        if isinstance(result, Tensor):
            self._names[_place(result)] = name
            if (storage := result.untyped_storage()._cdata) not in self._outside_storages:
                self._made.setdefault(storage, name)
        elif isinstance(result, list | tuple):
            for index, each in enumerate(result):
                if isinstance(each, Tensor):
                    self._last_use[name] = len(self._lines)
                    self._know(each, self._line(f"{name}[{index}]"))

    def _view_or_argument(self, tensor: Tensor) -> str:
        """The name of a tensor that no operation has returned: another view of what was made, or from outside."""
        made = self._made.get(tensor.untyped_storage()._cdata)
        if made is None:
            return self._argument(tensor)
        self._last_use[made] = len(self._lines)
        shape = f"{tuple(tensor.shape)}, {tensor.stride()}, {tensor.storage_offset()}"
        name = self._line(f"{self._value(DIRECT[_aten.as_strided.default])}({made}, {shape})")
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
    looks = tensor.dtype, tensor.is_conj(), tensor.is_neg()
    return storage, tensor.storage_offset(), tensor.shape, tensor.stride(), *looks


def _check(func: Any, leaves: Sequence[Any]) -> None:
    """Raise RuntimeError for an operation whose result would not follow the inputs of a replay."""
    if func in _FROM_PYTHON:
        raise RuntimeError(f"{func} makes a tensor of Python's numbers")
    if any(isinstance(each, torch.Generator) for each in leaves):
        raise RuntimeError(f"{func} draws from a generator of its own")
    by_mask = any(isinstance(each, Tensor) and each.dtype in (torch.bool, torch.uint8) for each in leaves[1:])
    if any(tag in func.tags for tag in _READS_NUMBERS) and (func not in _INDEXING or by_mask):
        raise RuntimeError(f"{func} reads numbers")
