"""How strongly a LoRA is applied: one number, and others for parts and blocks of the model. Never torch.

The text is ``0.8`` or ``0.8,text_encoder:0,unet.mid_block:1.2``: first the number for the whole LoRA, then names with
numbers of their own, which take its place (as in diffusers' ``set_adapters``). Names are those that ``inspect`` shows:

* parts: ``unet``, ``text_encoder``, ``text_encoder_2``;
* blocks, and anything inside them: ``unet.down_blocks.0``, ``unet.mid_block``, ``text_encoder.layers.11``,
  ``unet.up_blocks.1.attentions.2``; for the UNet in diffusers' names or in Stability's (``unet.input_blocks.4``),
  whichever of the two a file has;
* block weights as sd-webui-lora-block-weight names them: ``BASE`` (all text encoders), ``IN00`` to ``IN11``, ``MID``,
  ``OUT00`` to ``OUT11``.

Where several names hold a layer, the one that says most about it counts: ``unet.mid_block`` before ``unet``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from trainer.errors import Problem, UserError
from trainer.files import home_path
from trainer.lora.keys import PREFIXES, block_of, part_of
from trainer.lora.sai_keys import from_sai

_TEXT_ENCODERS = "BASE"
_LBW = re.compile(r"(IN|OUT)(\d\d)$")
_STAGES = {"IN": "input_blocks", "OUT": "output_blocks"}
_SIDE = re.compile(r"(down|up)_blocks_(\d+)_(resnets|attentions|downsamplers|upsamplers)_(\d+)(?:_|$)")
_BEFORE_NUMBER = re.compile(r"_(?=\d+$)")
_EXAMPLE = "Example: 0.8,text_encoder:0,unet.mid_block:1.2."

Address = tuple[str, ...]
"""The words of a name, such as ("unet", "mid", "block")."""


@dataclass(frozen=True)
class Strength:
    """How strongly a LoRA is applied.

    Attributes:
        overall: for every layer that no name holds.
        named: (name, number) as given. Build it with ``parse_strength``, which checks them.
    """

    overall: float = 1.0
    named: tuple[tuple[str, float], ...] = ()

    @property
    def is_uniform(self) -> bool:
        """Whether every layer has the same strength."""
        return not self.named

    @property
    def numbers(self) -> list[float]:
        """Every number in it."""
        return [self.overall, *(number for _, number in self.named)]

    def of(self, module: str) -> float:
        """The strength of a layer by its kohya key, ``lora_unet_mid_block_attentions_0_proj_in``."""
        held = [(_depth(name), number) for name, number in self.named if _holds(_address(name), module)]
        return max(held, key=lambda item: item[0])[1] if held else self.overall

    def check(self, modules: Collection[str], what: str, field: str = "lora") -> None:
        """Raise UserError, once and with the names there are, when names hold no layer of ``what``, a file's name."""
        unknown = [name for name, _ in self.named if not any(_holds(_address(name), module) for module in modules)]
        if unknown:
            message = f"{what} has no {' and no '.join(unknown)}."
            raise UserError("lora.block", message, f"It has {', '.join(names_of(modules))}.", field)

    def __str__(self) -> str:
        """The text that ``parse_strength`` reads back."""
        return ",".join([_number(self.overall), *(f"{name}:{_number(value)}" for name, value in self.named)])


def parse_strength(text: str, what: str = "The strength", field: str = "lora") -> Strength:
    """Read ``0.8`` or ``0.8,text_encoder:0,unet.mid_block:1.2``. Any finite number will do, negative and above 1 too.

    Args:
        text: what was given.
        what: begins the message: whose strength it is.
        field: the field to blame.

    Raises UserError with one problem for each thing that is wrong. Whether a LoRA has the blocks is for ``check``.
    """
    first, *others = (item.strip() for item in text.split(","))
    overall, problems = _finite(first), []
    if overall is None:
        problems.append(f"begins with {first!r}, which is not a finite number")
    named: list[tuple[str, float]] = []
    for item in others:
        name, _, number = (side.strip() for side in item.rpartition(":"))
        value = _finite(number)
        if not name or value is None:
            problems.append(f"has {item!r}, which is not of the form NAME:NUMBER with a finite number")
        elif not _is_name(name):
            problems.append(f"names {name!r}, which is not a part or block")
        elif any(_address(name) == _address(other) for other, _ in named):
            problems.append(f"names {name!r} twice")
        else:
            named.append((name, value))
    if problems or overall is None:
        raise UserError.many([Problem("lora.strength", f"{what} {each}.", _EXAMPLE, field) for each in problems])
    return Strength(overall, tuple(named))


def parse_lora(text: str, option: str = "--lora") -> tuple[Path, Strength]:
    """Read ``FILE=STRENGTH``; the file's name may have ``=``, ``,`` and ``:`` in it. Raises UserError."""
    name, found, strength = text.rpartition("=")
    if not found or not name:
        message = f"{option} {text!r} is not of the form FILE=NUMBER."
        example = f"Example: {option} my.safetensors=0.8, or with parts my.safetensors=0.8,text_encoder:0"
        raise UserError("cli.pair", message, example, "lora")
    path = home_path(name)
    return path, parse_strength(strength, f"{option} {path.name}={strength}")


def parse_loras(texts: Iterable[str], option: str = "--lora") -> list[tuple[Path, Strength]]:
    """Read several ``FILE=STRENGTH``. Raises UserError with what is wrong about all of them."""
    read: list[tuple[Path, Strength]] = []
    problems: list[Problem] = []
    for text in texts:
        try:
            read.append(parse_lora(text, option))
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError.many(problems)
    return read


def names_of(modules: Iterable[str]) -> list[str]:
    """The parts and blocks that these layers, by kohya key, lie in: the names to give strengths to."""
    names: dict[str, None] = {}
    for module in sorted(modules, key=_order):
        part, block = part_of(module), block_of(module).partition(" ")[2]
        if part is not None:
            names[part] = None
            if block != "rest":
                names[f"{part}.{_BEFORE_NUMBER.sub('.', block)}"] = None
    return list(names)


def _order(module: str) -> list[str]:
    """For sorting by name with numbers as numbers."""
    return [f"{int(word):09}" if word.isdigit() else word for word in module.split("_")]


def _finite(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _number(value: float) -> str:
    return repr(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(value)


def _is_name(name: str) -> bool:
    """Whether a name begins with a part of a model, or is a block weight's."""
    address = _address(name)
    return address == (_TEXT_ENCODERS,) or _part(address) is not None


@lru_cache(maxsize=4096)
def _address(name: str) -> Address:
    """A name's words. The names of block weights become those they stand for, and MID what diffusers calls it."""
    if name.upper() == _TEXT_ENCODERS:
        return (_TEXT_ENCODERS,)
    if name.upper() in ("MID", "M00"):
        name = "unet.mid_block"
    match = _LBW.match(name.upper())
    if match:
        name = f"unet.{_STAGES[match.group(1)]}.{int(match.group(2))}"
    words = tuple(re.split(r"[._ ]", name))
    return ("unet", "mid", "block") if words == ("unet", "middle", "block") else words


def _part(address: Address) -> str | None:
    """The part of the model that an address lies in."""
    return next((part for part in sorted(PREFIXES, reverse=True) if _starts(address, tuple(part.split("_")))), None)


def _depth(name: str) -> int:
    """How much a name says: a part, its halves, a block, a ResNet or transformer, a layer.

    Stability's names have a word less than diffusers' for the same place, and ``input_blocks.4`` lies between
    ``down_blocks.1`` and ``down_blocks.1.attentions.0``.
    """
    address = _address(name)
    if address == (_TEXT_ENCODERS,):
        return 0
    return len(address) + any(word in address for word in ("input", "middle", "output"))


def _holds(address: Address, module: str) -> bool:
    part = part_of(module)
    if address == (_TEXT_ENCODERS,):
        return part is not None and part != "unet"
    # text_encoder is the start of text_encoder_2: parts are compared whole
    return part is not None and part == _part(address) and any(_starts(own, address) for own in _addresses(module))


@lru_cache(maxsize=8192)
def _addresses(module: str) -> tuple[Address, ...]:
    """All the names that a layer goes by."""
    part = part_of(module)
    rest = re.sub(r"^lora_(unet|te\d?)_", "", module)
    if part != "unet":
        found = [rest, rest.removeprefix("text_model_").removeprefix("encoder_")]
    else:
        ours = from_sai(module).removeprefix(PREFIXES["unet"])
        found = [rest, ours, *_stability_block(ours)]
    return tuple(dict.fromkeys(_address(f"{part}_{name}") for name in found))


def _stability_block(path: str) -> list[str]:
    """Stability's block for a UNet path in diffusers' names: three to a level, the third for changing the size."""
    match = _SIDE.match(path)
    if match is None:
        return ["input_blocks_0"] if path == "conv_in" else []
    level, number = int(match.group(2)), int(match.group(4))
    if match.group(1) == "down":
        return [f"input_blocks_{3 * level + (3 if match.group(3) == 'downsamplers' else 1 + number)}"]
    return [f"output_blocks_{3 * level + (2 if match.group(3) == 'upsamplers' else number)}"]


def _starts(whole: Address, start: Address) -> bool:
    return whole[: len(start)] == start
