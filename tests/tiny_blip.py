"""A BLIP small enough to be trained in a test: it tells red pictures from blue ones, in BLIP's own file layout."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from transformers import BertTokenizer, BlipConfig, BlipForConditionalGeneration, BlipProcessor
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "[ENC]", "a", "photo", "of", "red", "blue", "picture"]
COLOURS = {"red": (220, 30, 30), "blue": (30, 40, 210)}
SIDE_PX = 16
STEPS = 60


def plain_picture(colour: str) -> Image.Image:
    """A picture of one colour."""
    return Image.new("RGB", (24, 20), COLOURS[colour])


def build(folder: Path) -> Path:
    """Train the model and save it with its processor into ``folder``; returns the folder."""
    processor = _processor()
    model = BlipForConditionalGeneration(_config())
    for name, parameter in model.named_parameters():
        generator = torch.Generator().manual_seed(sum(name.encode()))
        if parameter.dim() > 1:
            parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    _train(model, processor)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _processor() -> BlipProcessor:
    vocabulary = {word: number for number, word in enumerate(WORDS)}
    tokenizer = BertTokenizer(vocab=vocabulary, bos_token="[DEC]", additional_special_tokens=["[ENC]"])
    return BlipProcessor(BlipImageProcessorPil(size={"height": SIDE_PX, "width": SIDE_PX}), tokenizer)


def _config() -> BlipConfig:
    shared = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {
        "vocab_size": len(WORDS),
        "encoder_hidden_size": 32,
        "max_position_embeddings": 32,
        "bos_token_id": 5,
        "pad_token_id": 0,
        "eos_token_id": 3,
        "sep_token_id": 3,
        "attention_probs_dropout_prob": 0.0,
        "hidden_dropout_prob": 0.0,
        "label_smoothing": 0.0,
    }
    vision = {"image_size": SIDE_PX, "patch_size": 8}
    return BlipConfig(text_config={**shared, **text}, vision_config={**shared, **vision})


def _train(model: BlipForConditionalGeneration, processor: BlipProcessor) -> None:
    texts = [f"a photo of a {colour} picture" for colour in COLOURS]
    batch = processor(images=[plain_picture(colour) for colour in COLOURS], text=texts, return_tensors="pt")
    batch["input_ids"][:, 0] = WORDS.index("[DEC]")
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(STEPS):
        loss = model(**batch, labels=batch["input_ids"]).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
