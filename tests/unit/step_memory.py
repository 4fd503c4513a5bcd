"""The memory of a training step at a model's full size, counted over tensors without numbers."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.weak import WeakIdKeyDictionary

from trainer.config import Config
from trainer.families import FAMILIES
from trainer.families.base import Conditioning, Family
from trainer.lora.adapter import add_adapters
from trainer.lora.shared_inputs import join_inputs
from trainer.together import set_training_mode


class Alive(TorchDispatchMode):
    """Counts the bytes of the tensors that operations make, as long as they are alive; ``most`` of them at once."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.most, self._now = 0, 0
        self._known = WeakIdKeyDictionary()
        for weight in (*model.parameters(), *model.buffers()):
            self._known[weight.untyped_storage()] = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        for tensor in tree_iter(result):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage in self._known:
            return
        self._known[storage] = size = storage.nbytes()
        self._now += size
        self.most = max(self.most, self._now)
        weakref.finalize(storage, self._freed, size)

    def _freed(self, size: int) -> None:
        self._now -= size


def step_bytes(family_name: str, config: Config, side_px: int) -> int:
    """What forward and backward pass of the denoiser hold at most, weights aside, as on a GPU in bfloat16."""
    family = FAMILIES[family_name].random("full", device=torch.device("meta"), dtype=torch.bfloat16)
    add_adapters(family, config.lora, seed=0)
    set_training_mode(family, config)
    with FakeTensorMode(allow_non_fake_inputs=True), _as_on_a_gpu():
        _give_fakes(family.denoiser)
        join_inputs(family.denoiser)  # a run's first step does, and they are weights
        noisy, timesteps, conditioning, sizes = _question(family, side_px)
        with Alive(family.denoiser) as alive:
            with torch.autocast("cpu", torch.bfloat16):
                prediction = family.predict(noisy, timesteps, conditioning, sizes)
            loss = prediction.float().square().mean()
            del prediction
            loss.backward()
    return alive.most


class _Kernels:
    """Any kernel by its name: started on a grid, it does nothing, and holds nothing."""

    def __getattr__(self, name: str) -> _Kernels:
        return self

    def __getitem__(self, grid: object) -> Callable[..., None]:
        return lambda *given, **named: None


@contextmanager
def fused_layers_without_numbers() -> Iterator[None]:
    """Within, denoisers in training have fused layers, whose kernels compute nothing."""
    from trainer.fused import functions, layers

    with (
        mock.patch.object(functions, "kernels", _Kernels()),
        mock.patch.object(layers, "_kernels_work", lambda device, dtype: True),
    ):
        yield


class _Flash(torch.autograd.Function):
    """Attention as kernels without a matrix of scores do it: q, k, v, the result and a number a row are kept."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        result = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, result, query.new_empty(query.shape[:-1], dtype=torch.float32))
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.empty_like(each) for each in ctx.saved_tensors[:3])


@contextmanager
def _as_on_a_gpu() -> Iterator[None]:
    """Attention by blocks, and normalisations in float32, as autocast has them there but not on the CPU."""
    functional = nn.functional

    def attention(query: Tensor, key: Tensor, value: Tensor, **_: Any) -> Tensor:
        return _Flash.apply(*(each.to(torch.bfloat16) for each in (query, key, value)))

    def exact(operation: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def computed(*given: Any, **named: Any) -> Tensor:
            return operation(*map(_float, given), **{name: _float(value) for name, value in named.items()})

        return computed

    with (
        mock.patch.object(functional, "scaled_dot_product_attention", attention),
        mock.patch.object(functional, "group_norm", exact(functional.group_norm)),
        mock.patch.object(functional, "layer_norm", exact(functional.layer_norm)),
    ):
        yield


def _float(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) else value


def _give_fakes(model: nn.Module) -> None:
    """Tensors that say they are on the CPU, in place of those on the meta device, which knows no autocast."""
    for module in model.modules():
        for name, weight in module._parameters.items():
            if weight is not None:
                module._parameters[name] = nn.Parameter(_fake(weight), weight.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = _fake(buffer)


def _fake(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype)


def _question(family: Family, side_px: int) -> tuple[Tensor, Tensor, Conditioning, Tensor]:
    unet: Any = family.denoiser
    noisy = torch.empty(1, 4, side_px // 8, side_px // 8, dtype=torch.bfloat16)
    states = torch.empty(1, 77, unet.config.cross_attention_dim, dtype=torch.bfloat16)
    extra = {"pooled": torch.empty(1, 1280, dtype=torch.bfloat16)} if unet.config.addition_embed_type else {}
    return noisy, torch.zeros(1, dtype=torch.int64), Conditioning(states, extra), torch.empty(1, 6)
