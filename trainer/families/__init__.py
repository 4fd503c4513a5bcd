"""Model families by name, and finding out which one a model is of.

A new family is one new file with a ``FamilyLoader`` and one line in ``FAMILIES``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import torch

from trainer.config import ModelSettings
from trainer.demo import MODEL_DIR
from trainer.devices import use_threads_for
from trainer.errors import UserError
from trainer.families.base import Family, FamilyLoader
from trainer.families.sd import SD1, SD2, SdLoader
from trainer.families.sdxl import SdxlLoader
from trainer.files import json_object
from trainer.hub import Check, hub_folder
from trainer.hub_errors import HubModel
from trainer.hub_names import HUB_ID
from trainer.own_code import file_with_own_code
from trainer.runs.events import EventSink
from trainer.single_file.cache import looks_like_a_file
from trainer.single_file.convert import ORIGIN_FILE, model_folder_of, vae_folder_of
from trainer.single_file.kinds import INPAINTING_CHANNELS, guess_warning, inpainting_refused

FAMILIES: dict[str, FamilyLoader] = {"sd1": SdLoader(SD1), "sd2": SdLoader(SD2), "sdxl": SdxlLoader()}

_LAYOUT_HINT = (
    "Choose a folder in diffusers layout (model_index.json, unet, vae, text_encoder, tokenizer, scheduler) "
    "or a .safetensors or .ckpt file."
)


def load_family(
    model: ModelSettings,
    *,
    device: torch.device,
    dtype: torch.dtype,
    prediction_type: str = "auto",
    zero_terminal_snr: bool = False,
    events: EventSink | None = None,
    inpainting: bool = False,
) -> Family:
    """Load the model of the settings, frozen, its denoiser and text encoders in ``dtype``, its VAE in float32.

    Args:
        model: base, family, vae and revision.
        device: where all parts are put.
        dtype: compute format.
        prediction_type: ``auto`` for the model's own, or ``epsilon`` or ``v_prediction``.
        zero_terminal_snr: rescale the noise schedule so that its last step is pure noise.
        events: gets the progress when a single file is made into a model folder.
        inpainting: whether a model that reads a mask will do: it is drawn with, and not trained.

    Raises UserError(field="model.base", "model.family" or "model.vae") when something is missing, broken or of another
    family than the settings say.
    """

    def loader_of(found: Path) -> FamilyLoader:
        if not inpainting and reads_masks(found):
            raise inpainting_refused(model.base, "model.base")
        return _loader_for(found, model)

    folder = model_folder(model.base, model.revision, check=loader_of, events=events, inpainting=inpainting)
    loader = loader_of(folder)
    vae = _vae_folder(model.vae, folder, events) if model.vae else None
    if prediction_type == "auto" and events is not None:
        _tell_of_guess(model.base, folder, events)
    family = loader.load(
        folder,
        vae=vae,
        device=device,
        dtype=dtype,
        prediction_type=prediction_type,
        zero_terminal_snr=zero_terminal_snr,
    )
    return _on_its_threads(family)


def random_family(
    model: ModelSettings, size: Literal["demo", "full"], *, device: torch.device, dtype: torch.dtype
) -> Family:
    """A model with random weights, of the demo's size or the family's usual one; ``auto`` is the first family."""
    name = next(iter(FAMILIES)) if model.family == "auto" else model.family
    return _on_its_threads(FAMILIES[name].random(size, device=device, dtype=dtype))


def _on_its_threads(family: Family) -> Family:
    use_threads_for(sum(parameter.numel() for parameter in family.denoiser.parameters()))
    return family


def model_folder(
    base: str,
    revision: str | None,
    *,
    field: str = "model.base",
    check: Check | None = None,
    events: EventSink | None = None,
    inpainting: bool = False,
) -> Path:
    """The folder on this machine that ``demo``, a path or a hub id stands for.

    Hub models are downloaded once; a single file is made into a folder once, which ``events`` are told of.

    Args:
        base: what the settings give.
        revision: of a hub model.
        field: the setting that named it, for messages. For ``model.vae`` a folder may hold a VAE alone.
        check: looks at a hub model's settings before its weights are downloaded; raises UserError to refuse it.
        events: gets the progress and warnings.
        inpainting: whether a single file of an inpainting model will do.

    Raises UserError when it is none of these, or when what it names carries its own code.
    """
    path = MODEL_DIR if base == "demo" else Path(base).expanduser()
    if path.is_file():
        return model_folder_of(path, field=field, events=events, inpainting=inpainting)
    if not path.is_dir():
        return _hub_folder(base, revision, field, check, events)
    _refuse_own_code(path, field)
    if field != "model.vae" and not (path / "model_index.json").is_file():
        raise UserError("model.not_a_model", f"{field}: {base} is a folder, but not a model.", _LAYOUT_HINT, field)
    return path


def fetch_model(base: str, revision: str | None, events: EventSink | None = None) -> tuple[Path, str]:
    """The folder on this machine of a model that can be trained, downloaded where it is not there yet, and its family.

    Raises UserError as ``load_family`` does; nothing is loaded.
    """
    model = ModelSettings(base=base)
    folder = model_folder(base, revision, check=lambda found: _loader_for(found, model), events=events)
    _loader_for(folder, model)
    return folder, family_of(folder) or "unknown"


def reads_masks(folder: Path) -> bool:
    """Whether a model folder is of an inpainting model, whose denoiser reads a mask beside the picture."""
    return json_object(folder / "unet" / "config.json").get("in_channels") == INPAINTING_CHANNELS


def family_of(folder: Path) -> str | None:
    """The short name of the family that a model folder is of; None for none that is known."""
    return next((name for name, loader in FAMILIES.items() if loader.recognises(folder)), None)


def _hub_folder(base: str, revision: str | None, field: str, check: Check | None, events: EventSink | None) -> Path:
    if looks_like_a_file(base):
        raise UserError("model.not_found", f"{field}: there is no file {base}.", "Check the path.", field)
    if not HUB_ID.fullmatch(base):
        message = f"{field}: {base!r} is not a folder on this machine, and not a Hugging Face id (owner/name)."
        page = re.match(r"https?://[^/]+/([^/]+/[^/]+)", base)
        hint = f"Give its id alone: {page[1]}." if page else "Check the path, or use `demo`."
        raise UserError("model.not_found", message, hint, field)

    def look(folder: Path) -> None:
        _refuse_own_code(folder, field)
        if check is not None:
            check(folder)

    return hub_folder(HubModel(base, revision, field), vae=field == "model.vae", check=look, events=events)


def _vae_folder(vae: str, base_folder: Path, events: EventSink | None) -> Path:
    """The folder of another VAE for the model in ``base_folder``, whose latent scale a single file takes over."""
    path = Path(vae).expanduser()
    if not path.is_file():
        return model_folder(vae, None, field="model.vae")
    config = json_object(base_folder / "vae" / "config.json")
    if "scaling_factor" not in config:
        message = f"model.base: {base_folder}/vae/config.json gives no scaling_factor for the latents."
        raise UserError("model.broken", message, "Get the model again.", "model.base")
    return vae_folder_of(path, config["scaling_factor"], events=events)


def _tell_of_guess(base: str, folder: Path, events: EventSink) -> None:
    """A warning where the prediction type of a model made of a single file is only likely."""
    origin = json_object(folder / ORIGIN_FILE)
    if origin.get("guess"):
        warning = guess_warning(Path(base).name, origin["guess"])
        events.emit("warning", code=warning.code, message=warning.message, hint=warning.hint)


def _refuse_own_code(folder: Path, field: str) -> None:
    config = file_with_own_code(folder)
    if config is not None:
        message = f"{field}: {config.parent.name}/{config.name} asks for code of its own to be run."
        raise UserError("model.own_code", message, "Use a model in plain diffusers layout.", field)


def _loader_for(folder: Path, model: ModelSettings) -> FamilyLoader:
    """The loader of the family that the model is of. Raises UserError for a family other than the wanted one."""
    found = family_of(folder)
    if found is None:
        kind = json_object(folder / "model_index.json").get("_class_name", "unknown")
        known = ", ".join(loader.title for loader in FAMILIES.values())
        message = f"model.base: {model.base} is of a kind ({kind}) that cannot be trained here; known are {known}."
        raise UserError("model.family", message, f"Choose a model of {known}.", "model.base")
    if model.family not in ("auto", found):
        is_of = f"{model.base} is a model of {FAMILIES[found].title} ({found})"
        message = f"model.family: {model.family} is set, but {is_of}."
        raise UserError("model.family", message, f"Set it to auto or {found}, or choose another model.", "model.family")
    return FAMILIES[found]
