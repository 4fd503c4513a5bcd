"""What would be sent to the Hugging Face Hub for a run or a LoRA file: decided and cleaned before anything goes."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from huggingface_hub import get_token

from trainer.config import Config
from trainer.data.image_files import open_picture
from trainer.errors import UserError
from trainer.hub_names import HUB_ID
from trainer.pictures import read_settings
from trainer.runs.store import Run
from trainer.sharing.card import CardFacts, SamplePicture, model_card
from trainer.sharing.private import (
    check_nothing_private,
    private_words,
    shared_metadata,
    shared_settings,
    with_metadata,
)
from trainer.sharing.settings import ShareSettings
from trainer.single_file.header import LENGTH_BYTES, header_length, read_header

CARD, SETTINGS, SAMPLES = "README.md", "settings.yaml", "samples"
_PREVIEW = re.compile(r"step-(?P<step>\d+)-p\d+-s\d+\.png")
_MODEL_FILES = (".safetensors", ".ckpt")


@dataclass(frozen=True)
class SentFile:
    """A file as it would be sent: its name in the repository, and its content or where that lies."""

    name: str
    content: Path | bytes

    @property
    def size_bytes(self) -> int:
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size


@dataclass(frozen=True)
class Contents:
    """All that would be sent.

    Attributes:
        repo: ``owner/name``.
        files: the card first.
        cleaned: whether the LoRA file is sent without what it tells of folders and pictures.
    """

    repo: str
    files: tuple[SentFile, ...]
    cleaned: bool

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)


@dataclass(frozen=True)
class Source:
    """A LoRA that may be shared: its file, and the run that made it, where there is one."""

    file: Path
    run: Run | None = None

    @property
    def name(self) -> str:
        """What it is called, in words that a repository may have."""
        name = self.run.read().name if self.run else self.file.stem
        return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")[:80] or "lora"


def source_of(given: Path) -> Source:
    """The LoRA of a run folder or file. Raises UserError where there is none."""
    path = given.expanduser().resolve()
    if path.is_dir():
        run = Run(path)
        if not run.output_path.is_file():
            message = f"{run.read().name} has no finished LoRA yet."
            raise UserError("share.no_lora", message, "Wait for its end, or share a checkpoint's lora.safetensors.")
        return Source(run.output_path, run)
    if path.suffix.lower() != ".safetensors" or not path.is_file():
        message = f"{given} is neither a run nor a LoRA file."
        raise UserError("share.no_lora", message, "Give a run folder, or a .safetensors file.")
    return Source(path)


@contextmanager
def contents_of(source: Source, settings: ShareSettings, repo: str) -> Iterator[Contents]:
    """What would be sent, for as long as it is needed. Raises UserError: the file is broken, or would tell a secret."""
    config = source.run.config() if source.run else None
    told = settings.describe_dataset or bool(config and config.output.describe_dataset)
    metadata = read_header(source.file, field="lora").metadata
    clean = shared_metadata(metadata, describe_dataset=told)
    name = source.file.name if source.run else _lora_name(source.file)
    with TemporaryDirectory(prefix="lora-atelier-share-") as scratch:
        lora = source.file
        if clean != metadata:
            lora = Path(scratch, name)
            with_metadata(source.file, clean, lora)
        pictures = dict(_samples(source.run, settings.samples))
        facts = CardFacts(
            repo=repo,
            title=clean.get("modelspec.title") or source.name,
            file=name,
            metadata=clean,
            base_model=settings.base_model or _base_model(config, clean),
            samples=tuple(pictures),
            note=settings.note,
            has_settings=config is not None,
        )
        files = [SentFile(CARD, model_card(facts).encode()), SentFile(name, lora)]
        if config is not None:
            text = shared_settings(config, describe_dataset=told, prompts=bool(pictures))
            files.append(SentFile(SETTINGS, text.encode()))
        files += [SentFile(each.name, data) for each, data in pictures.items()]
        _look_once_more(source, config, files)
        yield Contents(repo, tuple(files), cleaned=clean != metadata)


def _lora_name(file: Path) -> str:
    """A checkpoint's file is called after its step: all of them have the same name."""
    return f"{file.parent.name}.safetensors" if file.name == "lora.safetensors" else file.name


def _base_model(config: Config | None, metadata: dict[str, str]) -> str | None:
    """The hub's name of the model that was trained on; None where it was a file, a folder or the demo."""
    named = config.model.base if config else metadata.get("ss_sd_model_name", "")
    is_hub = HUB_ID.fullmatch(named) and not named.endswith(_MODEL_FILES) and not Path(named).exists()
    return named if is_hub else None


def _samples(run: Run | None, count: int) -> Iterator[tuple[SamplePicture, bytes]]:
    """The previews of the last step that has any, without what their files tell."""
    found = sorted(run.samples_dir.glob("*.png")) if run else []
    steps = {path: match["step"] for path in found if (match := _PREVIEW.fullmatch(path.name))}
    for path in [path for path in steps if steps[path] == max(steps.values())][:count]:
        told = read_settings(path)
        yield SamplePicture(f"{SAMPLES}/{path.name}", told.get("prompt", ""), told.get("negative", "")), _pixels(path)


def _pixels(path: Path) -> bytes:
    with open_picture(path) as image:
        bare = image.convert("RGB")
    bare.info.clear()
    data = io.BytesIO()
    bare.save(data, format="PNG")
    return data.getvalue()


def _look_once_more(source: Source, config: Config | None, files: list[SentFile]) -> None:
    places = [source.file.parent, *([source.run.dir, source.run.workspace.dir] if source.run else [])]
    words = private_words(config, places, get_token())
    for file in files:
        check_nothing_private(
            file.name, file.content if isinstance(file.content, bytes) else _head(file.content), words
        )


def _head(lora: Path) -> bytes:
    with lora.open("rb") as file:
        return file.read(header_length(file.read(LENGTH_BYTES)))


def as_rows(contents: Contents) -> list[dict[str, Any]]:
    """The files as plain values: ``name`` and ``size_bytes``."""
    return [{"name": file.name, "size_bytes": file.size_bytes} for file in contents.files]
