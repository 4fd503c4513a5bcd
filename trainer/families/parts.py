"""The parts of a model folder in diffusers layout: weights, tokenizers and schedulers read, or told to be broken."""

from __future__ import annotations

import hashlib
import json
import time
from contextlib import suppress
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import diffusers
import torch
import transformers
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from transformers import CLIPTokenizer

from trainer.demo import MODEL_DIR
from trainer.devices import is_out_of_memory
from trainer.errors import UserError
from trainer.file_states import file_state, is_settled
from trainer.files import read_json, write_text
from trainer.single_file.cache import cache_dir
from trainer.weight_files import weights_in


def load_unet(folder: Path, dtype: torch.dtype) -> UNet2DConditionModel:
    """The UNet of a model folder in ``dtype``. Raises UserError when it is missing or broken."""
    return _load_part(UNet2DConditionModel, folder / "unet", torch_dtype=dtype)


def load_vae(folder: Path) -> AutoencoderKL:
    """The VAE in its folder, in float32: in float16 that of SDXL gives no numbers. Raises UserError."""
    return _load_part(AutoencoderKL, folder, torch_dtype=torch.float32)


def load_text_encoder(kind: Any, folder: Path, dtype: torch.dtype) -> Any:
    """A text encoder of the transformers class ``kind`` in ``dtype``. Raises UserError when it is missing or broken."""
    return _load_part(kind, folder, dtype=dtype)


def load_tokenizer(folder: Path) -> CLIPTokenizer:
    """The tokenizer in a folder. Raises UserError when it is missing or broken."""
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        raise _broken(folder, FileNotFoundError("tokenizer.json or vocab.json is missing"))
    try:
        return CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, TypeError) as error:
        raise _broken(folder, error) from error


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


def _load_part(kind: Any, folder: Path, **options: Any) -> Any:
    """One component from the version of its weights that is chosen. Raises UserError when it is missing or broken."""
    try:
        weights = weights_in(folder)
        if weights is None:
            raise FileNotFoundError("there are no weights in it")
        if weights.missing:
            raise FileNotFoundError(f"{weights.missing[0]} is missing")
        options |= {"use_safetensors": weights.safetensors, "variant": weights.variant}
        return kind.from_pretrained(folder, local_files_only=True, **options)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, UnpicklingError) as error:
        if is_out_of_memory(error):
            raise
        raise _broken(folder, error) from error
    except Exception as error:
        if type(error).__name__ == "SafetensorError":  # the class moved between versions
            raise _broken(folder, error) from error
        raise


def _broken(folder: Path, error: Exception) -> UserError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    message = f"model.base: the {folder.name} of {folder.parent} cannot be loaded: {reason}"
    hint = "Get the model again, with its .safetensors files."
    return UserError("model.broken", message, hint, "model.base")
