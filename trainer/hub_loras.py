"""LoRA files of the Hugging Face Hub: found by name, downloaded once, and read from there without a network.

Wherever a LoRA file is named, ``owner/name``, ``owner/name/file.safetensors`` and either with ``@revision`` will do.
Never torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from huggingface_hub import constants, hf_hub_download, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

from trainer.config import Config, LoraSettings
from trainer.errors import UserError
from trainer.files import home_path
from trainer.hub import check_disk, model_listing, progress_bar, tell_copy
from trainer.hub_calls import patient
from trainer.hub_errors import HubModel, hub_error, no_copy
from trainer.hub_names import HubFile, hub_file
from trainer.runs.events import EventSink
from trainer.sharing.card import base_model_of
from trainer.yaml_texts import YamlError, load_yaml

_ENDING = ".safetensors"
_CARD = "README.md"
_OF_MODELS = ("model_index.json", "config.json")
_MOST_SHOWN = 12


@dataclass(frozen=True)
class HubLora:
    """A LoRA of the hub on this machine.

    Attributes:
        name: names the very file.
        path: where it lies.
        base_model: what its card says that it was made for; None where it says nothing.
    """

    name: HubFile
    path: Path
    base_model: str | None


class SeveralLorasError(UserError):
    """A repository holds several LoRAs, and the name does not say which. ``choices`` are names that do."""

    def __init__(self, found: HubFile, files: list[str], field: str) -> None:
        self.choices = [HubFile(found.repo, file, found.revision) for file in sorted(files)]
        shown = ", ".join(sorted(files)[:_MOST_SHOWN]) + (" ..." if len(files) > _MOST_SHOWN else "")
        message = f"{field}: {found.repo} holds {len(files)} LoRA files: {shown}."
        super().__init__("lora.several", message, f"Name one of them: {self.choices[0]}", field)


def lora_file(name: str | Path, *, field: str = "lora", events: EventSink | None = None) -> Path:
    """Where a LoRA file lies; one of the hub is downloaded first. A place on this machine is not looked at.

    Raises UserError what ``fetch_lora`` raises.
    """
    found = hub_file(str(name))
    return home_path(name) if found is None else fetch_lora(found, field=field, events=events).path


def local_lora(name: str) -> Path:
    """Where a LoRA file lies, without a network. Raises UserError for one of the hub that is not on this machine."""
    found = hub_file(name)
    if found is None:
        return home_path(name)
    path = cached_lora(found)
    if path is None:
        message = f"{name} is not on this machine yet, or not all of it."
        raise UserError("lora.not_here", message, f"`trainer pull {name}` gets it, as does From the Hub on the page.")
    return path


def with_local_loras(config: Config, events: EventSink, *, begun: bool) -> Config:
    """The settings with the places of the LoRAs that they name; those of the hub are downloaded.

    ``begun``: the run has checkpoints, and needs no LoRA to start from. Raises UserError what ``fetch_lora`` raises.
    """
    lora: LoraSettings = config.lora
    first = lora.init_from
    if first is not None and not begun:
        first = str(lora_file(first, field="lora.init_from", events=events))
    merged = []
    for number, each in enumerate(lora.merge_before_training):
        path = lora_file(each.path, field=f"lora.merge_before_training.{number}.path", events=events)
        merged.append(each.model_copy(update={"path": str(path)}))
    update = {"lora": lora.model_copy(update={"init_from": first, "merge_before_training": merged})}
    return config.model_copy(update=update)


def fetch_lora(found: HubFile, *, field: str = "lora", events: EventSink | None = None) -> HubLora:
    """A LoRA of the hub, downloaded where it is not here. A copy here is used where the hub cannot be asked.

    Raises UserError: no such repository, file or revision, several files (``SeveralLorasError``), a model, one that
    needs permission, no network, a full disk.
    """
    model = HubModel(found.repo, found.revision, field)
    try:
        return _fetched(found, model, events)
    except UserError:
        raise
    except Exception as error:
        told = hub_error(model, error)
        if told is None:
            raise
        copy = _copy(found, field)
        if copy is None or told.problems[0].code in ("model.revision", "model.not_found"):
            raise told from error
        tell_copy(model, told, events)
        return copy


def cached_lora(found: HubFile) -> Path | None:
    """A LoRA that was downloaded before; None where it is not on this machine, or the name does not say which."""
    try:
        copy = _copy(found, "lora")
    except SeveralLorasError:
        return None
    return None if copy is None else copy.path


def cached_loras() -> list[HubFile]:
    """The LoRAs of the hub that are on this machine, by the names that tell them."""
    found = []
    for repository in sorted(Path(constants.HF_HUB_CACHE).glob("models--*--*")):
        repo = "/".join(repository.name.split("--")[1:3])
        folder = _snapshot(HubFile(repo))
        found += [HubFile(repo, file) for file in _loras_of(folder)] if folder is not None else []
    return found


def _fetched(found: HubFile, model: HubModel, events: EventSink | None) -> HubLora:
    pinned = re.fullmatch(r"[0-9a-f]{40}", found.revision or "")  # a commit never changes: nobody has to be asked
    if (constants.HF_HUB_OFFLINE or pinned) and (copy := _copy(found, model.field)) is not None:
        return copy
    if constants.HF_HUB_OFFLINE:
        raise no_copy(model)
    info = model_listing(model, events)
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
    name = _chosen(found, sizes, model.field)
    get = partial(hf_hub_download, found.repo, revision=found.revision)
    quiet = progress_bar(None, found.repo, 0)
    if _CARD in sizes:
        patient(partial(get, filename=_CARD, tqdm_class=quiet), events)
    if not isinstance(try_to_load_from_cache(found.repo, str(name.file), revision=info.sha), str):
        size = max(1, sizes[str(name.file)])
        check_disk(model, size)
        bar = progress_bar(events, found.repo, size)
        return HubLora(name, Path(patient(partial(get, filename=name.file, tqdm_class=bar), events)), _base_of(info))
    return HubLora(name, Path(get(filename=name.file, tqdm_class=quiet)), _base_of(info))


def _base_of(info: object) -> str | None:
    return base_model_of(getattr(info, "card_data", None))


def _base_in(card: Path) -> str | None:
    """What a card on this machine names; cards are written by anybody, and need not be right."""
    try:
        front = re.match(r"---\s*\n(.*?)\n---", card.read_text("utf-8"), re.DOTALL)
        return base_model_of(load_yaml(front[1])) if front else None
    except (OSError, UnicodeDecodeError, YamlError):
        return None


def _chosen(found: HubFile, names: Iterable[str], field: str) -> HubFile:
    """The file that is meant. Raises UserError where that is not clear, or it is not there."""
    there = set(names)
    if found.file is not None:
        if found.file in there:
            return found
        loras = ", ".join(sorted(name for name in there if name.endswith(_ENDING))[:_MOST_SHOWN]) or "none"
        message = f"{field}: {found.repo} has no file {found.file}."
        raise UserError("lora.no_file", message, f"Its .safetensors files: {loras}.", field)
    if not there.isdisjoint(_OF_MODELS):
        message = f"{field}: {found.repo} is a model, not a LoRA."
        raise UserError(
            "lora.is_model", message, "Choose it as the model; name the file of a LoRA that lies in it.", field
        )
    files = [name for name in there if name.endswith(_ENDING)]
    if not files:
        message = f"{field}: {found.repo} holds no .safetensors file."
        raise UserError("lora.no_file", message, "Choose another one.", field)
    if len(files) > 1:
        raise SeveralLorasError(found, files, field)
    return HubFile(found.repo, files[0], found.revision)


def _copy(found: HubFile, field: str) -> HubLora | None:
    folder = _snapshot(found)
    if folder is None:
        return None
    files = [found.file] if found.file is not None else _loras_of(folder)
    if len(files) > 1:
        raise SeveralLorasError(found, files, field)
    if not files or not (folder / files[0]).is_file():
        return None
    return HubLora(HubFile(found.repo, files[0], found.revision), folder / files[0], _base_in(folder / _CARD))


def _snapshot(found: HubFile) -> Path | None:
    """The folder of a revision in the cache; None where nothing of it was ever downloaded."""
    try:
        return Path(snapshot_download(found.repo, revision=found.revision, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None


def _loras_of(folder: Path) -> list[str]:
    if any((folder / name).is_file() for name in _OF_MODELS):
        return []
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob(f"*{_ENDING}") if path.is_file())
