"""The weights of a whole model, folder or single file, by the names that a folder has for them.

Each is read when it is asked for: a model of any size can be gone through in little memory.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from trainer.errors import UserError
from trainer.families import FAMILIES, family_of, model_folder
from trainer.families.parts import read_scheduler
from trainer.files import read_json
from trainer.lora.keys import PREFIXES, kohya_key
from trainer.lora.layers import Shape
from trainer.runs.events import EventSink
from trainer.single_file.cache import SUFFIXES
from trainer.single_file.configs import standard
from trainer.single_file.kinds import identify, prediction
from trainer.single_file.names import Source
from trainer.single_file.tensors import Checkpoint, open_checkpoint, unsupported
from trainer.weight_files import weights_in

_VAE_SCALE = 8
_BLOCK_BYTES = 1 << 26


@dataclass(frozen=True)
class Weight:
    """One weight of an open model.

    Attributes:
        part: ``unet``, ``text_encoder`` or ``text_encoder_2``.
        name: in that part, without the ``text_model`` level that newer libraries have lost: ``conv_in.weight``.
        shape: as in a model folder.
        dtype: as it is stored.
    """

    part: str
    name: str
    shape: Shape
    dtype: torch.dtype
    _checkpoint: Checkpoint
    _source: Source

    @property
    def path(self) -> str:
        """The dotted name of the layer it belongs to."""
        return self.name.rpartition(".")[0]

    def load(self) -> Tensor:
        """The numbers, as they are stored."""
        return self._checkpoint.weight(self._source)


@dataclass(frozen=True)
class ModelWeights:
    """An open model.

    Attributes:
        name: of its file or folder.
        family: short name, ``sd1``.
        prediction_type: ``epsilon`` or ``v_prediction``, as the model says or as is usual for its family.
        resolution_px: the side of the pictures it was trained on.
        weights: all of the UNet and the text encoders that are floating-point numbers, by part and name.
        files: what they are read from, by a name that does not depend on where the model lies.
    """

    name: str
    family: str
    prediction_type: str
    resolution_px: int
    weights: dict[tuple[str, str], Weight]
    files: dict[str, Path]

    @property
    def title(self) -> str:
        """The family's name for people."""
        return FAMILIES[self.family].title

    @property
    def base_model_version(self) -> str:
        """``ss_base_model_version`` of LoRA files for it."""
        return FAMILIES[self.family].versions(self.prediction_type)[0]

    @property
    def architecture(self) -> str:
        """``modelspec.architecture`` of LoRA files for it, without ``/lora``."""
        return FAMILIES[self.family].versions(self.prediction_type)[1]

    def lora_key(self, weight: Weight) -> str:
        """The name that LoRA files have for the weight's layer."""
        return kohya_key(weight.part, weight.path, sdxl=self._has_two_encoders)

    @functools.cached_property
    def _has_two_encoders(self) -> bool:
        return any(part == "text_encoder_2" for part, _ in self.weights)

    def sha256(self, events: EventSink) -> str:
        """SHA-256 of a single file; of a folder that of the lines ``<file> <its SHA-256>`` of its weights."""
        total = sum(path.stat().st_size for path in self.files.values()) // _BLOCK_BYTES
        done, digests = 0, {}
        for name, path in self.files.items():
            digest = hashlib.sha256()
            with path.open("rb") as file:
                while block := file.read(_BLOCK_BYTES):
                    digest.update(block)
                    done = min(done + 1, total)
                    events.emit("progress", what=f"hashing {self.name}", done=done, total=total)
            digests[name] = digest.hexdigest()
        if len(digests) == 1 and self.name in digests:
            return digests[self.name]
        return hashlib.sha256("".join(f"{name} {digests[name]}\n" for name in sorted(digests)).encode()).hexdigest()


@contextmanager
def open_model(model: str, *, field: str, events: EventSink | None = None) -> Iterator[ModelWeights]:
    """Open a model: ``demo``, a folder, a .safetensors or .ckpt file, or a hub id; one for inpainting will do.

    Raises UserError(field) when it is none, is broken, or of a family that is not known.
    """
    with ExitStack() as stack:
        path = Path(model).expanduser()
        if path.is_file():
            yield _single_file(path, field, stack)
        else:
            yield _folder(model_folder(model, None, field=field, events=events), model, field, stack)


def _single_file(path: Path, field: str, stack: ExitStack) -> ModelWeights:
    if path.suffix.lower() not in SUFFIXES:
        raise unsupported(path, field)
    checkpoint = stack.enter_context(open_checkpoint(path, field=field))
    layout = identify(path, checkpoint.shapes, field=field, inpainting=True)
    said = {"prediction_type": "epsilon", **layout.guess, **prediction(checkpoint.shapes, checkpoint.metadata)}
    predicts = said["prediction_type"]
    cells = layout.sample_sizes[predicts] if layout.sample_sizes else standard(layout.family, "unet")["sample_size"]
    weights: dict[tuple[str, str], Weight] = {}
    for part, names in layout.names(checkpoint.shapes).items():
        if part in PREFIXES:
            weights |= _weights(part, names, checkpoint, path, field)
    return ModelWeights(path.name, layout.family, predicts, cells * _VAE_SCALE, weights, {path.name: path})


def _folder(folder: Path, model: str, field: str, stack: ExitStack) -> ModelWeights:
    family = family_of(folder)
    if family is None:
        known = ", ".join(loader.title for loader in FAMILIES.values())
        message = f"{field}: {model} is no model of a kind that is known here."
        raise UserError("model.family", message, f"Choose a model of {known}: a folder or a single file.", field)
    weights: dict[tuple[str, str], Weight] = {}
    files: dict[str, Path] = {}
    for part in (part for part in PREFIXES if (folder / part).is_dir()):
        for path in _weight_files(folder / part, field):
            checkpoint = stack.enter_context(open_checkpoint(path, field=field))
            weights |= _weights(part, {name: Source(name) for name in checkpoint.shapes}, checkpoint, path, field)
            files[f"{part}/{path.name}"] = path
    scheduler = read_scheduler(folder, "auto", False)
    cells = read_json(folder / "unet" / "config.json").get("sample_size")
    side = cells if isinstance(cells, int) else standard(family, "unet")["sample_size"]
    return ModelWeights(Path(model).name, family, scheduler["prediction_type"], side * _VAE_SCALE, weights, files)


def _weights(
    part: str, names: dict[str, Source], checkpoint: Checkpoint, path: Path, field: str
) -> dict[tuple[str, str], Weight]:
    found = {}
    for target, source in names.items():
        name = target.removeprefix("text_model.")
        if name.endswith((".weight", ".bias")):  # position_ids and other counters are no weights
            dtype = checkpoint.dtype(path, source.name, field)
            found[part, name] = Weight(part, name, source.shape(checkpoint.shapes), dtype, checkpoint, source)
    return found


def _weight_files(part: Path, field: str) -> list[Path]:
    """The files of the part's weights: of several versions the one that is trained with too, in all its pieces."""
    version = weights_in(part)
    if version is None or version.missing:
        what = f"{version.missing[0]} is missing in" if version else "there are no weights in"
        hint = "Get the model again; it may be incomplete."
        raise UserError("model.broken", f"{field}: {what} {part}.", hint, field)
    return [part / name for name in version.names]
