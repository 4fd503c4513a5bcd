"""Data sets of Hugging Face's ``datasets`` library, unpacked once into a folder of pictures. Never torch.

From there on they are a plain folder with a ``metadata.jsonl``. The library is optional.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from trainer.config import Source
from trainer.data.caption_tables import TEXT_COLUMNS
from trainer.data.image_files import PICTURE_ERRORS, is_picture_file, open_picture
from trainer.errors import UserError
from trainer.files import write_text
from trainer.outputs import scratch_beside

HUB_PREFIX = "hf://datasets/"
"""How a data set on the hub is named: ``hf://datasets/owner/name``, with ``@revision`` behind it if need be."""

_ENDINGS = {"PNG": ".png", "JPEG": ".jpg", "MPO": ".jpg", "WEBP": ".webp", "BMP": ".bmp"}


def is_library_dataset(path: str) -> bool:
    """Whether the library reads this: a name on the hub, a folder it saved, or Parquet without pictures beside it."""
    if path.startswith(HUB_PREFIX):
        return True
    place = Path(path).expanduser()
    if place.is_file():
        return place.suffix == ".parquet"
    return _is_saved(place) or (_has_parquet(place) and not any(map(is_picture_file, place.iterdir())))


@dataclass(frozen=True)
class LibraryRows:
    """The pictures and captions of a data set, row by row.

    Attributes:
        fingerprint: changes with the data set's content and the columns.
        count: number of rows, empty ones included.
        rows: each a (file ending, picture file's bytes, caption or None), or None where the picture is missing.
    """

    fingerprint: str
    count: int
    rows: Iterable[tuple[str, bytes, str | None] | None]


def library_rows(source: Source, field: str, split: str | None = None) -> LibraryRows:
    """Open a data set that ``is_library_dataset`` answers yes to.

    Args:
        source: its path and columns.
        field: dotted name of the source, for messages.
        split: name of one; None for ``train``, or the only one there is.

    Raises:
        UserError: the library is missing, the data set cannot be read, or has not the columns or the split asked for.
    """
    library = _library(source, field)
    data = _split(_load(library, source, field), source, field, split)
    columns = data.features
    image = _image_column(library, columns, source, field)
    text = _text_column(list(columns), source, field)
    kept = [name for name in (image, text) if name is not None]
    key = hashlib.sha256(json.dumps([data._fingerprint, image, text]).encode()).hexdigest()[:32]
    rows = data.select_columns(kept).cast_column(image, library.Image(decode=False))
    return LibraryRows(key, len(data), pictures_of(rows, image, text))


def unpacked_dataset(source: Source, field: str) -> Path:
    """The folder with the data set's pictures and captions; unpacked unless it is there already.

    It lies in the library's own cache, under a key of the data set's fingerprint and the columns. Raises what
    ``library_rows`` raises.
    """
    data = library_rows(source, field)
    folder = Path(_library(source, field).config.HF_DATASETS_CACHE) / "lora-atelier" / data.fingerprint
    if not folder.is_dir():
        unpack(data.rows, folder)
    return folder


def pictures_of(
    rows: Iterable[Mapping[str, Any]], image: str, text: str | None
) -> Iterator[tuple[str, bytes, str | None] | None]:
    """The pictures of rows as their files' bytes; None for a row without one.

    Args:
        rows: each with ``{"bytes": ..., "path": ...}`` under ``image``, one of the two given, and a caption.
        image: the column of the pictures.
        text: the column of the captions; None for none. Of several captions each becomes a line.
    """
    for row in rows:
        data = _bytes_of(row[image])
        yield None if data is None else (_ending(data), data, _caption_of(row[text]) if text is not None else None)


def unpack(rows: Iterable[tuple[str, bytes, str | None] | None], folder: Path) -> None:
    """Write pictures as numbered files, byte for byte, and a ``metadata.jsonl`` into a new folder; all or nothing."""
    with scratch_beside(folder) as whole:
        whole.mkdir()
        lines = []
        for number, row in enumerate(rows):
            if row is None:
                continue
            ending, data, caption = row
            name = f"{number:07}{ending}"
            (whole / name).write_bytes(data)
            if caption is not None:
                lines.append(json.dumps({"file_name": name, "text": caption}, ensure_ascii=False))
        write_text(whole / "metadata.jsonl", "\n".join(lines) + "\n")
        if not folder.is_dir():  # another process may have been faster
            whole.rename(folder)


def _is_saved(folder: Path) -> bool:
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def _has_parquet(folder: Path) -> bool:
    return any(folder.glob("*.parquet")) or any(folder.glob("data/*.parquet"))


def _library(source: Source, field: str) -> ModuleType:
    try:
        import datasets
    except ImportError as error:
        raise UserError(
            "dataset.library_missing",
            f"{field}.path: {source.path} is read by the package datasets, which is not installed.",
            "Install it with `.venv/bin/pip install datasets`, or save the pictures as files.",
            f"{field}.path",
        ) from error
    return datasets


def _load(library: ModuleType, source: Source, field: str) -> Any:
    """A data set, or several by the names of their splits."""
    place = Path(source.path).expanduser()
    library.disable_progress_bars()
    try:
        if source.path.startswith(HUB_PREFIX):
            name, _, revision = source.path.removeprefix(HUB_PREFIX).partition("@")
            return library.load_dataset(name, revision=revision or None)
        if _is_saved(place):
            return library.load_from_disk(str(place))
        if place.is_file():
            return library.load_dataset("parquet", data_files=str(place))
        return library.load_dataset(str(place))
    except (OSError, ValueError, library.exceptions.DatasetsError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(
            "dataset.library",
            f"{field}.path: the data set {source.path} cannot be read: {reason}",
            "Check its name or folder, and the network for one on the hub.",
            f"{field}.path",
        ) from error


def _split(loaded: Any, source: Source, field: str, wanted: str | None) -> Any:
    names = list(loaded) if isinstance(loaded, dict) else []
    if wanted is None and (not names or "train" in names or len(names) == 1):
        return loaded["train" if "train" in names else names[0]] if names else loaded
    if wanted in names:
        return loaded[wanted]
    listing = f"only {', '.join(names)}" if names else "and no others: it is one split by itself"
    raise UserError(
        "dataset.splits",
        f"{field}.path: {source.path} has no split `{wanted or 'train'}`, {listing}.",
        f"Name one of these: {', '.join(names)}." if names else "Leave the split out.",
        f"{field}.path",
    )


def _image_column(library: ModuleType, columns: Mapping[str, Any], source: Source, field: str) -> str:
    pictures = [name for name, kind in columns.items() if isinstance(kind, library.Image)]
    if source.image_column is None and pictures:
        return pictures[0]
    if source.image_column in pictures:
        return source.image_column
    asked = "no column of pictures" if source.image_column is None else f"no pictures in {source.image_column!r}"
    raise UserError(
        "dataset.image_column",
        f"{field}.image_column: {source.path} has {asked}; its columns are {', '.join(columns)}.",
        f"Name one of these: {', '.join(pictures)}." if pictures else "Choose another data set.",
        f"{field}.image_column",
    )


def _text_column(columns: list[str], source: Source, field: str) -> str | None:
    if source.caption_column is None:
        return next((name for name in TEXT_COLUMNS if name in columns), None)
    if source.caption_column in columns:
        return source.caption_column
    raise UserError(
        "dataset.caption_column",
        f"{field}.caption_column: {source.path} has no column {source.caption_column!r}, only {', '.join(columns)}.",
        "Name one of these.",
        f"{field}.caption_column",
    )


def _bytes_of(image: Mapping[str, Any] | None) -> bytes | None:
    """The picture file's bytes; None for an empty cell."""
    if image is None:
        return None
    data = image["bytes"]
    return Path(image["path"]).read_bytes() if data is None else bytes(data)


def _caption_of(value: Any) -> str | None:
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return "\n".join(value)
    return value if isinstance(value, str) else None


def _ending(data: bytes) -> str:
    """A damaged picture gets an ending too: it is named and left out like any other."""
    try:
        with open_picture(io.BytesIO(data)) as image:
            return _ENDINGS.get(image.format or "", ".png")
    except PICTURE_ERRORS:
        return ".png"
