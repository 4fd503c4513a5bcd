"""Processors of models that chat about pictures, also where torchvision is missing.

Transformers builds the processors of Qwen-VL, SmolVLM, Gemma 4 and others with a part for videos, and that part needs
torchvision. Captions need pictures only: without torchvision the same class is made without that part, and with the
part for pictures that works on Pillow. The tokens are those of the whole processor, as its own code writes them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainer.captioners.networks import load_part, load_processor
from trainer.captioners.options import WriterOptions


def picture_processor(folder: Path, options: WriterOptions) -> Any:
    """The model's processor. Raises UserError where its files are broken or missing."""
    from transformers import AutoProcessor
    from transformers.utils import is_torchvision_available

    if is_torchvision_available():
        return load_processor(folder, AutoProcessor, options)
    return load_part(options.model, lambda: _without_videos(folder))


def _without_videos(folder: Path) -> Any:
    from transformers import AutoConfig, AutoImageProcessor, AutoProcessor, AutoTokenizer
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

    whole: Any = PROCESSOR_MAPPING[type(AutoConfig.from_pretrained(folder, local_files_only=True))]
    if "video_processor" not in whole.get_attributes():
        return AutoProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    needed = {"image_processor": AutoImageProcessor, "tokenizer": AutoTokenizer}
    parts = [
        needed[name].from_pretrained(folder, local_files_only=True, trust_remote_code=False) if name in needed else None
        for name in whole.get_attributes()
    ]
    settings, _ = whole.get_processor_dict(folder, local_files_only=True)
    processor = _for_pictures(whole).from_args_and_dict(parts, settings)
    if processor.chat_template is None:
        processor.chat_template = processor.tokenizer.chat_template
    return processor


def _for_pictures(whole: Any) -> Any:
    """The class with nothing in the place of its parts for videos and sound."""

    class ForPictures(whole):
        def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
            return None if argument is None else super().check_argument_for_proper_class(argument_name, argument)

    return ForPictures
