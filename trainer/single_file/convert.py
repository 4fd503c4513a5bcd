"""A model folder made of a single file, once; everything after that works on the folder.

Weights pass through one tensor at a time in the file's own number formats. The folder is built under another name and
renamed when it is complete, so that nothing half-made is ever used.
"""

from __future__ import annotations

import math
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from filelock import FileLock
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from trainer.errors import UserError
from trainer.files import fsync_folder, is_full, write_json
from trainer.lora.tensor_file import Entry, write_tensors
from trainer.runs.events import EventSink
from trainer.single_file.cache import SUFFIXES, cache_dir, folder_of, outdated_folders
from trainer.single_file.configs import part_configs, standard, vae_config
from trainer.single_file.header import Shapes, broken
from trainer.single_file.kinds import INPAINTING_CHANNELS, LATENT_CHANNELS, VAE, Layout, identify, is_vae, prediction
from trainer.single_file.names import Names, Source, target_shapes, vae_names
from trainer.single_file.tensors import Checkpoint, open_checkpoint, unsupported
from trainer.single_file.tokenizer import VOCABULARY_SIZE, write_tokenizer

_DIFFUSERS_WEIGHTS = "diffusion_pytorch_model.safetensors"
_TRANSFORMERS_WEIGHTS = "model.safetensors"
ORIGIN_FILE = "single_file.json"
"""In the folder: what it was made of, and which scheduler settings are a guess."""

_SPARE_BYTES = 64 << 20
_PAD_TOKENS = {0: "!", 49407: "<|endoftext|>"}
_NAMED = 3

_SKELETONS: dict[str, Callable[[dict[str, Any]], torch.nn.Module]] = {
    "UNet2DConditionModel": UNet2DConditionModel.from_config,
    "AutoencoderKL": AutoencoderKL.from_config,
    "CLIPTextModel": lambda config: CLIPTextModel(CLIPTextConfig.from_dict(config)),
    "CLIPTextModelWithProjection": lambda config: CLIPTextModelWithProjection(CLIPTextConfig.from_dict(config)),
}


@dataclass(frozen=True)
class _Part:
    """A component to write: its config and where its weights come from."""

    config: dict[str, Any]
    names: Names

    @property
    def kind(self) -> str:
        """The class that the component is of."""
        return self.config["_class_name"] if "_class_name" in self.config else self.config["architectures"][0]

    @property
    def weights_file(self) -> str:
        """The name that the class's library gives its weights."""
        return _DIFFUSERS_WEIGHTS if "_class_name" in self.config else _TRANSFORMERS_WEIGHTS


@dataclass
class _Job:
    """One conversion: the open file, what to call it in messages, where the progress goes."""

    path: Path
    checkpoint: Checkpoint
    field: str
    events: EventSink | None
    total: int = 0
    done: int = 0

    def entry(self, target: str, source: Source) -> Entry:
        """One weight, read when its turn to be written comes."""
        shape = source.shape(self.checkpoint.shapes)
        dtype = self.checkpoint.dtype(self.path, source.name, self.field)

        def load() -> Tensor:
            weight = self.checkpoint.weight(source)
            self.count()
            return weight

        return Entry(target, dtype, shape, load)

    def count(self) -> None:
        """Tell that one more weight was read, where that is another percent of them."""
        self.done += 1
        if self.events is not None and 100 * self.done // self.total > 100 * (self.done - 1) // self.total:
            self.events.emit("progress", what="converting the model file", done=self.done, total=self.total)


def model_folder_of(
    path: Path, *, field: str = "model.base", events: EventSink | None = None, inpainting: bool = False
) -> Path:
    """The model folder made of a single file; the first time it is made, which takes as much disk as the file.

    Args:
        path: ``.safetensors`` or ``.ckpt``.
        field: the setting that named it, for messages.
        events: gets the progress.
        inpainting: whether an inpainting model will do; one that was made before is not looked at again.

    Raises UserError(field) when the file is broken, is something else than a model, or the disk is too full.
    """
    _check_suffix(path, field)
    target = _folder(path, field, events)
    with _made_once(target, "model_index.json", path, field) as folder:
        if folder is not None:
            with open_checkpoint(path, field=field) as checkpoint:
                layout = identify(path, checkpoint.shapes, field=field, inpainting=inpainting)
                _write_model(folder, _Job(path, checkpoint, field, events), layout)
    return target


def vae_folder_of(
    path: Path, scaling_factor: float, *, field: str = "model.vae", events: EventSink | None = None
) -> Path:
    """The folder of a VAE that comes as one file, by itself or within a whole model.

    The file does not say how its latents are scaled: ``scaling_factor`` is that of the model it is used in.

    Raises UserError(field) when it holds no VAE, is broken, or the disk is too full.
    """
    _check_suffix(path, field)
    target = _folder(path, field, events, "vae", str(scaling_factor))
    with _made_once(target, "config.json", path, field) as folder:
        if folder is not None:
            with open_checkpoint(path, field=field) as checkpoint:
                _write_vae(folder, _Job(path, checkpoint, field, events), scaling_factor)
    return target


def _write_model(folder: Path, job: _Job, layout: Layout) -> None:
    names = layout.names(job.checkpoint.shapes)
    configs = _read_off(job, lambda shapes: part_configs(layout.family, shapes), names)
    said = prediction(job.checkpoint.shapes, job.checkpoint.metadata)
    guess = {} if "prediction_type" in said else layout.guess
    scheduler = {**standard(layout.family, "scheduler"), **guess, **said}
    if layout.sample_sizes:
        configs["unet"]["sample_size"] = layout.sample_sizes[scheduler["prediction_type"]]
    parts = {part: _Part(configs[part], names[part]) for part in names}
    for part, values in parts.items():
        _check_structure(job, part, values)
    _check_vocabulary(job, parts)
    _check_disk(job, parts)
    for part, values in parts.items():
        _write_part(folder / part, job, values)
    for part, values in parts.items():
        if part.startswith("text_encoder"):
            tokenizer = folder / part.replace("text_encoder", "tokenizer")
            pad_token = _PAD_TOKENS[values.config["pad_token_id"]]
            write_tokenizer(tokenizer, pad_token=pad_token, max_tokens=values.config["max_position_embeddings"])
    write_json(folder / "scheduler" / "scheduler_config.json", scheduler)
    write_json(folder / ORIGIN_FILE, {"made_of": str(job.path.resolve()), "guess": guess})
    index = standard(layout.family, "model_index")
    if configs["unet"]["in_channels"] == INPAINTING_CHANNELS:
        index["_class_name"] = index["_class_name"].replace("Pipeline", "InpaintPipeline")
    write_json(folder / "model_index.json", index)


def _write_vae(folder: Path, job: _Job, scaling_factor: float) -> None:
    shapes = job.checkpoint.shapes
    prefix = VAE if any(name.startswith(VAE) for name in shapes) else ""
    if not prefix and not is_vae(shapes):
        message = f"{job.field}: {job.path.name} holds no VAE."
        raise UserError("model.wrong_kind", message, "Choose a VAE, or a model whose VAE is meant.", job.field)
    names = {"vae": vae_names(shapes, prefix)}
    base = {**standard("sd1", "vae"), "scaling_factor": scaling_factor}
    configs = _read_off(job, lambda found: {"vae": vae_config(base, found["vae"])}, names)
    channels = configs["vae"]["latent_channels"]
    if channels != LATENT_CHANNELS:
        message = (
            f"{job.field}: {job.path.name} is a VAE of {channels} latent channels; these models need {LATENT_CHANNELS}."
        )
        raise UserError("model.wrong_kind", message, "Choose a VAE of the model's own family.", job.field)
    part = _Part(configs["vae"], names["vae"])
    _check_structure(job, "vae", part)
    _check_disk(job, {"vae": part})
    _write_part(folder, job, part)


def _read_off(
    job: _Job, read: Callable[[dict[str, Shapes]], dict[str, dict[str, Any]]], names: dict[str, Names]
) -> dict[str, dict[str, Any]]:
    shapes = {part: target_shapes(mapped, job.checkpoint.shapes) for part, mapped in names.items()}
    try:
        return read(shapes)
    except (KeyError, IndexError, ValueError, StopIteration) as error:
        what = f"lacks weights that every such model has ({error})"
        raise broken(job.path, what, job.field) from error


def _check_structure(job: _Job, part: str, values: _Part) -> None:
    """Compare with the class that will load the part, built without memory: names and shapes must be the same."""
    with torch.device("meta"):
        skeleton = _SKELETONS[values.kind](values.config)
    expected = {_flat_name(name): tuple(tensor.shape) for name, tensor in skeleton.state_dict().items()}
    given = {_flat_name(name): shape for name, shape in target_shapes(values.names, job.checkpoint.shapes).items()}
    missing = sorted(expected.keys() - given.keys())
    strange = sorted(given.keys() - expected.keys())
    misfits = sorted(name for name in expected.keys() & given.keys() if expected[name] != given[name])
    told = [
        f"{len(names)} weights {what} ({', '.join(names[:_NAMED])}{' ...' if len(names) > _NAMED else ''})"
        for names, what in ((missing, "missing"), (strange, "too many"), (misfits, "of another shape"))
        if names
    ]
    if told:
        what = f"has a {part.replace('_', ' ')} of an unusual build: {'; '.join(told)}"
        raise broken(job.path, what, job.field, "The file is incomplete, or a variant that cannot be trained here.")


def _flat_name(name: str) -> str:
    """Newer transformers lost the ``text_model`` level of CLIP; files keep it."""
    return name.removeprefix("text_model.")


def _check_vocabulary(job: _Job, parts: dict[str, _Part]) -> None:
    for part, values in parts.items():
        size = values.config.get("vocab_size", VOCABULARY_SIZE)
        if size != VOCABULARY_SIZE:
            what = f"has a {part.replace('_', ' ')} of {size} tokens; CLIP's tokenizer has {VOCABULARY_SIZE}"
            hint = "Use the model as a folder in diffusers layout, with its own tokenizer."
            raise broken(job.path, what, job.field, hint)


def _check_disk(job: _Job, parts: dict[str, _Part]) -> None:
    entries = [job.entry(name, source) for part in parts.values() for name, source in part.names.items()]
    job.total = len(entries)
    needed = sum(entry.size_bytes for entry in entries) + _SPARE_BYTES
    free = shutil.disk_usage(cache_dir()).free
    if free < needed:
        raise _disk_full(job.path, job.field, f"needs {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free")


def _write_part(folder: Path, job: _Job, part: _Part) -> None:
    entries = [job.entry(name, source) for name, source in part.names.items()]
    write_tensors(folder / part.weights_file, entries, {"format": "pt"})
    write_json(folder / "config.json", part.config)


def _check_suffix(path: Path, field: str) -> None:
    if path.suffix.lower() not in SUFFIXES:
        raise unsupported(path, field)


def _folder(path: Path, field: str, events: EventSink | None, *about: str) -> Path:
    def told(done: int, total: int) -> None:
        if events is not None:
            done_mb, total_mb = (math.ceil(count / 1e6) for count in (done, total))
            events.emit("progress", what="reading the model file, MB", done=done_mb, total=total_mb)

    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise broken(path, f"cannot be read ({error.strerror or error})", field) from error
    with _writing(path, field):
        return folder_of(path, *about, told=told)


@contextmanager
def _made_once(target: Path, last_file: str, path: Path, field: str) -> Iterator[Path | None]:
    """A folder to fill that appears as ``target`` when all went well; None when ``target`` is there already.

    A second process waits for the first, and then finds the folder.
    """
    if (target / last_file).is_file():
        yield None
        return
    with _writing(path, field):
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.parent / f".{target.name}.lock"):
            if (target / last_file).is_file():
                yield None
                return
            for left in target.parent.glob(f".{target.name}.*.tmp"):  # of a process that was killed
                shutil.rmtree(left, ignore_errors=True)
            shutil.rmtree(target, ignore_errors=True)  # someone took files out of it
            for old in outdated_folders():
                shutil.rmtree(old, ignore_errors=True)
            temporary = target.parent / f".{target.name}.{secrets.token_hex(4)}.tmp"
            temporary.mkdir()
            try:
                yield temporary
                temporary.rename(target)
                fsync_folder(target.parent)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _writing(path: Path, field: str) -> Iterator[None]:
    """Errors of the disk that model folders are kept on, in plain words."""
    try:
        yield
    except OSError as error:
        if is_full(error):
            raise _disk_full(path, field, "filled it up") from error
        message = f"{field}: the model folder for {path.name} cannot be written in {cache_dir()}: {error}."
        hint = "Make the folder writable, or set XDG_CACHE_HOME to one that is."
        raise UserError("model.cache", message, hint, field) from error


def _disk_full(path: Path, field: str, what: str) -> UserError:
    message = f"{field}: the disk of {cache_dir()} is too full: the model folder for {path.name} {what}."
    return UserError("model.disk_full", message, "Free some space, or set XDG_CACHE_HOME to a larger disk.", field)
