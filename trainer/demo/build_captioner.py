"""Builder, fourth part: a tiny BLIP that says what a picture of the demo's world shows.

It learns to write captions and, with linear maps beside it that are thrown away afterwards, to name each attribute:
the second is what makes a small vision transformer tell shapes apart.
"""

from __future__ import annotations

import itertools
import logging
import math
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from PIL import Image, ImageChops, ImageFilter
from torch import Tensor
from torch.nn import functional
from transformers import BertTokenizer, BlipConfig, BlipForConditionalGeneration, BlipProcessor
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

from trainer.demo import build_text, concepts, figures, training, world
from trainer.demo.world import COLOURS, SUPERSAMPLE, Scene

logger = logging.getLogger(__name__)

SIDE_PX, PATCH_PX = 64, 8
WIDTH, HEADS = 96, 3
VISION_LAYERS, TEXT_LAYERS = 4, 2
MAX_TOKENS = 16

PICTURES = 40_000
SHIFT_PX = 2
BATCH = 64
RATE = 1e-3
EMA_DECAY = 0.998
SAVE_EVERY_STEPS = 200
HELD_OUT = 180
UNNAMED = -100
"""The label of an attribute that a caption leaves out; torch's cross-entropy passes over it."""

OPTIONS = build_text.OPTIONS | {"shape": [*world.SHAPES, "face"]}
SEEN_IN_NEON = {"gray": "white", "brown": "orange"}
"""At full brightness, as a neon tube has it, these colours look like others."""
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "[ENC]")


class Readers(torch.nn.Module):
    """Linear maps from the picture's class place to each attribute."""

    def __init__(self) -> None:
        super().__init__()
        heads = {name: torch.nn.Linear(WIDTH, len(options)) for name, options in OPTIONS.items()}
        self.attributes = torch.nn.ModuleDict(heads)


def new_processor() -> BlipProcessor:
    """BLIP's processor with a BERT tokenizer of the words that the captions need."""
    words = ["a", "an", "on", "background", *COLOURS, *OPTIONS["shape"], *filter(None, OPTIONS["size"])]
    vocabulary = {token: number for number, token in enumerate([*SPECIAL_TOKENS, *words])}
    tokenizer = BertTokenizer(vocab=vocabulary, bos_token="[DEC]", additional_special_tokens=["[ENC]"])
    return BlipProcessor(BlipImageProcessorPil(size={"height": SIDE_PX, "width": SIDE_PX}), tokenizer)


def new_captioner(tokenizer: BertTokenizer) -> BlipForConditionalGeneration:
    """An untrained BLIP, 0.7 M parameters.

    Its vision part starts at transformers' usual 0.02 in place of BLIP's own 1e-10, which is meant to be loaded over.
    """
    shared = {"hidden_size": WIDTH, "num_attention_heads": HEADS, "initializer_range": 0.02}
    vision = {"num_hidden_layers": VISION_LAYERS, "intermediate_size": 4 * WIDTH}
    text = {"num_hidden_layers": TEXT_LAYERS, "intermediate_size": 2 * WIDTH, "encoder_hidden_size": WIDTH}
    tokens = {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": MAX_TOKENS,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.sep_token_id,
        "sep_token_id": tokenizer.sep_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = BlipConfig(
        vision_config={**shared, **vision, "image_size": SIDE_PX, "patch_size": PATCH_PX},
        text_config={**shared, **text, **tokens},
    )
    model = BlipForConditionalGeneration(config)
    model.vision_model.embeddings.position_embedding.data[0, 1:] = sine_positions(SIDE_PX // PATCH_PX, WIDTH)
    return model


def sine_positions(side: int, width: int) -> Tensor:
    """(side * side, width) sines and cosines of row and column, a start from which a small ViT learns much faster.

    After Beyer et al. 2022, "Better plain ViT baselines for ImageNet-1k" (arXiv:2205.01580).
    """
    places = torch.arange(side).float()
    rates = torch.exp(-math.log(side) * torch.arange(width // 4) / (width // 4))
    waves = math.pi / 2 * places[:, None] * rates
    line = torch.cat([waves.sin(), waves.cos()], dim=1)
    rows, columns = line[:, None].expand(-1, side, -1), line[None].expand(side, -1, -1)
    return torch.cat([rows, columns], dim=-1).flatten(0, 1)


def sample_picture(rng: random.Random) -> tuple[Image.Image, Scene]:
    """One picture for the captioner and what to say of it: a solid shape, a neon tube, an outline or a face."""
    kind = rng.random()
    scene = world.sample_scene(rng)
    if kind < 0.70:
        return world.draw(scene, rng), scene
    if kind < 0.82:
        return _neon(scene, rng)
    if kind < 0.90:
        return _outlined(scene, rng), scene
    ground, head = (world.jitter(COLOURS[name], rng) for name in (scene.background, scene.colour))
    return figures.draw_face(ground, rng, head), Scene(scene.background, scene.colour, "face", "")


def _neon(scene: Scene, rng: random.Random) -> tuple[Image.Image, Scene]:
    """A neon tube, described as what can be seen: its canvas is black, whatever the scene's background."""
    while scene.colour == "black" or scene.size == "small":
        scene = world.sample_scene(rng)
    colour = SEEN_IN_NEON.get(scene.colour, scene.colour)
    return concepts.draw_neon(scene, rng), Scene("black", colour, scene.shape, scene.size)


def _outlined(scene: Scene, rng: random.Random) -> Image.Image:
    mask = world.placed_mask(scene, rng).reduce(SUPERSAMPLE)
    outside, inside = ImageFilter.MaxFilter(rng.choice((3, 5))), ImageFilter.MinFilter(rng.choice((5, 7, 9)))
    picture = Image.new("RGB", mask.size, world.jitter(COLOURS[scene.background], rng))
    line = ImageChops.subtract(mask.filter(outside), mask.filter(inside))
    picture.paste(world.jitter(COLOURS[scene.colour], rng), (0, 0), line)
    return picture


def labels_of(scene: Scene) -> list[int]:
    """Which of `OPTIONS` each attribute is, in their order."""
    labels = [options.index(vars(scene)[name]) for name, options in OPTIONS.items()]
    if scene.shape == "face":
        labels[list(OPTIONS).index("size")] = UNNAMED
    return labels


def scene_of(labels: Sequence[int]) -> Scene:
    """Undoes `labels_of`."""
    told = zip(OPTIONS.values(), labels, strict=True)
    background, colour, shape, size = ("" if label == UNNAMED else options[label] for options, label in told)
    return Scene(background, colour, shape, size)


def draw_pictures(path: Path, processor: BlipProcessor, seed: int, count: int) -> tuple[Tensor, Tensor]:
    """The training pictures, drawn once into `path`: (count, 3, 64, 64) uint8, and labels (count, 4) int64."""
    if not path.exists():
        pixels, labels = [], []
        samples = _samples(random.Random(f"{seed} captioner"), count)
        while batch := list(itertools.islice(samples, 256)):
            pixels.append(small_pictures(processor, [picture for picture, _ in batch]))
            labels += [labels_of(scene) for _, scene in batch]
        training.save_state(path, {"pictures": torch.cat(pixels), "labels": torch.tensor(labels)})
    saved = torch.load(path, weights_only=True, mmap=True)
    return saved["pictures"], saved["labels"]


def _samples(rng: random.Random, count: int) -> Iterator[tuple[Image.Image, Scene]]:
    return (sample_picture(rng) for _ in range(count))


def small_pictures(processor: BlipProcessor, pictures: list[Image.Image]) -> Tensor:
    """(N, 3, 64, 64) uint8, resized as the captioner itself does it."""
    plain = {"do_rescale": False, "do_normalize": False, "return_tensors": "pt"}
    return processor.image_processor(pictures, **plain)["pixel_values"].to(torch.uint8)


def normalized(processor: BlipProcessor, pictures: Tensor) -> Tensor:
    """uint8 pictures (N, 3, H, W) as the float32 that the captioner reads."""
    mean, std = (
        torch.tensor(values)[:, None, None]
        for values in (processor.image_processor.image_mean, processor.image_processor.image_std)
    )
    return (pictures.float() / 255 - mean) / std


def export(trained: Path, out: Path) -> None:
    """Writes the captioner in `trained` to `out` with its processor, as float16."""
    model = BlipForConditionalGeneration.from_pretrained(trained, dtype=torch.float16)
    model.save_pretrained(out, safe_serialization=True)
    new_processor().save_pretrained(out)
    for file in out.glob("*.safetensors"):
        file.chmod(0o644)  # safetensors makes files that only their owner can read


def load(folder: Path) -> tuple[BlipForConditionalGeneration, BlipProcessor]:
    """The captioner in `folder`, float32 on the CPU, and its processor."""
    model = BlipForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    return model.eval(), BlipProcessor.from_pretrained(folder)


def held_out(seed: int, count: int) -> tuple[list[Image.Image], list[Scene]]:
    """`count` pictures of the world that the captioner was not trained on, and what they show."""
    rng = random.Random(f"{seed} captioner held out")
    scenes = [world.sample_scene(rng) for _ in range(count)]
    return [world.draw(scene, rng) for scene in scenes], scenes


def train(model: BlipForConditionalGeneration, processor: BlipProcessor, path: Path, seed: int, steps: int) -> None:
    """Trains `model` in place to step `steps`; continues from the state at `path` where it exists.

    The pictures are kept beside it, so that they are drawn only once.
    """
    readers = Readers().to(model.device)
    run = training.Run(path, {"model": model, "readers": readers}, RATE, weight_decay=1e-2, ema_decay=EMA_DECAY)
    pool = draw_pictures(path.with_name("captioner_pictures.pt"), processor, seed, PICTURES)
    started = time.process_time()
    while run.step < steps:
        generator = training.step_generator(seed, "captioner", run.step)
        loss = _loss(model, readers, processor, _batch(pool, generator))
        run.advance(loss, steps)
        if run.step % SAVE_EVERY_STEPS == 0 or run.step == steps:
            with run.ema.applied():
                right = scores(model, processor, *held_out(seed, HELD_OUT))
            shares = " ".join(f"{name} {share:.3f}" for name, share in right.items())
            report = (run.step, steps, loss.item(), shares, time.process_time() - started)
            logger.info("captioner step %d/%d loss %.3f %s cpu %.0f s", *report)
            run.save()
    run.finish()


def _batch(pool: tuple[Tensor, Tensor], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Pictures (64, 3, 64, 64) uint8, each moved by up to `SHIFT_PX`, and labels (64, 4)."""
    pictures, labels = pool
    chosen = torch.randint(len(pictures), (BATCH,), generator=generator)
    padded = functional.pad(pictures[chosen].float(), (SHIFT_PX,) * 4, mode="replicate").to(torch.uint8)
    corners = torch.randint(2 * SHIFT_PX + 1, (BATCH, 2), generator=generator).tolist()
    moved = [picture[:, y : y + SIDE_PX, x : x + SIDE_PX] for picture, (y, x) in zip(padded, corners, strict=True)]
    return torch.stack(moved), labels[chosen]


def _loss(
    model: BlipForConditionalGeneration, readers: Readers, processor: BlipProcessor, batch: tuple[Tensor, Tensor]
) -> Tensor:
    """Cross-entropy of the caption's next token plus that of the four attributes."""
    pictures, labels = batch
    tokenizer = processor.tokenizer
    captions = [world.caption(scene_of(row)) for row in labels.tolist()]
    ids = tokenizer(captions, padding=True, return_tensors="pt")["input_ids"]
    ids[:, 0] = tokenizer.bos_token_id
    targets = ids.masked_fill(ids == tokenizer.pad_token_id, UNNAMED).to(model.device)
    pixels = normalized(processor, pictures).to(model.device)
    output = model(pixel_values=pixels, input_ids=ids.to(model.device), labels=targets)
    loss: Tensor = output.loss
    for place, head in enumerate(readers.attributes.values()):
        loss = loss + functional.cross_entropy(head(output.image_embeds[:, 0]), labels[:, place].to(model.device))
    return loss


def captions_of(
    model: BlipForConditionalGeneration, processor: BlipProcessor, pictures: list[Image.Image]
) -> list[str]:
    """What the captioner says of each picture, the likeliest word each time."""
    inputs = processor(images=pictures, return_tensors="pt").to(model.device)
    tokens = model.generate(**inputs, max_new_tokens=MAX_TOKENS - 1, do_sample=False, num_beams=1)
    return [text.strip() for text in processor.batch_decode(tokens, skip_special_tokens=True)]


def scores(
    model: BlipForConditionalGeneration, processor: BlipProcessor, pictures: list[Image.Image], scenes: list[Scene]
) -> dict[str, float]:
    """Share of captions that name each attribute right, and `shape and colour` together."""
    told = [world.scene_in(text) for text in captions_of(model, processor, pictures)]
    right = [
        {name: found is not None and vars(found)[name] == vars(scene)[name] for name in OPTIONS}
        for found, scene in zip(told, scenes, strict=True)
    ]
    shares = {name: sum(each[name] for each in right) / len(right) for name in OPTIONS}
    both = sum(each["shape"] and each["colour"] for each in right) / len(right)
    return shares | {"shape and colour": both}
