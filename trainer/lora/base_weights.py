"""The weights of a base model by the keys that LoRA files have for its layers, each read when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from trainer.errors import UserError
from trainer.lora.keys import PREFIXES, kohya_key, sdxl_key
from trainer.lora.tensor_file import open_tensors


class BaseWeights:
    """An open model folder, as a function from a layer's kohya key to its weight."""

    def __init__(self, places: dict[str, tuple[Any, str]], name: str, field: str) -> None:
        self._places = places
        self._name = name
        self._field = field

    def __call__(self, module: str) -> Tensor:
        """The weight of a layer. Raises UserError when the model has no such layer."""
        place = self._places.get(module) or self._places.get(sdxl_key(module))
        if place is None:
            message = f"{self._field}: {self._name} has no layer {module}."
            raise UserError("merge.no_fit", message, "Use the model that the LoRA was made for.", self._field)
        file, name = place
        return file.get_tensor(name)


@contextmanager
def open_base_weights(folder: Path, *, field: str) -> Iterator[BaseWeights]:
    """Open a model folder in diffusers layout. Raises UserError(field) when it has no weights that can be read."""
    sdxl = (folder / "text_encoder_2").is_dir()
    places: dict[str, tuple[Any, str]] = {}
    with ExitStack() as stack:
        for part in (part for part in PREFIXES if (folder / part).is_dir()):
            for path in sorted((folder / part).glob("*.safetensors")):
                file = stack.enter_context(open_tensors(path))
                names = (name for name in file.keys() if name.endswith(".weight"))  # noqa: SIM118
                places |= {kohya_key(part, name[: -len(".weight")], sdxl=sdxl): (file, name) for name in names}
        if not places:
            message = f"{field}: {folder} has no .safetensors weights."
            raise UserError("model.no_safetensors", message, "Save the model as safetensors first.", field)
        yield BaseWeights(places, folder.name, field)
