"""Builder, second part: the CLIP text encoder, trained to tell what a caption says before the UNet has to read it.

A UNet that learns together with its text encoder binds shape words very late. Here the encoder first learns to hold
background, colour, shape and size at its end-of-text and padding places, from where plain linear maps can read them;
after that it stays frozen, as Stable Diffusion's does.
"""

from __future__ import annotations

import logging
import random
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from trainer.demo import training, world
from trainer.demo.tokenizer import MAX_TOKENS

logger = logging.getLogger(__name__)

WIDTH = 64
BATCH = 64
RATE = 2e-3
EMA_DECAY = 0.99
SAVE_EVERY_STEPS = 100
READ_PLACES = 4
"""At how many of the places from the end of text on a caption is read in one step."""
WORDS_WEIGHT = 0.3

OPTIONS = {
    "background": list(world.COLOURS),
    "colour": list(world.COLOURS),
    "shape": list(world.SHAPES),
    "size": list(world.SIZES),
}


class Readers(torch.nn.Module):
    """Linear maps from a hidden state to each attribute (the last class is "not said") and to the words said."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        heads = {name: torch.nn.Linear(WIDTH, len(options) + 1) for name, options in OPTIONS.items()}
        self.attributes = torch.nn.ModuleDict(heads)
        self.words = torch.nn.Linear(WIDTH, vocabulary)


def new_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """An untrained CLIPTextModel, 2 layers of width 64."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=MAX_TOKENS,
        projection_dim=WIDTH,
        hidden_act="quick_gelu",
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


def token_ids(tokenizer: CLIPTokenizer, captions: list[str]) -> Tensor:
    """(B, 77) int64 token numbers, padded with the end-of-text token."""
    options = {"padding": "max_length", "truncation": True, "return_tensors": "pt"}
    return tokenizer(captions, max_length=MAX_TOKENS, **options)["input_ids"]


def draw_captions(seed: int, stage: str, step: int, count: int) -> tuple[list[str], dict[str, Tensor]]:
    """`count` fresh captions and, for each attribute, which option each one says: (count,) int64."""
    rng = random.Random(f"{seed} {stage} {step}")
    texts: list[str] = []
    labels: dict[str, list[int]] = {name: [] for name in OPTIONS}
    for _ in range(count):
        scene = world.sample_scene(rng)
        caption = world.training_caption(scene, rng)
        texts.append(caption.text)
        for name, options in OPTIONS.items():
            said = name in caption.says
            labels[name].append(options.index(vars(scene)[name]) if said else len(options))
    return texts, {name: torch.tensor(numbers) for name, numbers in labels.items()}


def train(encoder: CLIPTextModel, tokenizer: CLIPTokenizer, path: Path, seed: int, steps: int) -> None:
    """Trains `encoder` in place to step `steps`; continues from the state at `path` where it exists."""
    readers = Readers(len(tokenizer)).to(encoder.device)
    modules = {"model": encoder, "readers": readers}
    run = training.Run(path, modules, RATE, weight_decay=1e-2, ema_decay=EMA_DECAY)
    started = time.process_time()
    while run.step < steps:
        texts, labels = draw_captions(seed, "text", run.step, BATCH)
        generator = training.step_generator(seed, "text", run.step)
        labels = {name: numbers.to(encoder.device) for name, numbers in labels.items()}
        loss = _loss(encoder, readers, token_ids(tokenizer, texts).to(encoder.device), labels, generator)
        run.advance(loss, steps)
        if run.step % SAVE_EVERY_STEPS == 0 or run.step == steps:
            with run.ema.applied():
                right = read_accuracy(encoder, readers, tokenizer, seed)
            shares = " ".join(f"{name} {share:.3f}" for name, share in right.items())
            report = (run.step, steps, loss.item(), shares, time.process_time() - started)
            logger.info("text step %d/%d loss %.3f %s cpu %.0f s", *report)
            run.save()
    run.finish()


@torch.no_grad()
def read_accuracy(encoder: CLIPTextModel, readers: Readers, tokenizer: CLIPTokenizer, seed: int) -> dict[str, float]:
    """Share of 256 held-out captions whose attributes are read right from the last padding place."""
    texts, labels = draw_captions(seed, "text held out", 0, 256)
    states = encoder(token_ids(tokenizer, texts).to(encoder.device)).last_hidden_state[:, -1]
    return {
        name: (head(states).argmax(-1).cpu() == labels[name]).float().mean().item()
        for name, head in readers.attributes.items()
    }


def _loss(
    encoder: CLIPTextModel, readers: Readers, ids: Tensor, labels: dict[str, Tensor], generator: torch.Generator
) -> Tensor:
    """Cross-entropy of the attributes plus a bag-of-words loss, read at random places from the end of text on."""
    states = encoder(ids).last_hidden_state
    end = (ids == ids[0, -1]).int().argmax(dim=1, keepdim=True)
    spread = torch.rand(len(ids), READ_PLACES, generator=generator).to(ids.device)
    places = end + (spread * (MAX_TOKENS - end)).long()
    read = states.gather(1, places[..., None].expand(-1, -1, WIDTH)).flatten(0, 1)
    loss = torch.zeros((), device=ids.device)
    for name, head in readers.attributes.items():
        loss = loss + functional.cross_entropy(head(read), labels[name].repeat_interleave(READ_PLACES))
    said = (
        torch.zeros(len(ids), readers.words.out_features, device=ids.device)
        .scatter_(1, ids, 1.0)
        .repeat_interleave(READ_PLACES, 0)
    )
    words = functional.binary_cross_entropy_with_logits(readers.words(read), said, reduction="none").sum(-1).mean()
    return loss + WORDS_WEIGHT * words / 10
