"""Adapters on a loaded model: putting them on, reading them out, filling them.

A plain LoRA is PEFT's (``peft_adapter.py``), the other kinds are our own (``weight_adapters.py``); here they are alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft.tuners.lora import LoraLayer as PeftLayer
from torch import Tensor, nn

from trainer.config import LoraSettings
from trainer.devices import seeded_generator
from trainer.errors import UserError
from trainer.families.base import Family
from trainer.lora.dropout import Draws
from trainer.lora.file import LoraFile, fit_names, read_lora
from trainer.lora.keys import parse_name
from trainer.lora.layer_ranks import first_match, layer_alpha, layer_rank
from trainer.lora.layers import Layer
from trainer.lora.misfits import Pair, misfit
from trainer.lora.peft_adapter import ADAPTER, PeftAdapter, add_peft_adapters
from trainer.lora.tensor_file import open_tensors
from trainer.lora.weight_adapters import CHILD, WEIGHT_ADAPTERS, WeightAdapter
from trainer.parameter_groups import Trainable

Adapter = PeftAdapter | WeightAdapter


@dataclass(frozen=True)
class LayerPlan:
    """The LoRA that one layer of the model gets: ``alpha / rank * up @ down``, learning at ``rate_factor``."""

    name: str
    rank: int
    alpha: float
    rate_factor: float = 1.0


def add_adapters(
    family: Family,
    settings: LoraSettings,
    *,
    seed: int,
    checkpoint: Path | None = None,
    draws: Draws | None = None,
) -> list[Trainable]:
    """Put adapters on the model and return their float32 parameters, in the model's order.

    Their first values are drawn from ``seed`` and change nothing; with ``init_from`` they are the file's. A run that is
    resumed gives the LoRA of its ``checkpoint``: adapters are made in that one's form, and ``init_from`` may be gone.
    Dropouts draw from ``draws``. Raises UserError when no layer is left to train or the file does not fit.
    """
    draws = draws or Draws()
    plans = plan_layers(family, settings)
    for part, layers in plans.items():
        module = _module_of(family, part)
        if layers and settings.type == "lora":
            add_peft_adapters(module, [(layer.name, layer.rank, layer.alpha) for layer in layers], settings, draws)
        elif layers:
            for layer in layers:
                base: Any = module.get_submodule(layer.name)
                adapter = WEIGHT_ADAPTERS[settings.type](base, layer.rank, layer.alpha, settings)
                adapter.draws = draws
                adapter.attach(base)
    for part, name, added, base in _adapters(family):
        added.start(base.weight, seeded_generator(seed, "lora", part, name))
    if checkpoint is not None:
        list(_filled(family, read_lora(checkpoint)))  # where it does not fit, restoring its state says why
    elif settings.init_from:
        load_into_adapters(family, read_lora(Path(settings.init_from).expanduser()), settings.init_from)
    factors = {(part, layer.name): layer.rate_factor for part, layers in plans.items() for layer in layers}
    return [
        Trainable(parameter, part, is_up=is_up, rate_factor=factors[part, name])
        for part, name, adapter, _ in _adapters(family)
        for parameter, is_up in adapter.trained()
    ]


def norm_limiter(family: Family, settings: LoraSettings) -> Callable[[Tensor], Tensor] | None:
    """What keeps the layers' norms within ``max_norm``, as sd-scripts' ``scale_weight_norms``; None without a limit.

    Called, it multiplies the factors of each layer whose scaled product is longer than the limit (Frobenius), each with
    the same number, so that it comes down to it, and returns how many layers that were, on the device. It is given
    whether to, a scalar on the device too: else all stays as it is to the bit.
    """
    if settings.max_norm is None:
        return None
    limit = settings.max_norm
    adapters = [adapter for _, _, adapter, _ in _adapters(family) if adapter.factors[0].requires_grad]

    @torch.no_grad()
    def limit_norms(wanted: Tensor) -> Tensor:
        norms = torch.stack([adapter.norm() for adapter in adapters])
        for adapter, shorter in zip(adapters, torch.where(wanted, (limit / norms).clamp(max=1), 1), strict=True):
            for factor in adapter.factors:  # the product is linear in each
                factor.mul_(shorter ** (1 / len(adapter.factors)))
        return ((norms > limit) & wanted).sum()

    return limit_norms


@contextmanager
def without_adapters(family: Family) -> Iterator[None]:
    """Inside, the model is what it was before adapters were put on it. Raises ValueError when it has none."""
    adapters = [adapter for _, _, adapter, _ in _adapters(family)]
    if not adapters:
        raise ValueError("the model has no adapters to switch off")
    for adapter in adapters:
        adapter.switch(False)
    try:
        yield
    finally:
        for adapter in adapters:
            adapter.switch(True)


def plan_layers(family: Family, settings: LoraSettings) -> dict[str, list[LayerPlan]]:
    """Which layers get a LoRA, and of what rank and alpha, by part. Raises UserError when none does."""
    plans: dict[str, list[LayerPlan]] = {}
    for part, names in family.adapter_targets(settings.target, conv=True, train=settings.train).items():
        modules = dict(_module_of(family, part).named_modules())
        layers = [_plan(part, name, modules[name], settings) for name in names]
        plans[part] = [layer for layer in layers if layer.rank > 0]
    if not any(plans.values()):
        raise UserError(
            "lora.no_layers",
            "lora: include, exclude and block_ranks leave no layer to train.",
            "Loosen them; layer names look like unet.mid_block.attentions.0.proj_in.",
            "lora.include",
        )
    return plans


def _plan(part: str, name: str, module: nn.Module, settings: LoraSettings) -> LayerPlan:
    """Rank, alpha and rate of one layer; rank 0 for a layer to leave alone."""
    full_name = f"{part}.{name}"
    large_conv = isinstance(module, nn.Conv2d) and module.kernel_size != (1, 1)
    rank = layer_rank(full_name, settings, large_conv=large_conv)
    if not rank:
        return LayerPlan(name, 0, 0.0)
    factor = first_match(settings.block_lrs, full_name)
    alpha = layer_alpha(rank, settings, large_conv=large_conv)
    return LayerPlan(name, rank, alpha, 1.0 if factor is None else factor)


def adapter_layers(family: Family) -> dict[str, Layer]:
    """The adapters as they are now, by kohya key: float32 copies on the CPU, for saving."""
    return {family.lora_key(part, name): adapter.saved() for part, name, adapter, _ in _adapters(family)}


def check_same_layers(family: Family, saved: Path) -> None:
    """Raise ValueError, and say which, when the LoRA of a checkpoint has other layers than the model's adapters."""
    with open_tensors(saved) as file:
        theirs = {known.module for name in file.keys() if (known := parse_name(name))}  # noqa: SIM118
    ours = {family.lora_key(part, name) for part, name, _, _ in _adapters(family)}
    told = [
        f"{len(layers)} layers {where}, such as {min(layers)}"
        for layers, where in ((theirs - ours, "are in the checkpoint only"), (ours - theirs, "are not in it"))
        if layers
    ]
    if told:
        raise ValueError("; ".join(told))


def load_into_adapters(family: Family, lora: LoraFile, file_name: str) -> None:
    """Fill the adapters with a file's layers; its strengths are kept when its alpha differs from the adapter's.

    Layers that the file lacks start from zero. Raises UserError when the file has none of the adapter's layers, or
    some of another kind or shape.
    """
    pairs = list(_filled(family, lora))
    if not all(pair.fits for pair in pairs):
        raise misfit(file_name, pairs)
    if not pairs:
        raise UserError(
            "lora.init_from",
            f"lora.init_from: {file_name} has none of the layers that are trained.",
            "Choose a LoRA for the same family, with the same lora.target and lora.train.",
            "lora.init_from",
        )


def _filled(family: Family, lora: LoraFile) -> Iterator[Pair]:
    """Fill the adapters as far as a file's layers fit, and tell of each."""
    saved_layers = fit_names(lora, [family.lora_key(part, name) for part, name, _, _ in _adapters(family)]).layers
    for part, name, adapter, base in _adapters(family):
        saved = saved_layers.get(family.lora_key(part, name))
        if saved is not None:
            fits = adapter.take(saved, base.weight)
            yield Pair(name, saved, adapter.saved(), tuple(base.weight.shape), fits)


def _module_of(family: Family, part: str) -> Any:
    return family.denoiser if part == "unet" else family.text_encoders[part]


def _adapters(family: Family) -> Iterator[tuple[str, str, Adapter, Any]]:
    """Every adapter as (part, name of its layer, adapter, the layer it changes), in the model's order."""
    for part, module in family.loaded.items():
        for name, layer in module.named_modules():
            if isinstance(layer, PeftLayer) and ADAPTER in layer.lora_A:
                yield part, name, PeftAdapter(layer), layer.base_layer
            elif isinstance(layer, WeightAdapter):
                base_name = name.removesuffix(f".{CHILD}")
                yield part, base_name, layer, module.get_submodule(base_name)
