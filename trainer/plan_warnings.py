"""What a person should look at before starting a run. Never torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from trainer.config import Config, TrainSettings
from trainer.config_training import OWN_RATE
from trainer.data.epoch import Layout, views_per_bucket
from trainer.data.folders import repeats_folder
from trainer.data.picture_notes import PictureNote, PictureNotes
from trainer.errors import Problem
from trainer.model_sizes import ModelSizes
from trainer.plan_disk import conversion_bytes, free_disk_bytes
from trainer.plan_fixes import Situation
from trainer.single_file.cache import cache_dir, looks_like_a_file
from trainer.single_file.kinds import guess_warning, prediction_guess

_NAMED = 3
_MANY_REPEATS = 100


def find_warnings(situation: Situation, sizes: ModelSizes) -> list[Problem]:
    """All warnings, those about the data first; none of them keeps a run from starting."""
    config, layout, notes = situation.config, situation.layout, situation.notes
    return [
        *layout.collection.warnings,
        *_about_pictures(notes),
        *_about_captions(config, layout, notes),
        *_about_folders(config, layout),
        *_about_steps(config, layout, situation.steps, situation.batches),
        *about_optimizer(config.train),
        *about_model(config, sizes),
    ]


def about_optimizer(train: TrainSettings) -> Iterator[Problem]:
    """What is allowed of an optimizer and its rates and probably not meant."""
    if not train.learning_rate and not train.text_encoder_learning_rate:
        message = "train.learning_rate: it is 0, so nothing is learned."
        yield Problem("train.nothing_learns", message, "Set it to 1e-4, to begin with.", "train.learning_rate")
    if train.optimizer in OWN_RATE and train.learning_rate != 1:
        given = f"{train.learning_rate:g}"
        message = f"train.learning_rate: {train.optimizer} multiplies the rate it finds with {given}; 1 is usual."
        yield Problem("optimizer.own_rate", message, "Set train.learning_rate to 1.", "train.learning_rate")


def about_processes(config: Config, processes: int) -> Iterator[Problem]:
    """What is asked for and takes several processes, where one trains."""
    if config.model.share_out and processes == 1:
        message = "model.share_out: one process holds the whole model; it takes several to share it out."
        hint = "Train on several GPUs together, or set model.quantize or model.offload instead."
        yield Problem("model.nobody_to_share_with", message, hint, "model.share_out")


def _about_pictures(notes: PictureNotes) -> Iterator[Problem]:
    if notes.skipped:
        yield _named("dataset.skipped_picture", "left out", notes.skipped, "Replace or remove them.")
    if notes.cropped:
        hint = "Crop them yourself, or choose a smaller dataset.buckets.step."
        yield _named("dataset.heavy_crop", "cropped by more than a quarter", notes.cropped, hint, "dataset.buckets")
    if notes.enlarged:
        hint = "Enlarged pictures teach blur; find larger ones, or lower the resolution."
        yield _named("dataset.enlarged", "enlarged", notes.enlarged, hint, "dataset.resolution")
    if notes.small:
        hint = "Small pictures teach coarse detail; find larger ones, lower the resolution or dataset.buckets.step."
        what = "trained at less than half of the resolution's area"
        yield _named("dataset.small", what, notes.small, hint, "dataset.resolution")


def _about_captions(config: Config, layout: Layout, notes: PictureNotes) -> Iterator[Problem]:
    field = "dataset.captions"
    if notes.without_caption:
        hint = "Write captions on the Dataset tab, or give the folder a class prompt."
        yield _named("dataset.no_caption", "without a caption", notes.without_caption, hint, field)
    if notes.empty_caption:
        yield _named("dataset.empty_caption", "with an empty caption", notes.empty_caption, "Write captions.", field)
    if notes.long_caption:
        what = f"with a caption longer than {config.dataset.captions.max_token_length} tokens; the rest is not read"
        hint = "Shorten them, or raise dataset.captions.max_token_length."
        yield _named("dataset.long_caption", what, notes.long_caption, hint, field)
    trigger = config.output.trigger
    read = []
    for entry in layout.training:
        if not entry.picture.is_regularization:
            captions = config.dataset.captions_of(entry.picture.source)
            read += [captions.prefix, entry.picture.caption, captions.suffix]
    if trigger and not any(trigger.lower() in text.lower() for text in read):
        message = f"output.trigger: {trigger!r} is in no caption, so it will not be learned."
        yield Problem("output.trigger_unused", message, "Put it into the captions or the prefix.", "output.trigger")


def _about_folders(config: Config, layout: Layout) -> Iterator[Problem]:
    for number, source in enumerate(config.dataset.sources):
        found = repeats_folder(Path(source.path).name)
        if found and source.repeats == 1 and found[0] != 1:
            message = f"{source.path} is itself named for {found[0]} repeats; only folders inside a source count."
            hint = f"Set its repeats to {found[0]}, or choose the folder around it."
            yield Problem("dataset.repeats_folder", message, hint, f"dataset.sources.{number}.repeats")
    most = max(layout.training, key=lambda entry: entry.picture.repeats).picture
    if most.repeats > _MANY_REPEATS:
        message = f"{most.path.parent} gives {most.repeats} repeats, so one epoch is very long."
        hint = "A folder named like 2024_summer means 2024 repeats: rename it if that is not meant."
        yield Problem("dataset.many_repeats", message, hint, "dataset.sources")
    if layout.unused:
        message = f"{len(layout.unused)} regularization pictures are not used: there are fewer training pictures."
        yield Problem("dataset.unused_regularization", message, "Raise the repeats of the training pictures.")


def _about_steps(config: Config, layout: Layout, steps: int, batches: int) -> Iterator[Problem]:
    train = config.train
    thin = [size for size, views in views_per_bucket(layout.training).items() if views < train.batch_size]
    if thin:
        shown = ", ".join(f"{width} x {height}" for width, height in thin[:_NAMED])
        buckets = "1 bucket holds" if len(thin) == 1 else f"{len(thin)} buckets hold"
        message = f"{buckets} fewer pictures than a batch ({shown}); the batches are short."
        hint = "Nothing is lost; a smaller train.batch_size or similar picture shapes even it out."
        yield Problem("dataset.thin_buckets", message, hint, "train.batch_size")
    if steps * train.gradient_accumulation_steps < batches:
        message = f"The {steps} steps end before every picture was seen once ({batches} batches make an epoch)."
        yield Problem("train.less_than_an_epoch", message, "Raise train.max_steps.", "train.max_steps")
    if train.lr_warmup_steps >= steps:
        message = f"train.lr_warmup_steps: {train.lr_warmup_steps} is not less than the {steps} steps of the run."
        yield Problem("train.warmup", message, "Lower it.", "train.lr_warmup_steps")
    if config.validation.split > 0 and not layout.validation:
        message = "validation.split: a single picture cannot be split; nothing is held back."
        yield Problem("validation.nothing", message, "Add pictures, or set it to 0.", "validation.split")


def about_model(config: Config, sizes: ModelSizes) -> Iterator[Problem]:
    """What is not known about the model yet, and what will be done about it."""
    base = Path(config.model.base).expanduser()
    if config.loss.prediction_type == "auto" and base.is_file() and base.suffix.lower() == ".safetensors":
        guess = prediction_guess(base)
        if guess:
            yield guess_warning(base.name, guess)
    if needed := conversion_bytes(base):
        yield _conversion(base, needed)
    if not sizes.known and (looks_like_a_file(config.model.base) or base.is_dir()):
        message = f"model.base: the sizes in {config.model.base} are known when the run has read it."
        hint = f"The estimates are those of {sizes.name}; .safetensors files can be looked into before."
        yield Problem("model.unread", message, hint, "model.base")
    elif not sizes.known:
        message = f"model.base: {config.model.base} is not on this machine; it will be downloaded first."
        yield Problem("model.download", message, "Several GB; a network is needed.", "model.base")


def _conversion(base: Path, needed: int) -> Problem:
    """What is told of a single file that was not made into a model folder yet."""
    free = free_disk_bytes(cache_dir())
    message = (
        f"model.base: {base.name} is made into a model folder first, once. It takes {needed / 1e9:.2f} GB in "
        f"{cache_dir()}, where {free / 1e9:.1f} GB are free."
    )
    hint = (
        "Settings can remove it again." if needed < free else "Free some space, or set XDG_CACHE_HOME to a larger disk."
    )
    return Problem("model.conversion", message, hint, "model.base")


def _named(code: str, what: str, notes: list[PictureNote], hint: str, field: str = "dataset.sources") -> Problem:
    names = ", ".join(f"{Path(note.path).name} ({note.note})" for note in notes[:_NAMED])
    more = f" and {len(notes) - _NAMED} more" if len(notes) > _NAMED else ""
    count = f"{len(notes)} picture{'' if len(notes) == 1 else 's'}"
    return Problem(code, f"{count} {what}: {names}{more}.", hint, field)
