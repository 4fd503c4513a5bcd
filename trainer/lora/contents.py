"""What a LoRA file holds, read off its header alone: kinds, ranks, parts, naming. Nothing is loaded. Never torch.

For tables that must be there at once, such as what a merge will give. What needs the numbers is in ``inspect.py``.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from trainer.errors import UserError
from trainer.lora.keys import Role, other_kind, parse_name, part_of, unify_keys
from trainer.lora.told_family import told_family
from trainer.single_file.header import Header, Shapes, read_header

_BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16}
_RANK_ROLES: tuple[Role, ...] = ("down", "hada_w1_b", "lokr_w2_b", "lokr_w1_b")
"""The tensor whose first side is the layer's rank; the first that a layer has counts."""


@dataclass(frozen=True)
class LayerContents:
    """One layer: its kind (``LoRA``, ``DoRA``, ``LoHa`` ...), its rank (None: full), and the numbers per rank."""

    kind: str
    rank: int | None
    values_per_rank: int
    """Numbers that one rank takes: inputs and outputs together, a convolution's kernel counted in."""


@dataclass(frozen=True)
class LoraContents:
    """A LoRA file by its header.

    Attributes:
        layers: by kohya key, in the names that files of its family have.
        naming: ``kohya``, ``diffusers``, ``diffusers, old`` or ``PEFT``.
        family: ``sd1``, ``sd2`` or ``sdxl``; empty where nothing tells.
        bytes_per_number: of its widest tensor.
        unknown: tensor names that were not understood.
    """

    path: Path
    size_bytes: int
    layers: dict[str, LayerContents]
    naming: str
    family: str
    bytes_per_number: int
    metadata: dict[str, str]
    unknown: list[str]

    @property
    def kinds(self) -> list[str]:
        """The kinds of its layers, the most frequent first."""
        return [kind for kind, _ in Counter(layer.kind for layer in self.layers.values()).most_common()]

    @property
    def ranks(self) -> list[int]:
        """Its ranks, smallest first; layers of full rank are left out."""
        return sorted({layer.rank for layer in self.layers.values() if layer.rank is not None})

    @property
    def parts(self) -> dict[str, int]:
        """Number of layers by part of the model."""
        return dict(sorted(Counter(part_of(module) or "other" for module in self.layers).items()))


def lora_contents(path: Path, *, field: str = "lora") -> LoraContents:
    """Read a LoRA file's header. Raises UserError(field) when it is missing, broken or no LoRA that can be read."""
    if not path.is_file():
        raise UserError("lora.missing", f"There is no LoRA file {path}.", "Choose another one.", field)
    header = read_header(path, field=field)
    parsed = {name: parse_name(name) for name in header.shapes}
    by_module: dict[str, dict[Role, tuple[int, ...]]] = {}
    for name, known in parsed.items():
        if known is not None:
            by_module.setdefault(known.module, {})[known.role] = header.shapes[name]
    layers = {module: layer for module, roles in by_module.items() if (layer := _layer(roles)) is not None}
    if not layers:
        kind = next((kind for name in header.shapes if (kind := other_kind(name))), None)
        what = f"is of the kind {kind}, which cannot be read" if kind else "holds no LoRA layers of Stable Diffusion"
        raise UserError("lora.none", f"{path.name} {what}.", "Choose a LoRA .safetensors file.", field)
    family = _family(layers, by_module, header)
    renamed = unify_keys(list(layers), sdxl=family.endswith("xl"))
    return LoraContents(
        path,
        path.stat().st_size,
        {renamed.get(module, module): layer for module, layer in layers.items()},
        _naming(header.shapes),
        family,
        _widest(header) // 8,
        header.metadata,
        sorted(name for name, known in parsed.items() if known is None),
    )


def _layer(roles: dict[Role, tuple[int, ...]]) -> LayerContents | None:
    """The layer of these tensors' shapes; None where they make none."""
    if "down" in roles and "up" in roles:
        kind, per_rank = "LoRA", math.prod(roles["down"][1:]) + (roles["up"][0] if roles["up"] else 0)
    elif any(role.startswith("hada") for role in roles):
        kind, per_rank = "LoHa", _sides(roles, ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"))
    elif any(role.startswith("lokr") for role in roles):
        kind, per_rank = "LoKr", _sides(roles, ("lokr_w1_a", "lokr_w1_b", "lokr_w2_a", "lokr_w2_b"))
    else:
        return None
    if "dora_scale" in roles or "magnitude" in roles:
        kind = "DoRA" if kind == "LoRA" else f"{kind} with DoRA"
    rank = next((roles[role][0] for role in _RANK_ROLES if roles.get(role)), None)
    return LayerContents(kind, rank, per_rank)


def _sides(roles: dict[Role, tuple[int, ...]], names: Iterable[Role]) -> int:
    return sum(max(roles[name], default=0) for name in names if name in roles)


def _family(layers: dict[str, LayerContents], by_module: dict[str, dict[Role, tuple[int, ...]]], header: Header) -> str:
    downs = (roles.get("down", ()) for module, roles in by_module.items() if module.endswith("attn2_to_k"))
    return told_family(header.metadata, layers, {shape[1] for shape in downs if len(shape) > 1})


def _naming(shapes: Shapes) -> str:
    names = list(shapes)
    if any(name.startswith("base_model.model.") for name in names):
        return "PEFT"
    if any(".lora_A." in name or ".lora_B." in name for name in names):
        return "diffusers"
    if any(".processor." in name or ".lora.down." in name or ".lora_linear_layer." in name for name in names):
        return "diffusers, old"
    return "kohya"


def _widest(header: Header) -> int:
    formats = [form for name, form in header.formats.items() if not name.endswith(".alpha")]
    return max((_BITS.get(form, 16) for form in formats), default=16)
