"""BLIP-2 and Florence-2: the real path on tiny random models."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, AutoTokenizer, Florence2ForConditionalGeneration

from tests import tiny_blip, tiny_captioners
from trainer.captioners import CAPTIONERS
from trainer.captioners.kinds.florence2 import TASKS
from trainer.captioners.writer import Writer
from trainer.errors import UserError

TOKENS = 8


def pictures(*seeds: int) -> list[Image.Image]:
    return [Image.fromarray(np.random.default_rng(n).integers(0, 256, (40, 60, 3), dtype=np.uint8)) for n in seeds]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A tiny model of an architecture, built once."""

    @cache
    def build(architecture: str) -> Path:
        folder = tmp_path_factory.mktemp(architecture)
        tiny_captioners.ARCHITECTURES[architecture](folder)
        return folder

    return build


def loaded(kind: str, folder: Path, **options: Any) -> Writer:
    captioner = CAPTIONERS[kind].load(
        CAPTIONERS[kind].parse({"model": str(folder), "max_new_tokens": TOKENS, **options})
    )
    assert isinstance(captioner, Writer)
    return captioner


@pytest.mark.parametrize("kind", ["blip2", "florence2"])
def test_a_batch_says_what_each_picture_says(kind: str, model: Callable[[str], Path]) -> None:
    captioner = loaded(kind, model(kind))
    images = pictures(1, 2, 3)
    texts = captioner.captions(images, [Path("x.png")] * 3)
    assert [captioner.captions([image], [Path("x.png")])[0] for image in images] == texts
    assert all(texts)


@pytest.mark.parametrize(
    ("detail", "question"),
    [
        ("short", "What does the image describe?"),
        ("detailed", "Describe in detail what is shown in the image."),
        ("more detailed", "Describe with a paragraph what is shown in the image."),
    ],
)
def test_florence_reads_its_task_after_the_picture(
    detail: Any, question: str, model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The 17 marks of the picture, the task in words, and their ends; the answer is the likeliest of three beams."""
    folder = model("florence2")
    captioner = loaded("florence2", folder, detail=detail)
    generate, seen = captioner._network.generate, []

    def watched(**inputs: Any) -> Any:
        seen.append(inputs)
        return generate(**inputs)

    monkeypatch.setattr(captioner._network, "generate", watched)
    (text,) = captioner.captions(pictures(1), [Path("x.png")])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    written = "<image>" * 17 + "<|bos|>" + question + "<|im_end|>"
    assert seen[0]["input_ids"][0].tolist() == tokenizer(written, add_special_tokens=False).input_ids
    assert TASKS[detail] in AutoProcessor.from_pretrained(folder).task_prompts_without_inputs
    assert text.isalpha()


def test_florence_answers_with_the_likeliest_beam(model: Callable[[str], Path]) -> None:
    """Its score is at least that of the letters that are likeliest one by one."""
    folder = model("florence2")
    (text,) = loaded("florence2", folder, max_new_tokens=4).captions(pictures(1), [Path("x.png")])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    network = Florence2ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    inputs = AutoProcessor.from_pretrained(folder)(images=pictures(1), text=[TASKS["detailed"]], return_tensors="pt")

    def score(answer: str) -> float:
        start = [tokenizer.eos_token_id]
        tokens = torch.tensor([start + tokenizer(answer, add_special_tokens=False).input_ids])
        with torch.inference_mode():
            logits = network(**inputs, decoder_input_ids=tokens).logits[0, :-1]
            logits[:, network.generation_config.suppress_tokens] = -torch.inf
            return float(logits.log_softmax(-1).gather(1, tokens[0, 1:, None]).sum())

    greedy = ""
    for _ in range(len(text)):
        greedy += max("abcdefghijklmnopqrstuvwxyz", key=lambda letter: score(greedy + letter))
    assert score(text) >= score(greedy) - 1e-4


def test_blip2_goes_on_from_a_beginning(model: Callable[[str], Path]) -> None:
    texts = [
        loaded("blip2", model("blip2"), prompt=prompt).captions(pictures(1), [Path("x.png")])[0]
        for prompt in ("", "a photo of", "Question: what? Answer:")
    ]
    assert len(set(texts)) == 3


def test_memory_that_runs_out_for_one_picture_is_told(
    model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    captioner = loaded("blip2", model("blip2"))

    def full(**inputs: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")

    monkeypatch.setattr(captioner._network, "generate", full)
    with pytest.raises(UserError) as caught:
        captioner.captions(pictures(1, 2), [Path("x.png")] * 2)
    assert (caught.value.problems[0].code, caught.value.problems[0].field) == ("caption.out_of_memory", "batch_size")


@pytest.mark.parametrize("prompt", ["", "a photo of"])
def test_a_caption_is_never_longer_than_the_model_can_count(prompt: str, tmp_path: Path) -> None:
    captioner = loaded("blip", tiny_blip.build(tmp_path), max_new_tokens=500, prompt=prompt)
    captioner._network.config.text_config.sep_token_id = tiny_blip.WORDS.index("[MASK]")  # what ends a text never comes
    (text,) = captioner.captions([tiny_blip.plain_picture("red")], [Path("x.png")])
    assert 20 < len(text.split()) <= captioner._network.config.text_config.max_position_embeddings
