"""What a CUDA graph cannot hold, found without a GPU; and a graph of the CPU that replays what was called."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
    """Keeps what is called within, and raises NotCapturable at the first operation that a graph cannot hold."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given, layout = tree_flatten((args, kwargs))
        tensors = [each for each in given if isinstance(each, Tensor)]
        _check(func, args, kwargs, tensors)
        result = func(*args, **kwargs)
        results = _leaves(result)
        made = [each for each in results if isinstance(each, Tensor)]
        if len({each.device for each in (*tensors, *made) if each.ndim}) > 1:
            raise NotCapturable(f"{func} copies between devices")
        self.calls.append(Call(func, given, layout, results))
        return result


def _leaves(result: Any) -> list[Any]:
    return [result] if isinstance(result, Tensor) else tree_flatten(result)[0]


def _check(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], tensors: list[Tensor]) -> None:
    if func in _FROM_THE_HOST:
        raise NotCapturable(f"{func} makes a tensor of numbers of the host")
    if torch.Tag.nondeterministic_seeded in func.tags and not _drops_nothing(func, args, kwargs):
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


def recorded(function: Function, inputs: Sequence[Tensor]) -> tuple[list[Call], Tensor]:
    """What a function calls, and its result. Raises NotCapturable."""
    with Recorder() as recorder:
        result = function(*inputs)
    return recorder.calls, result


def check_capturable(function: Function, inputs: Sequence[Tensor]) -> tuple[list[Call], Tensor]:
    """Run a function twice on the same buffers; returns calls and result of a run. Raises NotCapturable."""
    addresses = [each.data_ptr() for each in inputs]
    first, result = recorded(function, inputs)
    second, _ = recorded(function, inputs)
    if [call.description for call in first] != [call.description for call in second]:
        raise NotCapturable("what is called, or with which shapes and numbers, differs from run to run")
    if _read_from_outside(first) != _read_from_outside(second):
        raise NotCapturable("what is read lies elsewhere in the second run")
    if [each.data_ptr() for each in inputs] != addresses:
        raise NotCapturable("an input has another storage than before")
    return first, result


def _read_from_outside(calls: list[Call]) -> list[int]:
    """Addresses of the tensors that were not made within, in the order in which they are read."""
    made: set[int] = set()
    outside: list[int] = []
    for call in calls:
        outside += [each.data_ptr() for each in call.given if isinstance(each, Tensor) and id(each) not in made]
        made |= {id(each) for each in call.results}
    return outside


_Frozen = tuple[Any, list[Any], TreeSpec, list[int]]


class RecordedGraph:
    """``trainer.graphs.Graph`` on the CPU. As in a CUDA graph, Python's numbers are what they were at the capture, and
    tensors are read where they lay; it keeps none of them, and finds out when their memory was given back.
    """

    def __init__(self, function: Function, inputs: Sequence[Tensor]) -> None:
        self._inputs = [each.clone() for each in inputs]
        calls, result = check_capturable(function, self._inputs)
        self._calls = _frozen(calls)
        self._result = id(result)
        self._output = torch.empty_like(result)

    def replay(self, inputs: Sequence[Tensor]) -> Tensor:
        for mine, given in zip(self._inputs, inputs, strict=True):
            mine.copy_(given)
        values: dict[int, Tensor] = {}
        for operation, given, layout, names in self._calls:
            args, kwargs = tree_unflatten([each(values) if isinstance(each, _Read) else each for each in given], layout)
            results = _leaves(operation(*args, **kwargs))
            values |= {name: each for name, each in zip(names, results, strict=True) if isinstance(each, Tensor)}
        return self._output.copy_(values[self._result])


class _Read:
    """Where a recorded argument is found: made within, or what lies outside where it lay."""

    def __init__(self, tensor: Tensor, made: set[int]) -> None:
        self._name = id(tensor)
        self._made = self._name in made
        self._storage = StorageWeakRef(tensor.untyped_storage())
        self._dtype, self._layout = tensor.dtype, (tensor.storage_offset(), tensor.shape, tensor.stride())

    def __call__(self, values: dict[int, Tensor]) -> Tensor:
        if self._made:
            return values[self._name]
        if self._storage.expired():
            raise NotCapturable("the graph reads memory that was given back")
        storage = torch.UntypedStorage._new_with_weak_ptr(self._storage.cdata)
        return torch.empty(0, dtype=self._dtype).set_(storage, *self._layout)


def _frozen(calls: list[Call]) -> list[_Frozen]:
    """The calls without their tensors."""
    made: set[int] = set()
    frozen: list[_Frozen] = []
    for call in calls:
        given = [_Read(each, made) if isinstance(each, Tensor) else each for each in call.given]
        results = [id(each) for each in call.results]
        made |= set(results)
        frozen.append((call.operation, given, call.layout, results))
    return frozen
