"""Data sets of Hugging Face's ``datasets`` library as a new folder of pictures with caption files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from trainer.config import Source
from trainer.curation.picture_sets import out_problems
from trainer.data.datasets_library import HUB_PREFIX, is_library_dataset, library_rows
from trainer.errors import UserError
from trainer.outputs import new_output
from trainer.runs.events import EventSink

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")


@dataclass(frozen=True)
class Imported:
    """What came in. ``empty`` counts rows without a picture."""

    out: Path
    pictures: int
    captions: int
    empty: int


def import_set(source: Source, split: str | None, out: Path, events: EventSink) -> Imported:
    """Write a data set's pictures, byte for byte, and its captions into the new folder ``out``; all of it or nothing.

    Args:
        source: a name on the hub (``owner/name`` or ``hf://datasets/owner/name``, with ``@revision`` if need be), a
            folder that the library saved, or Parquet; and its columns, where they are not to be guessed.
        split: name of one; None for ``train``, or the only one there is.
        out: made by this.
        events: told ``progress``.

    Raises:
        UserError: the package, the data set, a column or the split is missing, the network does not answer, or ``out``
            exists.
    """
    if problems := out_problems(out, []):
        raise UserError.many(problems)
    source = source.model_copy(update={"path": library_path(source.path)})
    events.emit("progress", what="opening the data set", done=0, total=1)
    data = library_rows(source, "import", split)
    captions = empty = 0
    with new_output(out) as place:
        place.mkdir()
        for number, row in enumerate(data.rows):
            events.emit("progress", what="writing pictures", done=number, total=data.count)
            if row is None:
                empty += 1
                continue
            ending, picture, caption = row
            (place / f"{number:07}{ending}").write_bytes(picture)
            if caption is not None:
                captions += 1
                (place / f"{number:07}.txt").write_bytes(caption.encode("utf-8"))
        if empty == data.count:
            message = f"{source.path} has no pictures in its {data.count} rows."
            raise UserError("import.empty", message, "Choose another column or data set.", "path")
        if out.exists():  # made meanwhile by somebody else
            raise UserError.many(out_problems(out, []))
    events.emit("progress", what="writing pictures", done=data.count, total=data.count)
    return Imported(out, data.count - empty, captions, empty)


def library_path(given: str) -> str:
    """What the library is asked for: a path, or a name on the hub. Raises UserError when it is neither."""
    text = given.strip()
    if is_library_dataset(text):
        return text
    if _HUB_NAME.fullmatch(text) and not Path(text).expanduser().exists():
        return HUB_PREFIX + text
    if text and Path(text).expanduser().is_dir():
        message = f"{text} is a plain folder, not a data set of the datasets library."
        raise UserError("import.folder", message, "Open it as it is: nothing has to be imported.", "path")
    raise UserError(
        "import.unknown",
        f"{text!r} is neither a data set's name nor a folder or Parquet file of the datasets library.",
        "Example: hf://datasets/owner/name, with @revision behind it if need be.",
        "path",
    )
