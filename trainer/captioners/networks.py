"""Loading networks of transformers for captioners: number format, quantized weights, device.

Heavy packages are imported when a function is called.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from trainer.captioners.options import WeightFormat, WriterOptions
from trainer.errors import UserError

T = TypeVar("T")


def load_part(model: str, load: Callable[[], T]) -> T:
    """What ``load`` loads of a model. Raises UserError where a file or a package for it is broken or missing."""
    from safetensors import SafetensorError

    try:
        return load()
    except ImportError as error:
        message = f"The captioner's model {model} needs another package. {_first_line(error)}"
        hint = "Install it into the environment of this program; where none is named, it is torchvision."
        raise UserError("caption.package_missing", message, hint, "model") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        from trainer.devices import is_out_of_memory

        if is_out_of_memory(error):
            message = f"The captioner's model {model} does not fit the memory."
            hint = "Set quantize to int8 or nf4, or choose a smaller model."
            raise UserError("caption.out_of_memory", message, hint, "quantize") from error
        message = f"The captioner's model {model} cannot be loaded: {_first_line(error)}"
        raise UserError("caption.model_broken", message, "Download it again.", "model") from error


def check_packages(options: WriterOptions) -> None:
    """Raises UserError when quantized weights are asked for without the package for them; before anything is loaded."""
    if options.quantize != "none" and find_spec("bitsandbytes") is None:
        message = f"quantize: {options.quantize} needs the package bitsandbytes, which is not installed."
        hint = "`pip install bitsandbytes`, or set quantize to none."
        raise UserError("caption.package_missing", message, hint, "quantize")


def load_network(folder: Path, network_class: Any, options: WriterOptions) -> Any:
    """A network of that class in evaluation mode, on the GPU where there is one.

    Raises:
        UserError: broken files or too little memory.
    """
    from trainer.devices import compute_dtype, pick_device

    device = pick_device()
    dtype = compute_dtype("auto", device)
    how: dict[str, Any] = {"dtype": dtype, "device_map": {"": device}, **_quantized(options.quantize, dtype)}
    network = load_part(
        options.model,
        lambda: network_class.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, **how
        ),
    )
    return network.eval()


def load_processor(folder: Path, processor_class: Any, options: WriterOptions) -> Any:
    """A processor or a part of one of that class. Raises UserError where its files are broken or missing."""
    return load_part(
        options.model,
        lambda: processor_class.from_pretrained(folder, local_files_only=True, trust_remote_code=False),
    )


def _quantized(kind: WeightFormat, dtype: Any) -> dict[str, Any]:
    """Arguments for weights in fewer bits; what looks at the picture stays as it is: it is small, and suffers most."""
    if kind == "none":
        return {}
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_8bit=kind == "int8",
        load_in_4bit=kind == "nf4",
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=[r"(?:.*\.)?(?:vision_tower|vision_model|visual|multi_modal_projector)", "lm_head"],
    )
    return {"quantization_config": config}


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
