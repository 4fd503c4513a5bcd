"""The parts of a model folder in diffusers layout: weights, tokenizers and schedulers read, or told to be broken."""

from __future__ import annotations

import hashlib
import json
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from inspect import signature
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import diffusers
import torch
import transformers
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTokenizer

from trainer.demo import MODEL_DIR
from trainer.devices import is_out_of_memory
from trainer.errors import UserError
from trainer.families.clip import CONTENT_TOKENS, ClipText
from trainer.families.lazy_part import LazyPart
from trainer.file_states import file_state, is_settled
from trainer.files import read_json, write_text
from trainer.single_file.cache import cache_dir
from trainer.single_file.header import read_header
from trainer.weight_files import WeightFiles, weights_in

_RANDOM_SEED = 0
"""Random weights are the same whenever a part is loaded."""


def load_unet(folder: Path, dtype: torch.dtype) -> UNet2DConditionModel:
    """The UNet of a model folder in ``dtype``. Raises UserError when it is missing or broken."""
    return _load_part(UNet2DConditionModel, folder / "unet", torch_dtype=dtype)


def lazy_vae(folder: Path, device: torch.device) -> LazyPart[AutoencoderKL]:
    """The VAE in its folder, in float32: in float16 that of SDXL gives no numbers.

    Raises UserError when it is missing, or broken as far as that is seen without reading the weights.
    """
    with _told(folder):
        config = _vae_config(_checked_settings(folder))
    dtype = torch.float32
    return LazyPart(config, lambda: _load_part(AutoencoderKL, folder, torch_dtype=dtype), dtype=dtype, device=device)


def lazy_text(kind: Any, folder: Path, dtype: torch.dtype, device: torch.device) -> ClipText:
    """A text encoder of the transformers class ``kind`` in ``dtype``, with its tokenizer.

    Raises UserError when they are missing, or broken as far as that is seen without reading the weights.
    """
    tokenizer = folder.with_name(folder.name.replace("text_encoder", "tokenizer"))
    with _told(folder):
        _checked_settings(folder)
        config = kind.config_class.from_pretrained(folder, local_files_only=True)
    with _told(tokenizer):
        _check_tokenizer(tokenizer)
    part = LazyPart(config, lambda: _load_part(kind, folder, dtype=dtype), dtype=dtype, device=device)
    return ClipText(part, lambda: _load_tokenizer(tokenizer))


def random_unet(settings: dict[str, Any], dtype: torch.dtype, device: torch.device) -> UNet2DConditionModel:
    """A UNet with random weights."""
    with torch.device(device):  # made where it is used: far quicker for a GPU
        return UNet2DConditionModel.from_config(settings).to(dtype=dtype)


def random_vae(settings: dict[str, Any], device: torch.device) -> LazyPart[AutoencoderKL]:
    """A VAE with random weights."""

    def load() -> AutoencoderKL:
        torch.default_generator.manual_seed(_RANDOM_SEED)
        with torch.device(device):
            return AutoencoderKL.from_config(settings)

    return LazyPart(_vae_config(settings), load, dtype=torch.float32, device=device)


def random_text(kind: Any, settings: dict[str, Any], dtype: torch.dtype, device: torch.device) -> ClipText:
    """A text encoder with random weights, and the demo model's tokenizer for captions of the usual length."""
    config = CLIPTextConfig.from_dict(settings)

    def load() -> Any:
        torch.default_generator.manual_seed(_RANDOM_SEED)
        with torch.device(device):
            return kind(config).to(dtype=dtype)

    def tokenizer() -> CLIPTokenizer:
        loaded = _load_tokenizer(MODEL_DIR / "tokenizer")
        loaded.model_max_length = CONTENT_TOKENS + 2
        return loaded

    return ClipText(LazyPart(config, load, dtype=dtype, device=device), tokenizer)


def read_scheduler(folder: Path, prediction_type: str, zero_terminal_snr: bool) -> dict[str, Any]:
    """The noise schedule of a model folder as settings that every diffusers scheduler understands.

    Args:
        folder: the model.
        prediction_type: ``auto`` for the model's own.
        zero_terminal_snr: rescale the schedule to end in pure noise, also where the model does not say so.

    Raises UserError when it is broken, or asked to end in pure noise while the noise is to be predicted.
    """
    try:
        given = read_json(folder / "scheduler" / "scheduler_config.json")
        resolved = DDPMScheduler.from_config(given).config
    except (OSError, ValueError, TypeError) as error:
        raise _broken(folder / "scheduler", error) from error
    config = {
        **given,  # what it leaves open stays open: each sampler has its own default there
        "prediction_type": resolved["prediction_type"] if prediction_type == "auto" else prediction_type,
        "rescale_betas_zero_snr": zero_terminal_snr or resolved["rescale_betas_zero_snr"],
    }
    if config["rescale_betas_zero_snr"] and given.get("timestep_spacing") != "linspace":
        # Lin et al. 2023 (2305.08891), section 3.3: sampling must start at the last step, which "leading" leaves out
        config["timestep_spacing"] = "trailing"
    if config["prediction_type"] == "epsilon" and config["rescale_betas_zero_snr"]:
        raise UserError(
            "loss.zero_terminal_snr",
            "loss.zero_terminal_snr: at zero signal the noise cannot be predicted; this model predicts the noise.",
            "Set it to false, or use a v-prediction model.",
            "loss.zero_terminal_snr",
        )
    return config


def demo_config(part: str) -> dict[str, Any]:
    """The settings of a part of the demo model, which small random models are made after."""
    return read_json(MODEL_DIR / part / "config.json")


def quiet() -> None:
    """No progress bars of the libraries: loading is told by events."""
    transformers.utils.logging.disable_progress_bar()
    diffusers.utils.logging.disable_progress_bar()


def fingerprint(*folders: Path) -> str:
    """A hash over the names and contents of the settings and of the weights that are read in these folders.

    It is noted: the weights are read again only once one of the files has changed.
    """
    files = sorted(file for folder in folders for file in _read_files(folder))
    states, read_ns = [file_state(file) for file in files], time.time_ns()
    about = json.dumps([[str(file.resolve()), *state] for file, state in zip(files, states, strict=True)])
    note = cache_dir() / "fingerprints" / hashlib.sha256(about.encode()).hexdigest()[:32]
    try:
        return note.read_text(encoding="utf-8")
    except (OSError, ValueError):
        found = _hash(files)
    if all(is_settled(state, read_ns) for state in states):
        with suppress(OSError):
            write_text(note, found, durable=False)
    return found


def _hash(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.name.encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:32]


def _read_files(folder: Path) -> list[Path]:
    weights = weights_in(folder)
    names = weights.names if weights else ()
    return [file for file in folder.iterdir() if file.suffix in (".json", ".txt") or file.name in names]


def _vae_config(settings: dict[str, Any]) -> dict[str, Any]:
    """With the class's own values for what the settings leave open."""
    return {name: each.default for name, each in signature(AutoencoderKL.__init__).parameters.items()} | settings


def _load_tokenizer(folder: Path) -> CLIPTokenizer:
    """The tokenizer in a folder. Raises UserError when it is missing or broken."""
    with _told(folder):
        _check_tokenizer(folder)
        return CLIPTokenizer.from_pretrained(folder, local_files_only=True)


def _load_part(kind: Any, folder: Path, **options: Any) -> Any:
    """One component from the version of its weights that is chosen. Raises UserError when it is missing or broken."""
    with _told(folder):
        weights = _complete_weights(folder)
        options |= {"use_safetensors": weights.safetensors, "variant": weights.variant}
        return kind.from_pretrained(folder, local_files_only=True, **options)


def _complete_weights(folder: Path) -> WeightFiles:
    """The version of the weights that is read. Raises FileNotFoundError when any of it is missing."""
    weights = weights_in(folder)
    if weights is None:
        raise FileNotFoundError("there are no weights in it")
    if weights.missing:
        raise FileNotFoundError(f"{weights.missing[0]} is missing")
    return weights


def _checked_settings(folder: Path) -> dict[str, Any]:
    """The settings of a part. Raises UserError, OSError or ValueError when any of its files is missing or cut off."""
    weights = _complete_weights(folder)
    if weights.index is not None:
        read_json(folder / weights.index)
    for path in (folder / name for name in weights.names):
        if weights.safetensors:
            read_header(path, refuse=partial(_broken_file, path))
        elif _is_cut_off(path):
            raise _broken_file(path, "is cut off")
    return read_json(folder / "config.json")


def _is_cut_off(pickled: Path) -> bool:
    """Whether this is a zip file, as pickled weights are, without the directory at its end."""
    with pickled.open("rb") as file:
        return file.read(2) == b"PK" and not zipfile.is_zipfile(pickled)


def _check_tokenizer(folder: Path) -> None:
    """Raise OSError or ValueError when files of a tokenizer are missing, or those in JSON cannot be read."""
    needed = ["tokenizer.json"] if (folder / "tokenizer.json").is_file() else ["vocab.json", "merges.txt"]
    for name in needed:
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{name} is missing")
    given = [name for name in ("tokenizer_config.json", "special_tokens_map.json") if (folder / name).is_file()]
    for name in (needed[0], *given):
        read_json(folder / name)


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    """What fails inside is told as a broken part of the model."""
    try:
        yield
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, UnpicklingError) as error:
        if (shortage := _shortage_behind(error)) is not None:
            raise shortage from None
        raise _broken(folder, error) from error
    except Exception as error:
        if type(error).__name__ == "SafetensorError":  # the class moved between versions
            raise _broken(folder, error) from error
        raise


def _shortage_behind(error: BaseException | None) -> BaseException | None:
    """The lack of memory that an error comes from: diffusers tells it as a file that cannot be read."""
    while error is not None and not is_out_of_memory(error):
        error = error.__context__
    return error


def _broken(folder: Path, error: Exception) -> UserError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    message = f"model.base: the {folder.name} of {folder.parent} cannot be loaded: {reason}"
    hint = "Get the model again, with its .safetensors files."
    return UserError("model.broken", message, hint, "model.base")


def _broken_file(path: Path, what: str) -> UserError:
    return _broken(path.parent, ValueError(f"{path.name} {what}"))
