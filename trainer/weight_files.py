"""Which files of a model's part hold its weights: of several versions one is downloaded and read. Never torch.

The names are those of diffusers and transformers: ``diffusion_pytorch_model.fp16.safetensors`` is a variant, and
``model-00001-of-00002.safetensors`` a piece of weights that are listed in ``model.safetensors.index.json``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_STEMS = {"safetensors": ("diffusion_pytorch_model", "model"), "bin": ("diffusion_pytorch_model", "pytorch_model")}
_WEIGHTS = re.compile(
    r"(?P<stem>\w+?)(\.(?P<before>\w+))?(-(?P<piece>\d{5})-of-(?P<pieces>\d{5}))?(\.(?P<after>\w+))?"
    r"\.(?P<ending>safetensors|bin)"
)
_INDEX = re.compile(r"(?P<stem>\w+)\.(?P<ending>safetensors|bin)\.index(\.(?P<variant>\w+))?\.json")
_LIKED = (None, "fp32", "fp16", "bf16")
_DISLIKED = ("ema_only", "non_ema")


@dataclass(frozen=True)
class WeightFiles:
    """One version of a part's weights.

    Attributes:
        names: the weights, in one file or in pieces.
        index: the list of what lies in which piece; None for one file.
        variant: ``fp16``; None for the version without a name.
        safetensors: False for ``.bin``, which is pickled and only read as plain weights.
        missing: files that belong to it and are not there.
    """

    names: tuple[str, ...]
    index: str | None
    variant: str | None
    safetensors: bool
    missing: tuple[str, ...]

    @property
    def files(self) -> tuple[str, ...]:
        """Everything that has to be there to load it."""
        return self.names if self.index is None else (*self.names, self.index)


def choose_weights(names: Iterable[str]) -> WeightFiles | None:
    """The version of the weights to read, among the file names of one folder; None where there are none.

    Complete ones come first, then safetensors, then the full version before its 16-bit variants, then one file before
    pieces.
    """
    versions = _versions(names)
    return min(versions, key=_rank) if versions else None


def weights_in(folder: Path) -> WeightFiles | None:
    """The same for a folder on this machine. Raises OSError when it cannot be listed."""
    return choose_weights(path.name for path in folder.iterdir() if path.is_file())


def vae_folder(model: Path, other: Path | None) -> Path:
    """Where the VAE lies: in the model, in another model, or in a folder of its own."""
    if other is not None and (other / "config.json").is_file():
        return other
    return (other or model) / "vae"


def _versions(names: Iterable[str]) -> list[WeightFiles]:
    wholes: list[WeightFiles] = []
    pieces: dict[tuple[str, str, str | None, int], dict[int, str]] = {}
    indexes: dict[tuple[str, str, str | None], str] = {}
    for name in sorted(names):
        if listed := _INDEX.fullmatch(name):
            indexes[listed["stem"], listed["ending"], listed["variant"]] = name
        found = _WEIGHTS.fullmatch(name)
        if found is None or found["stem"] not in _STEMS[found["ending"]]:
            continue
        variant = found["before"] or found["after"]
        if found["piece"] is None:
            wholes.append(WeightFiles((name,), None, variant, found["ending"] == "safetensors", ()))
        else:
            key = (found["stem"], found["ending"], variant, int(found["pieces"]))
            pieces.setdefault(key, {})[int(found["piece"])] = name
    return [*wholes, *(_pieced(key, there, indexes) for key, there in pieces.items())]


def _pieced(
    key: tuple[str, str, str | None, int], there: dict[int, str], indexes: dict[tuple[str, str, str | None], str]
) -> WeightFiles:
    stem, ending, variant, count = key
    index = indexes.get((stem, ending, variant))
    example = there[min(there)]
    expected = [re.sub(r"-\d{5}-of-", f"-{number:05}-of-", example) for number in range(1, count + 1)]
    missing = [name for number, name in enumerate(expected, 1) if number not in there]
    if index is None:
        missing.append(".".join([stem, ending, "index", *([variant] if variant else []), "json"]))
    names = tuple(there[number] for number in sorted(there))
    return WeightFiles(names, index, variant, ending == "safetensors", tuple(missing))


def _rank(version: WeightFiles) -> tuple[bool, bool, int, str, int]:
    variant = version.variant
    liking = _LIKED.index(variant) if variant in _LIKED else len(_LIKED) + (variant in _DISLIKED)
    return bool(version.missing), not version.safetensors, liking, variant or "", len(version.names)
