"""What a CUDA graph cannot hold, found without a GPU; and a graph of the CPU that replays what was called."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

Function = Callable[..., Tensor]
_READS_NUMBERS = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)
_FROM_THE_HOST = (torch.ops.aten.lift_fresh.default, torch.ops.aten.lift_fresh_copy.default)
_INDEXING = (torch.ops.aten.index.Tensor, torch.ops.aten.index_put_.default)


class NotCapturable(RuntimeError):
    """A graph would not hold this, or would not be right when it is replayed."""


@dataclass
class Call:
    """An operation with what it was given, in one list, and with its results."""

    operation: Any
    given: list[Any]
    layout: TreeSpec
    results: list[Any]

    @property
    def description(self) -> tuple[Any, ...]:
        """What is the same in each run of a function that can be captured."""
        return (str(self.operation), *map(_described, self.given), *map(_described, self.results))


def _described(value: Any) -> Any:
    return (tuple(value.shape), value.dtype, value.device) if isinstance(value, Tensor) else repr(value)


class Recorder(TorchDispatchMode):
    """Keeps what is called within, and raises NotCapturable at the first operation that a graph cannot hold.

    Afterwards all that lay outside is what it was: capturing computes nothing.
    """

    def __init__(self, draws: bool) -> None:
        """``draws``: torch's own generator may be drawn from, which graphs have registered."""
        super().__init__()
        self.calls: list[Call] = []
        self._draws = draws
        self._made: set[int] = set()
        self._before: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.namespace == "profiler":  # computes nothing
            return func(*args, **kwargs)
        given, layout = tree_flatten((args, kwargs))
        tensors = [each for each in given if isinstance(each, Tensor)]
        _check(func, args, kwargs, tensors, self._draws)
        if func._schema.is_mutable:
            self._keep(tensors)
        result = func(*args, **kwargs)
        results = _leaves(result)
        made = [each for each in results if isinstance(each, Tensor)]
        if len({each.device for each in (*tensors, *made) if each.ndim}) > 1:
            raise NotCapturable(f"{func} copies between devices")
        self._made |= _storages(made) - _storages(tensors)
        self.calls.append(Call(func, given, layout, results))
        return result

    def restore(self) -> None:
        """Bring back what was changed in place."""
        for storage, before in self._before.values():
            storage.copy_(before)

    def _keep(self, tensors: list[Tensor]) -> None:
        for each in tensors:
            storage = each.untyped_storage()
            if storage._cdata not in self._made and storage._cdata not in self._before and each.device.type == "cpu":
                self._before[storage._cdata] = (storage, storage.clone())


def _storages(tensors: list[Tensor]) -> set[int]:
    return {each.untyped_storage()._cdata for each in tensors}


def _leaves(result: Any) -> list[Any]:
    return [result] if isinstance(result, Tensor) else tree_flatten(result)[0]


def _check(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], tensors: list[Tensor], draws: bool) -> None:
    if func in _FROM_THE_HOST:
        raise NotCapturable(f"{func} makes a tensor of numbers of the host")
    own = draws and not any(isinstance(each, torch.Generator) for each in (*args, *kwargs.values()))
    if torch.Tag.nondeterministic_seeded in func.tags and not own and not _drops_nothing(func, args, kwargs):
        raise NotCapturable(f"{func} draws random numbers")
    by_mask = any(each.dtype in (torch.bool, torch.uint8) for each in tensors[1:])
    if any(tag in func.tags for tag in _READS_NUMBERS) and (func not in _INDEXING or by_mask):
        raise NotCapturable(f"{func} waits for numbers of the GPU")


def _drops_nothing(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether it is attention that might drop out, but at a probability of 0."""
    positions = {each.name: index for index, each in enumerate(func._schema.arguments)}
    if "dropout_p" not in positions:
        return False
    position = positions["dropout_p"]
    default = kwargs.get("dropout_p", func._schema.arguments[position].default_value)
    return not (args[position] if position < len(args) else default)


def recorded(function: Function, inputs: Sequence[Tensor], *, draws: bool = False) -> tuple[list[Call], Tensor]:
    """What a function calls, and its result. Raises NotCapturable."""
    recorder, generator = Recorder(draws), torch.get_rng_state()
    try:
        with recorder:
            result = function(*inputs)
    finally:
        recorder.restore()
        torch.set_rng_state(generator)
    return recorder.calls, result


def check_capturable(function: Function, inputs: Sequence[Tensor], *, draws: bool = False) -> tuple[list[Call], Tensor]:
    """Run a function twice on the same buffers; returns calls and result of a run. Raises NotCapturable.

    ``draws``: it may draw from torch's own generator.
    """
    before = [each.untyped_storage() for each in inputs]  # held, so that no other comes to lie at the same address
    first, result = recorded(function, inputs, draws=draws)
    second, _ = recorded(function, inputs, draws=draws)
    for one, other in zip_longest(first, second):
        if one is None or other is None or one.description != other.description:
            told = [str(each and each.description)[:300] for each in (one, other)]
            raise NotCapturable(f"what is called, or with which shapes and numbers, differs from run to run: {told}")
    if _read_from_outside(first) != _read_from_outside(second):
        raise NotCapturable("what is read lies elsewhere in the second run")
    if [each.untyped_storage()._cdata for each in inputs] != [each._cdata for each in before]:
        raise NotCapturable("an input has another storage than before")
    return first, result


def _read_from_outside(calls: list[Call]) -> list[int]:
    """Addresses of the tensors that were not made within, in the order in which they are read."""
    made: set[int] = set()
    outside: list[int] = []
    for call in calls:
        given = [each for each in call.given if isinstance(each, Tensor)]
        outside += [each.data_ptr() for each in given if each.untyped_storage()._cdata not in made]
        results = [each for each in call.results if isinstance(each, Tensor)]
        made |= _storages(results) - _storages(given)
    return outside


_Storages = dict[int, torch.UntypedStorage]
_Frozen = tuple[Any, list[Any], TreeSpec, list[int | None]]


class RecordedGraph:
    """``trainer.graphs.Graph`` on the CPU. As in a CUDA graph, Python's numbers are what they were at the capture, and
    tensors are read and changed where they lay; it keeps none of them, and finds out when their memory was given back.
    Capturing computes nothing. Random numbers are drawn anew by each replay.
    """

    def __init__(self, function: Function, inputs: Sequence[Tensor], *, draws: bool = False) -> None:
        self._inputs = [each.clone() for each in inputs]
        calls, result = check_capturable(function, self._inputs, draws=draws)
        self._calls, made = _frozen(calls)
        self._result = _Read(result, made)
        self._output = torch.empty_like(result)

    def replay(self, inputs: Sequence[Tensor]) -> Tensor:
        for mine, given in zip(self._inputs, inputs, strict=True):
            mine.copy_(given)
        storages: _Storages = {}
        with torch.no_grad():
            for operation, given, layout, names in self._calls:
                read = [each(storages) if isinstance(each, _Read) else each for each in given]
                args, kwargs = tree_unflatten(read, layout)
                for name, each in zip(names, _leaves(operation(*args, **kwargs)), strict=True):
                    if name is not None:
                        storages[name] = each.untyped_storage()
            return self._output.copy_(self._result(storages))


class _Read:
    """Where a recorded argument is found: in what was made within, or where it lay outside."""

    def __init__(self, tensor: Tensor, made: set[int]) -> None:
        storage = tensor.untyped_storage()
        self._name = storage._cdata
        self._made = self._name in made
        self._storage = StorageWeakRef(storage)
        self._dtype, self._layout = tensor.dtype, (tensor.storage_offset(), tensor.shape, tensor.stride())

    def __call__(self, storages: _Storages) -> Tensor:
        storage = storages[self._name] if self._made else self._outside()
        return torch.empty(0, dtype=self._dtype).set_(storage, *self._layout)

    def _outside(self) -> torch.UntypedStorage:
        if self._storage.expired():
            raise NotCapturable("the graph reads memory that was given back")
        return torch.UntypedStorage._new_with_weak_ptr(self._storage.cdata)


def _frozen(calls: list[Call]) -> tuple[list[_Frozen], set[int]]:
    """The calls without their tensors, and the names of the memory that they take."""
    made: set[int] = set()
    frozen: list[_Frozen] = []
    for call in calls:
        tensors = [each for each in call.given if isinstance(each, Tensor)]
        given = [_Read(each, made) if isinstance(each, Tensor) else each for each in call.given]
        known = _storages(tensors)
        names = [_name(each, known) for each in call.results]
        made |= {name for name in names if name is not None}
        frozen.append((call.operation, given, call.layout, names))
    return frozen, made


def _name(result: Any, known: set[int]) -> int | None:
    """Of memory that was taken for a result; None where it is that of an argument."""
    if not isinstance(result, Tensor):
        return None
    name = result.untyped_storage()._cdata
    return None if name in known else name
