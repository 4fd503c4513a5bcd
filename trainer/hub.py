"""Models of the Hugging Face Hub: what is needed of them is downloaded once, and found again without a network.

Never torch. Of the versions of a part's weights one is fetched (``weight_files.py``); pictures, flax and onnx files and
the safety checker never. Settings come first, so that a model of a wrong kind is told before gigabytes of it are here.
"""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from tqdm import tqdm

from trainer.errors import UserError
from trainer.files import read_json
from trainer.hub_calls import patient
from trainer.hub_errors import HubModel, disk_full, hub_error, no_copy
from trainer.runs.events import EventSink
from trainer.weight_files import WeightFiles, choose_weights, weights_in

_WEIGHED = ("unet", "vae", "text_encoder", "text_encoder_2")
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
)
_SETTINGS = {
    "": ("model_index.json",),
    "scheduler": ("scheduler_config.json",),
    "tokenizer": _TOKENIZER_FILES,
    "tokenizer_2": _TOKENIZER_FILES,
    **dict.fromkeys(_WEIGHED, ("config.json",)),
}
_SPARE_BYTES = 256 << 20
_PATIENCE_S = 15.0  # for the hub's first answer
_SHOWN = 3
_MB = 1_000_000

Check = Callable[[Path], object]
"""Looks at a folder that holds a model's settings only; raises UserError when it cannot be used."""


def hub_folder(model: HubModel, *, vae: bool = False, check: Check, events: EventSink | None = None) -> Path:
    """The folder of a hub model on this machine, downloaded where it is not there yet.

    Args:
        model: what is wanted.
        vae: only its VAE is needed; it may also be a repository that holds nothing else.
        check: called before weights are downloaded.
        events: gets the progress, and a warning where the hub could not be asked and the copy here is used.

    Raises UserError: no such model or revision, one that needs permission, no network, a full disk, not a model.
    """
    try:
        return _download(model, vae, check, events)
    except UserError:
        raise
    except Exception as error:
        told = hub_error(model, error)
        if told is None:
            raise
        folder = cached_folder(model.repo, model.revision, vae=vae)
        if folder is None or told.problems[0].code == "model.revision":
            raise told from error
        check(folder)
        tell_copy(model, told, events)
        return folder


def tell_copy(model: HubModel, told: UserError, events: EventSink | None) -> None:
    """Warn that the hub could not be asked, and a copy here is used. Who switched it off need not be told."""
    if events is not None and not constants.HF_HUB_OFFLINE:
        reason = told.problems[0].message.removeprefix(f"{model.field}: ")
        message = f"The copy of {model.repo} on this machine is used. The hub could not be asked: {reason}"
        events.emit("warning", code=told.problems[0].code, message=message, hint=told.problems[0].hint)


def cached_folder(repo: str, revision: str | None, *, vae: bool = False) -> Path | None:
    """The folder of a model that was downloaded before; None where it is not, or not completely, on this machine."""
    for marker in ("config.json", "vae/config.json") if vae else ("model_index.json",):
        try:
            found = try_to_load_from_cache(repo, marker, revision=revision)
        except HFValidationError:  # the hub has no such names
            return None
        if isinstance(found, str):
            folder = Path(found.removesuffix(marker))
            return None if _missing(folder, vae) else folder
    return None


def _download(model: HubModel, vae: bool, check: Check, events: EventSink | None) -> Path:
    pinned = re.fullmatch(r"[0-9a-f]{40}", model.revision or "")  # a commit never changes: nobody has to be asked
    if constants.HF_HUB_OFFLINE or pinned:
        folder = cached_folder(model.repo, model.revision, vae=vae)
        if folder is not None:
            check(folder)
            return folder
    if constants.HF_HUB_OFFLINE:
        raise no_copy(model)
    info = model_listing(model, events)
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
    parts = _parts_of(model, sizes, vae)
    settings = [name for part in parts for name in _settings_of(part) if name in sizes]
    quiet = progress_bar(None, model.repo, 0)
    get = partial(snapshot_download, model.repo)
    known = partial(get, revision=model.revision, allow_patterns=settings, tqdm_class=quiet)
    folder = Path(patient(known, events))
    check(folder)
    weights = [name for part in parts if _has_weights(part) for name in _weights_of(model, part, sizes)]
    missing = [name for name in weights if not (folder / name).is_file()]
    if missing:
        needed = sum(sizes[name] for name in missing)
        check_disk(model, needed)
        progress = progress_bar(events, model.repo, needed)
        patient(partial(get, revision=info.sha, allow_patterns=missing, tqdm_class=progress), events)
    return folder


def model_listing(model: HubModel, events: EventSink | None) -> Any:
    """What the hub says about a repository: ``sha``, ``siblings`` with sizes, ``card_data``. Raises what it refuses."""
    ask = partial(HfApi().model_info, model.repo, revision=model.revision, files_metadata=True, timeout=_PATIENCE_S)
    return patient(ask, events)


def _parts_of(model: HubModel, names: Iterable[str], vae: bool) -> list[str]:
    """The folders that are needed; the empty name is the repository itself. Raises UserError for what is no model."""
    there = set(names)
    if vae:
        for part in ("", "vae"):
            if f"{part}/config.json".lstrip("/") in there and choose_weights(_names_in(part, there)):
                return [part]
        message = f"{model.field}: {model.repo} holds no VAE in diffusers layout."
        raise UserError("model.not_a_model", message, "Choose a VAE, or a model whose VAE is meant.", model.field)
    if "model_index.json" in there:
        return ["", *(part for part in _SETTINGS if part and any(name.startswith(f"{part}/") for name in there))]
    single = sorted(name for name in there if name.endswith((".safetensors", ".ckpt")))
    message = f"{model.field}: {model.repo} is no model in diffusers layout (it has no model_index.json)."
    hint = "Choose one that is."
    if single:
        shown = ", ".join(single[:_SHOWN]) + (" ..." if len(single) > _SHOWN else "")
        hint = f"It holds files ({shown}): download the one you want, and give its path."
    raise UserError("model.not_a_model", message, hint, model.field)


def _settings_of(part: str) -> list[str]:
    names = (*_SETTINGS[part], "config.json") if part == "" else _SETTINGS[part]
    return [f"{part}/{name}".lstrip("/") for name in names]


def _has_weights(part: str) -> bool:
    return part in ("", *_WEIGHED)


def _weights_of(model: HubModel, part: str, names: Iterable[str]) -> list[str]:
    chosen = choose_weights(_names_in(part, names))
    if chosen is None:
        if part == "":
            return []  # a whole model has none beside its parts
        raise _incomplete(model, f"its {part.replace('_', ' ')} has no weights that can be read here")
    if chosen.missing:
        raise _incomplete(model, f"{chosen.missing[0]} of its {part.replace('_', ' ') or 'weights'} is missing")
    return [f"{part}/{name}".lstrip("/") for name in chosen.files]


def _incomplete(model: HubModel, what: str) -> UserError:
    message = f"{model.field}: {model.repo} is incomplete on the hub: {what}."
    return UserError("model.broken", message, "Choose another copy of the model.", model.field)


def _names_in(part: str, names: Iterable[str]) -> list[str]:
    """Names of the files that lie directly in a folder of the repository."""
    prefix = f"{part}/" if part else ""
    inside = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
    return [name for name in inside if "/" not in name]


def _missing(folder: Path, vae: bool) -> bool:
    """Whether a folder in the cache lacks something, as after a download that broke off."""
    if vae:
        alone = (folder / "config.json").is_file() and not (folder / "model_index.json").is_file()
        return not _complete(folder if alone else folder / "vae")
    try:
        index: dict[str, Any] = read_json(folder / "model_index.json")
    except (OSError, ValueError):
        return True
    wanted = [part for part in _WEIGHED if part in index and index[part] != [None, None]]
    return not all(_complete(folder / part) for part in wanted)


def _complete(folder: Path) -> bool:
    try:
        chosen: WeightFiles | None = weights_in(folder)
    except OSError:
        return False
    return chosen is not None and not chosen.missing and (folder / "config.json").is_file()


def check_disk(model: HubModel, needed: int) -> None:
    """Raise UserError when the disk of the cache has no room for so many bytes more."""
    place = Path(constants.HF_HUB_CACHE)
    while not place.is_dir():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < needed + _SPARE_BYTES:
        raise disk_full(model, f": it needs {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free")


def progress_bar(events: EventSink | None, repo: str, total_bytes: int) -> type:
    """A class in tqdm's place that tells the bytes that have come as events, and draws no bar."""

    class Progress(tqdm):
        def __init__(self, *args: Any, **options: Any) -> None:
            # of the bars that the hub's library makes, this one counts bytes in files
            self._counts = options.get("unit") == "B" and options.get("desc") != "Downloading bytes"
            self._done = 0
            options.pop("name", None)
            super().__init__(*args, **options | {"disable": True})

        def update(self, n: float | None = 1) -> None:
            before, self._done = self._done, self._done + int(n or 0)
            if self._counts and events is not None and 100 * self._done // total_bytes > 100 * before // total_bytes:
                done, total = (math.ceil(min(count, total_bytes) / _MB) for count in (self._done, total_bytes))
                events.emit("progress", what=f"downloading {repo}, MB", done=done, total=total)

    return Progress
