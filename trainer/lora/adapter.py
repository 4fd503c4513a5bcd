"""LoRA layers on a loaded model, through PEFT: putting them on, reading them out, filling them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer as PeftLayer
from torch import Tensor, nn

from trainer.config import LoraSettings
from trainer.devices import seeded_generator
from trainer.errors import UserError
from trainer.families.base import Family
from trainer.lora.dropout import add_dropout
from trainer.lora.file import LoraFile, LoraLayer, product_norm, read_lora
from trainer.parameter_groups import Trainable

ADAPTER = "default"

Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class LayerPlan:
    """The LoRA that one layer of the model gets: ``alpha / rank * up @ down``, learning at ``rate_factor``."""

    name: str
    rank: int
    alpha: float
    rate_factor: float = 1.0


def add_adapters(family: Family, settings: LoraSettings, *, seed: int) -> list[Trainable]:
    """Put LoRA layers on the model and return their float32 parameters, in the model's order.

    The down parts are drawn from ``seed`` and the up parts are zero, so that the model starts unchanged; with
    ``init_from`` both are the file's. Raises UserError when no layer is left to train or the file does not fit.
    """
    plans = plan_layers(family, settings)
    for part, layers in plans.items():
        if layers:
            module = _parts_of(family)[part]
            module.add_adapter(_peft_config(layers, settings.dropout), adapter_name=ADAPTER)
            module.train(module.training)  # new layers come in training mode, whatever the model is in
    for part, name, layer in _adapter_modules(family):
        generator = seeded_generator(seed, "lora", part, name)
        layer.lora_A.float()
        layer.lora_B.float()
        nn.init.kaiming_uniform_(_down(layer), a=math.sqrt(5), generator=generator)
        nn.init.zeros_(_up(layer))
        add_dropout(layer.lora_A[ADAPTER], layer.lora_B[ADAPTER], settings)
    if settings.init_from:
        load_into_adapters(family, read_lora(Path(settings.init_from).expanduser()), settings.init_from)
    factors = {(part, layer.name): layer.rate_factor for part, layers in plans.items() for layer in layers}
    return [
        Trainable(parameter, part, is_up=is_up, rate_factor=factors[part, name])
        for part, name, layer in _adapter_modules(family)
        for parameter, is_up in ((_down(layer), False), (_up(layer), True))
    ]


def norm_limiter(family: Family, settings: LoraSettings) -> Callable[[], Tensor] | None:
    """What keeps the layers' norms within ``max_norm``, as sd-scripts' ``scale_weight_norms``; None without a limit.

    Called, it multiplies both factors of each layer whose ``||alpha / rank * up @ down||`` (Frobenius) is above the
    limit with the same number, so that it comes down to it, and returns how many layers that were, on the device.
    """
    if settings.max_norm is None:
        return None
    limit = settings.max_norm
    layers = [(_down(layer), _up(layer), layer.scaling[ADAPTER]) for _, _, layer in _adapter_modules(family)]

    @torch.no_grad()
    def limit_norms() -> Tensor:
        norms = torch.stack([abs(scale) * product_norm(up, down) for down, up, scale in layers])
        for (down, up, _), factor in zip(layers, (limit / norms).clamp(max=1).sqrt(), strict=True):
            down.mul_(factor)
            up.mul_(factor)
        return (norms > limit).sum()

    return limit_norms


def plan_layers(family: Family, settings: LoraSettings) -> dict[str, list[LayerPlan]]:
    """Which layers get a LoRA, and of what rank and alpha, by part. Raises UserError when none does."""
    plans: dict[str, list[LayerPlan]] = {}
    for part, names in family.adapter_targets(settings.target, conv=settings.conv_rank > 0).items():
        modules = dict(_parts_of(family)[part].named_modules())
        wanted = settings.train != ("text_encoder" if part == "unet" else "unet")
        layers = [_plan(part, name, modules[name], settings) for name in names] if wanted else []
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
    """Rank and alpha of one layer; rank 0 for a layer to leave alone. Patterns see ``unet.down_blocks...``."""
    full_name = f"{part}.{name}"
    included = not settings.include or any(re.search(pattern, full_name) for pattern in settings.include)
    if not included or any(re.search(pattern, full_name) for pattern in settings.exclude):
        return LayerPlan(name, 0, 0.0)
    rank, alpha = settings.rank, settings.alpha
    if isinstance(module, nn.Conv2d) and module.kernel_size != (1, 1):
        rank = settings.conv_rank
        alpha = float(settings.conv_rank) if settings.conv_alpha is None else settings.conv_alpha
    block_rank = _first_match(settings.block_ranks, full_name)
    if block_rank is not None and not settings.rank_stabilized:
        alpha *= block_rank / rank if rank else 1.0  # the strength alpha / rank stays
    if block_rank is not None:
        rank = block_rank
    if settings.rank_stabilized:
        alpha *= math.sqrt(rank)  # alpha / sqrt(rank), for readers that divide by the rank (2312.03732, theorem 3.2)
    factor = _first_match(settings.block_lrs, full_name)
    return LayerPlan(name, rank, alpha, 1.0 if factor is None else factor)


def _first_match(patterns: dict[str, Number], full_name: str) -> Number | None:
    return next((value for pattern, value in patterns.items() if re.search(pattern, full_name)), None)


def adapter_layers(family: Family) -> dict[str, LoraLayer]:
    """The LoRA as it is now, by kohya key: float32 copies on the CPU, for saving."""
    return {
        family.lora_key(part, name): LoraLayer(_copy(_down(layer)), _copy(_up(layer)), float(layer.lora_alpha[ADAPTER]))
        for part, name, layer in _adapter_modules(family)
    }


@torch.no_grad()
def load_into_adapters(family: Family, lora: LoraFile, file_name: str) -> None:
    """Fill the adapters with a file's layers; its strengths are kept when its alpha differs from the adapter's.

    Layers that the file lacks start from zero. Raises UserError when the file has none of the adapter's layers, or
    one of another shape.
    """
    found = 0
    for part, name, layer in _adapter_modules(family):
        saved = lora.layers.get(family.lora_key(part, name))
        if saved is None:
            continue
        if saved.down.shape != _down(layer).shape or saved.up.shape != _up(layer).shape:
            raise _does_not_fit(file_name, name, saved, layer)
        ratio = saved.scale / layer.scaling[ADAPTER]
        _down(layer).copy_(saved.down)
        _up(layer).copy_(saved.up.float() * ratio)
        found += 1
    if not found:
        raise UserError(
            "lora.init_from",
            f"lora.init_from: {file_name} has none of the layers that are trained.",
            "Choose a LoRA for the same family, with the same lora.target and lora.train.",
            "lora.init_from",
        )


def _does_not_fit(file_name: str, name: str, saved: LoraLayer, layer: PeftLayer) -> UserError:
    wanted = _down(layer).shape[0]
    if saved.rank != wanted:
        message = f"lora.init_from: {file_name} has rank {saved.rank} for {name}, the settings have {wanted}."
        return UserError("lora.init_from", message, f"Set lora.rank to {saved.rank}.", "lora.init_from")
    message = f"lora.init_from: {name} in {file_name} has another size than this model's."
    return UserError("lora.init_from", message, "Choose a LoRA for the same base model.", "lora.init_from")


def _peft_config(layers: list[LayerPlan], dropout: float) -> LoraConfig:
    """PEFT matches names by regular expression: anchored ones, or ``conv1`` of one block would hit every block."""
    return LoraConfig(
        r=layers[0].rank,
        lora_alpha=layers[0].alpha,
        lora_dropout=dropout,
        target_modules=[layer.name for layer in layers],
        rank_pattern={f"^{re.escape(layer.name)}": layer.rank for layer in layers if layer.rank != layers[0].rank},
        alpha_pattern={f"^{re.escape(layer.name)}": layer.alpha for layer in layers if layer.alpha != layers[0].alpha},
    )


def _parts_of(family: Family) -> dict[str, Any]:
    return {"unet": family.denoiser, **family.text_encoders}


def _adapter_modules(family: Family) -> Iterator[tuple[str, str, PeftLayer]]:
    """Every adapted layer as (part, name, PEFT layer), in the model's order."""
    for part, module in _parts_of(family).items():
        for name, layer in module.named_modules():
            if isinstance(layer, PeftLayer) and ADAPTER in layer.lora_A:
                yield part, name, layer


def _down(layer: PeftLayer) -> nn.Parameter:
    return layer.lora_A[ADAPTER].weight


def _up(layer: PeftLayer) -> nn.Parameter:
    return layer.lora_B[ADAPTER].weight


def _copy(weight: Tensor) -> Tensor:
    return weight.detach().to("cpu", torch.float32, copy=True)
