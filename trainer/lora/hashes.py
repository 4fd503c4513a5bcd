"""The hashes that tools and sites know a LoRA file by, and whether those that it names are its own."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from trainer.errors import UserError
from trainer.single_file.header import LENGTH_BYTES, header_length

_WINDOW = range(0x100000, 0x110000)
"""The 64 KiB that the oldest tools hash."""
_BLOCK = 1 << 22


def file_sha256(path: Path) -> str:
    """The sha256 of a file's bytes. Raises UserError when it cannot be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    except OSError as error:
        message = f"{path.name} cannot be read: {error.strerror or error}."
        raise UserError("lora.broken", message, "Check the path.", "lora") from error
    return digest.hexdigest()


def file_hashes(path: Path, metadata: dict[str, str]) -> dict[str, Any]:
    """Hashes of a safetensors file, read once from start to end.

    ``sha256`` is that of the file; its first ten digits are AUTOMATIC1111's and Civitai's ``autov2``. ``autov3`` is the
    start of ``sshs_model_hash``, the SHA-256 of everything behind the header. ``sshs_legacy_hash`` is over 64 KiB at
    1 MiB of the file as it would be with ``ss_*`` metadata alone (sd-scripts, ``precalculate_safetensors_hashes``).
    The last two come with what the file itself says of them: ``{"said", "found", "right"}``, ``right`` None where it
    says nothing. Raises OSError.
    """
    whole, body, window = hashlib.sha256(), hashlib.sha256(), hashlib.sha256()
    with path.open("rb") as file:
        length = file.read(LENGTH_BYTES)
        head = file.read(header_length(length))
        whole.update(length + head)
        bare = _with_ss_metadata_alone(head)
        window.update(bare[_WINDOW.start : _WINDOW.stop])
        place = len(bare)
        while block := file.read(_BLOCK):
            whole.update(block)
            body.update(block)
            window.update(block[max(0, _WINDOW.start - place) : max(0, _WINDOW.stop - place)])
            place += len(block)
    return {
        "sha256": whole.hexdigest(),
        "autov2": whole.hexdigest()[:10],
        "autov3": body.hexdigest()[:12],
        "sshs_model_hash": _compared(metadata.get("sshs_model_hash"), body.hexdigest()),
        "sshs_legacy_hash": _compared(metadata.get("sshs_legacy_hash"), window.hexdigest()[:8]),
    }


def _compared(said: str | None, found: str) -> dict[str, Any]:
    return {"said": said, "found": found, "right": None if said is None else said.removeprefix("0x") == found}


def _with_ss_metadata_alone(head: bytes) -> bytes:
    table = json.loads(head)
    metadata = {key: value for key, value in table.pop("__metadata__", {}).items() if key.startswith("ss_")}
    if metadata:
        table = {"__metadata__": metadata, **table}
    text = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(LENGTH_BYTES, "little") + text
