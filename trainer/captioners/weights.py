"""Finding a captioner's weights: a folder on this machine, or a Hugging Face id that is downloaded once.

No model's own code is run: only safetensors and ONNX files are read, and a model for transformers that asks for Python
files of its own is refused.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from huggingface_hub import constants, snapshot_download
from huggingface_hub.file_download import repo_folder_name

from trainer.captioners.options import ModelOptions
from trainer.errors import UserError
from trainer.files import json_object
from trainer.hub_errors import HubModel, hub_error
from trainer.hub_names import HUB_ID
from trainer.own_code import file_with_own_code

_SETTINGS = ("*.json", "*.txt", "*.model", "*.jinja")
_WEIGHTS = ("*.safetensors",)
_TAGGER = ("*.json", "*.csv", "model.onnx", "model.onnx.data", "model.onnx_data")
_TOKENIZERS = ("tokenizer.json", "vocab.json", "vocab.txt", "tokenizer.model", "spiece.model")
_LEFT_OUT = ("*/*", "consolidated*")  # other formats of the same weights
_FIELD = "model"
_IN_SAFETENSORS = "Choose a version of it in safetensors; if its download broke off, start again."


def weights_folder(options: ModelOptions, model_types: Collection[str], *, writes: bool = True) -> Path:
    """The folder of a model for transformers, checked before its weights are downloaded or loaded.

    Args:
        options: the folder or the Hugging Face id.
        model_types: what its ``config.json`` may say it is.
        writes: whether it needs a tokenizer.

    Raises:
        UserError: not found, of another type, without safetensors, or asking for code of its own to be run.
    """
    folder = _local_folder(options.model)
    if folder is None:
        _check_config(_download(options, _SETTINGS), options.model, model_types)
        folder = _download(options, (*_SETTINGS, *_WEIGHTS))
    _check_config(folder, options.model, model_types)
    if not any(folder.glob("*.safetensors")):
        message = f"{options.model} has no .safetensors weights; other formats can hold code and are not read."
        raise UserError("caption.no_safetensors", message, _IN_SAFETENSORS, _FIELD)
    if writes and not any((folder / name).is_file() for name in _TOKENIZERS):  # transformers goes on with an empty one
        message = f"{options.model} has no tokenizer ({', '.join(_TOKENIZERS)})."
        raise UserError("caption.model_broken", message, "Download it again, with all its files.", _FIELD)
    return folder


def tagger_file(options: ModelOptions) -> Path:
    """The ONNX file of a tagger; its lists of tags lie beside it. Raises UserError: not found, none or several."""
    path = Path(options.model).expanduser()
    if path.is_file():
        if path.suffix != ".onnx":
            raise _no_tagger(f"{options.model} is no .onnx file.", options.model)
        return path
    folder = _local_folder(options.model) or _download(options, _TAGGER)
    if (folder / "model.onnx").is_file():
        return folder / "model.onnx"
    found = sorted(folder.glob("*.onnx"))
    if not found:
        raise _no_tagger(f"{options.model} holds no tagger (model.onnx is missing).", options.model)
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        message = f"{options.model} holds several taggers: {names}."
        raise UserError("caption.several_models", message, "Give the path of one of these files.", _FIELD)
    return found[0]


def has_weights(model: str) -> bool:
    """Whether weights of a folder, a file or a Hugging Face id are on this machine; looked up by file names only."""
    path = Path(model).expanduser()
    if path.is_file():
        return path.suffix == ".onnx"
    folders = [path]
    if HUB_ID.fullmatch(model):
        cached = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=model, repo_type="model"), "snapshots")
        folders += cached.glob("*")
    return any(found for folder in folders for kind in ("*.safetensors", "*.onnx") for found in folder.glob(kind))


def how_to_get(model: str) -> str:
    """What to do where weights are missing."""
    wanted = model if HUB_ID.fullmatch(model) else "OWNER/NAME"
    return (
        f"Where there is a network: `hf download {wanted} --local-dir FOLDER`; then give that folder as the model. "
        "Without one: the captioner `demo` is built in, for the demo's pictures; `filename` and `fixed` need no model."
    )


def _local_folder(model: str) -> Path | None:
    folder = Path(model).expanduser()
    return folder if folder.is_dir() else None


def _download(options: ModelOptions, patterns: Sequence[str]) -> Path:
    model = options.model
    if not HUB_ID.fullmatch(model):
        message = f"{model!r} is neither a folder on this machine nor a Hugging Face id (owner/name)."
        raise UserError("caption.model_not_found", message, "Check the path.", _FIELD)
    try:
        return Path(
            snapshot_download(
                model, revision=options.revision, allow_patterns=[*patterns], ignore_patterns=[*_LEFT_OUT]
            )
        )
    except Exception as error:
        told = hub_error(HubModel(model, options.revision, _FIELD), error)
        if told is None:
            raise
        problem = told.problems[0]
        raise UserError(
            "caption.model_not_found", problem.message, f"{problem.hint} {how_to_get(model)}", problem.field
        ) from error


def _check_config(folder: Path, model: str, model_types: Collection[str]) -> None:
    config = json_object(folder / "config.json")
    if not config:
        message = f"{model} is a folder, but holds no model (config.json is missing)."
        raise UserError("caption.not_a_model", message, how_to_get(model), _FIELD)
    asking = file_with_own_code(folder)
    if asking is not None:
        message = f"{model}: {asking.name} asks for code of its own to be run; that is not done."
        raise UserError("caption.own_code", message, "Choose a model that transformers knows by itself.", _FIELD)
    if config.get("model_type") not in model_types:
        message = f"{model} is a {config.get('model_type')} model; this captioner needs {' or '.join(model_types)}."
        raise UserError("caption.wrong_type", message, "Choose another model, or the captioner made for it.", _FIELD)


def _no_tagger(message: str, model: str) -> UserError:
    return UserError("caption.not_a_model", message, how_to_get(model), _FIELD)
