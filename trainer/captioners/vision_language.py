"""Captioning with models that chat about pictures: one question for all of them, several pictures at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from trainer.captioners.answers import caption_of
from trainer.captioners.batches import Batches
from trainer.captioners.networks import check_packages, load_network, load_part
from trainer.captioners.options import WriterOptions
from trainer.captioners.processors import picture_processor
from trainer.captioners.prompts import TEMPLATES, fill
from trainer.captioners.weights import weights_folder
from trainer.config_base import setting
from trainer.errors import UserError


class ChatOptions(WriterOptions):
    """What is asked, and how freely it is answered."""

    prompt: str = setting(fill(TEMPLATES["prose"].text, ""), "Prompt", basic=True)
    """What the model is asked about each picture. {trigger} stands for the trigger word."""
    system_prompt: str = setting("", "System prompt")
    """What the model is told beforehand about its role; empty for none."""
    max_new_tokens: int = setting(256, "Longest caption in tokens", also=("max_tokens",), ge=1, le=4096)
    """A token is a short word or a part of a long one. What goes on longer ends with its last whole sentence."""
    longest_side_px: int | None = setting(1280, "Longest side that is read", ge=64, le=8192)
    """Larger pictures are made smaller for the model: each part that it looks at costs time and memory. Empty for no
    limit. Models that always read the same size do so."""
    temperature: float = setting(0.0, "Temperature", ge=0, le=2)
    """0: always the likeliest words, the same for the same picture. Higher: more varied, and less true."""
    top_p: float = setting(0.9, "Top-p", gt=0, le=1)
    """With a temperature: only the likeliest words count, which have this probability together."""
    seed: int = setting(0, "Seed", ge=0, le=2**32 - 1)
    """With a temperature: another seed, other captions."""
    strip_preamble: bool = setting(True, "Leave out introductions", basic=True)
    """ "Sure, here is a description:" and "The image shows" at the beginning are left out."""


class ChatCaptioner:
    """A loaded model with its question."""

    def __init__(self, network: Any, processor: Any, question: str, options: ChatOptions) -> None:
        """Take the parts; ``question`` is the whole conversation as the model reads it, up to its answer."""
        self._network = network
        self._processor = processor
        self._question = question
        self._options = options
        self._asked: Counter[Path] = Counter()
        self._batches = Batches(self._together)

    def captions(self, images: Sequence[Image.Image], paths: Sequence[Path]) -> list[str]:
        """An answer for each picture; with a temperature, another one for a picture that comes again.

        Raises UserError when not even one picture fits the memory.
        """
        texts = self._batches.captions(images, paths)
        self._asked.update(paths)
        return texts

    def _together(self, images: Sequence[Image.Image], paths: Sequence[Path]) -> list[str]:
        import torch

        inputs = self.inputs(images).to(self._network.device)
        for name, values in inputs.items():
            if torch.is_floating_point(values):
                inputs[name] = values.to(self._network.dtype)
        draws = [f"{path.name} {self._asked[path]}" for path in paths]
        with torch.inference_mode(), _random_state(self._options.seed, *draws):
            tokens = self._network.generate(**inputs, **self._generation())
        answers = tokens[:, inputs["input_ids"].shape[1] :]
        texts = self._processor.tokenizer.batch_decode(answers, skip_special_tokens=True)
        return [
            caption_of(text, cut_off=not self._ended(answer), strip_preamble=self._options.strip_preamble)
            for text, answer in zip(texts, answers, strict=True)
        ]

    def inputs(self, images: Sequence[Image.Image]) -> Any:
        """Tokens and pixels for pictures, each with the question; padded on the left, so that answers begin alike."""
        bos = self._processor.tokenizer.bos_token
        return self._processor(
            images=[[self._read(image)] for image in images],
            text=[self._question] * len(images),
            add_special_tokens=bos is None or not self._question.startswith(bos),  # templates write it themselves
            padding=True,
            return_tensors="pt",
        )

    def _read(self, image: Image.Image) -> Image.Image:
        longest = self._options.longest_side_px
        if longest is None or max(image.size) <= longest:
            return image
        return ImageOps.contain(image, (longest, longest), Image.Resampling.LANCZOS)

    def _generation(self) -> dict[str, Any]:
        options = self._options
        freely = options.temperature > 0
        return {
            "max_new_tokens": options.max_new_tokens,
            "do_sample": freely,
            "temperature": options.temperature if freely else None,
            "top_p": options.top_p if freely else None,
            "top_k": 0 if freely else None,
            "pad_token_id": self._processor.tokenizer.pad_token_id,
        }

    def _ended(self, answer: Any) -> bool:
        ends = self._network.generation_config.eos_token_id
        stops = {*(ends if isinstance(ends, list) else [ends]), self._processor.tokenizer.pad_token_id}
        return int(answer[-1]) in stops


def load_chat(options: ChatOptions, model_types: Collection[str], *, plain_messages: bool = False) -> ChatCaptioner:
    """Load a model that chats about pictures, on the GPU where there is one.

    Args:
        model_types: what ``config.json`` may say it is.
        plain_messages: whether the model's template wants a message as one text, and places the picture by itself.

    Raises:
        UserError: no prompt, or the weights are missing, broken or too large for the memory.
    """
    if not options.prompt.strip():
        raise UserError("caption.no_prompt", "prompt: nothing is asked.", "Say what to describe.", "prompt")
    check_packages(options)
    folder = weights_folder(options, model_types)

    from transformers import AutoModelForImageTextToText

    processor = picture_processor(folder, options)
    processor.tokenizer.padding_side = "left"
    if processor.tokenizer.pad_token is None:
        processor.tokenizer.pad_token = processor.tokenizer.eos_token
    question = load_part(options.model, lambda: _question(processor, options, plain_messages))
    if plain_messages and processor.image_token not in question:  # a template of the other kind
        question = load_part(options.model, lambda: _question(processor, options, False))
    return ChatCaptioner(load_network(folder, AutoModelForImageTextToText, options), processor, question, options)


def _question(processor: Any, options: ChatOptions, plain: bool) -> str:
    """The conversation up to the answer, in the words of the model's own template."""
    texts = {"system": options.system_prompt.strip(), "user": options.prompt.strip()}
    messages: list[dict[str, Any]] = [{"role": role, "content": text} for role, text in texts.items() if text]
    if not plain:
        for message in messages:
            picture = [{"type": "image"}] if message["role"] == "user" else []
            message["content"] = [*picture, {"type": "text", "text": message["content"]}]
    written = processor.tokenizer.apply_chat_template(
        messages,
        chat_template=processor.chat_template,
        tokenize=False,
        add_generation_prompt=True,
        enable_thinking=False,  # models that think aloud otherwise
    )
    return str(written)


@contextmanager
def _random_state(seed: int, *draws: str) -> Iterator[None]:
    """Random draws that depend on nothing else; torch's own state is as before afterwards."""
    import torch

    from trainer.devices import seeded_generator

    with torch.random.fork_rng():
        torch.manual_seed(seeded_generator(seed, *draws).initial_seed())
        yield
