"""Finding a captioner's weights: a folder on this machine, or a Hugging Face id that is downloaded once."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from trainer.errors import UserError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_FILES = ["*.json", "*.txt", "*.model", "*.safetensors"]


def weights_folder(model: str, model_type: str) -> Path:
    """The folder that holds the model, checked before anything in it is loaded.

    Args:
        model: folder, or Hugging Face id.
        model_type: what its ``config.json`` must say it is.

    Raises:
        UserError: not found, of another type, without safetensors, or asking for code of its own to be run.
    """
    folder = Path(model).expanduser()
    if not folder.is_dir():
        folder = _download(model)
    config = _read_json(folder / "config.json")
    if not config:
        message = f"{model} is a folder, but holds no model (config.json is missing)."
        raise UserError("caption.not_a_model", message, _how_to_get(model), "model")
    for path in sorted(folder.glob("*.json")):
        if "auto_map" in _read_json(path):
            message = f"{model}: {path.name} asks for code of its own to be run; that is not done."
            raise UserError("caption.own_code", message, "Choose a model that transformers knows by itself.", "model")
    if config.get("model_type") != model_type:
        message = f"{model} is a {config.get('model_type')} model; this captioner needs {model_type}."
        raise UserError("caption.wrong_type", message, "Choose another model, or the captioner made for it.", "model")
    if not any(folder.glob("*.safetensors")):
        message = f"{model} has no .safetensors weights; other formats can hold code and are not read."
        raise UserError("caption.no_safetensors", message, "Choose a version of it in safetensors.", "model")
    return folder


def _download(model: str) -> Path:
    if not _HUB_ID.fullmatch(model):
        message = f"{model!r} is neither a folder on this machine nor a Hugging Face id (owner/name)."
        raise UserError("caption.model_not_found", message, "Check the path.", "model")
    try:
        return Path(snapshot_download(model, allow_patterns=_FILES))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        message = f"The captioner's model {model!r} is not on this machine, and could not be downloaded: {reason}."
        raise UserError("caption.model_not_found", message, _how_to_get(model), "model") from error


def _how_to_get(model: str) -> str:
    wanted = model if _HUB_ID.fullmatch(model) else "OWNER/NAME"
    return (
        f"Where there is a network: `hf download {wanted} --local-dir FOLDER`; then give that folder as the model. "
        "Without one, the captioners `filename` and `fixed` need no model."
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}
