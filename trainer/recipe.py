"""The training recipe, from top to bottom.

Every random draw depends on (seed, number of the batch, purpose) alone. There is no generator to carry over: a run that
was killed and resumed draws what it would have drawn, and ends with the same bytes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from trainer.conditioning import CaptionEncoder, caption_encoder
from trainer.config import Config
from trainer.continuing import continuation_of
from trainer.data.epoch import total_steps
from trainer.data.plain_captions import plain_captions
from trainer.data.training_set import Batch, prepare_training_set
from trainer.devices import autocast, compute_dtype, seeded_generator, use_deterministic
from trainer.families import load_family
from trainer.families.base import Family
from trainer.learning import Learning
from trainer.lora.adapter import add_adapters, norm_limiter
from trainer.lora.patches import merge_before_training
from trainer.losses import check_prediction_type, huber_thresholds, loss_per_picture, noise_level_weights
from trainer.noise import add_noise, draw_noise, draw_timesteps, perturb, prediction_target, signal_to_noise
from trainer.optimizers import optimizer_class
from trainer.parameter_groups import parameter_groups
from trainer.preservation import preservation_loss
from trainer.quantize import quantize_denoiser
from trainer.runs.events import EventSink
from trainer.runs.settings import read_settings
from trainer.runs.store import Run, Workspace
from trainer.sampling import check_prompts
from trainer.session import open_session
from trainer.tracking.tracking import tracked
from trainer.upkeep import Upkeep


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        step: optimizer steps done, over all sessions.
        lora_path: the finished LoRA.
        seconds: this session's time.
        loss: the last step's; None when there was no step left to do.
    """

    step: int
    lora_path: Path
    seconds: float
    loss: float | None


@dataclass(frozen=True)
class Ingredients:
    """What every step needs and no step changes.

    Attributes:
        config: the run's settings.
        family: the frozen model, with LoRA layers on it.
        encode: captions to what the denoiser reads.
        device: where the model is.
        dtype: the format of the step's matrix products.
        alphas: (1000,) the noise schedule, on the device.
    """

    config: Config
    family: Family
    encode: CaptionEncoder
    device: torch.device
    dtype: torch.dtype
    alphas: Tensor


def train(run: Run, *, workspace: Workspace, events: EventSink, share_gpu: bool | None = None) -> Outcome:
    """Train a run from its newest checkpoint, or from nothing, to its end.

    Waits for a device that another job uses, unless ``share_gpu``; None where that cannot be asked for.

    Raises:
        UserError: what the user gave is wrong. The run is then ``failed``.
        StoppedOnRequest: stopped; everything is saved, and the run resumes at exactly this step.
        JobFailed: anything else. The run is ``failed``, with the reason in ``run.json``, events and log.
    """
    begun = time.monotonic()
    with open_session(run, workspace, events, share_gpu) as session, tracked(session, run.config()):
        config, device, events = run.config(), session.device, session.events
        allowed_optimizers = read_settings(workspace).allowed_optimizers
        use_deterministic(config.train.deterministic)
        optimizer_class(config.train, allowed_optimizers)  # before the long work: one that is missing ends the run
        dtype = compute_dtype(config.train.mixed_precision, device)
        before = continuation_of(session, config.lora)  # the newest checkpoint, if there is one

        # The frozen model, LoRA layers on it, the pictures as latents, the captions as embeddings
        session.enter("preparing")
        family = load_family(
            config.model,
            device=device,
            dtype=dtype,
            prediction_type=config.loss.prediction_type,
            zero_terminal_snr=config.loss.zero_terminal_snr,
            events=events,
        )
        check_prediction_type(config.loss, family.prediction_type)
        check_prompts(config.samples.prompts, family)
        merge_before_training(family, config.lora.merge_before_training)
        quantize_denoiser(family.denoiser, config.model.quantize)
        trainables = add_adapters(family, config.lora, seed=config.train.seed, checkpoint=before.lora)  # float32
        data = prepare_training_set(config, family, workspace.cache_dir, events, session.check_stop)
        encode = caption_encoder(family, config, data.text_plan, workspace.cache_dir, events, session.check_stop)
        ingredients = Ingredients(config, family, encode, device, dtype, family.alphas_cumprod.to(device))

        # What learns, as it was at that checkpoint
        max_steps = total_steps(config.train, data.batches_per_epoch)
        groups = parameter_groups(trainables, config.train)
        learning = Learning(
            groups,
            config.train,
            max_steps,
            scaled=dtype == torch.float16,
            limit_norms=norm_limiter(family, config.lora),
            allowed_optimizers=allowed_optimizers,
        )
        upkeep = Upkeep(session, config, family, data, encode, learning, max_steps, workspace.cache_dir, before)
        upkeep.begin()

        loss = None
        while not upkeep.over:
            step_begun = time.perf_counter()
            loss, grad_norm = train_step(ingredients, learning, data.batch)
            step_ms = (time.perf_counter() - step_begun) * 1000
            # All that is not learning: metrics, checkpoints, previews, validation, pause, stop
            upkeep.after_step(loss=loss, grad_norm=grad_norm, step_ms=step_ms)

        return Outcome(learning.step, upkeep.finish(), time.monotonic() - begun, loss)


def train_step(ingredients: Ingredients, learning: Learning, batch_of: Callable[[int], Batch]) -> tuple[float, float]:
    """One optimizer step over as many batches as gradients are accumulated. Returns its loss and gradient norm."""
    accumulation = ingredients.config.train.gradient_accumulation_steps
    total = torch.zeros((), device=ingredients.device)
    for micro in range(accumulation):
        index = learning.step * accumulation + micro
        for loss in batch_losses(ingredients, batch_of(index), index):
            learning.backward(loss / accumulation)  # each before the next is computed: one graph in memory at a time
            total += loss.detach() / accumulation
    grad_norm = learning.clip_gradients()
    # The step's one wait for the device: whether to update hangs on these numbers
    loss_value, norm_value = torch.stack([total, grad_norm]).tolist()
    learning.update(norm_value)
    return loss_value, norm_value


def batch_losses(ingredients: Ingredients, batch: Batch, index: int) -> Iterator[Tensor]:
    """The terms of the ``index``-th batch's loss, which is their sum: scalars with gradients, one after the other.

    The weighted mean loss of the pictures, and how far what is to be preserved has drifted where that is asked for.
    """
    family, device, alphas = ingredients.family, ingredients.device, ingredients.alphas
    settings, seed = ingredients.config.loss, ingredients.config.train.seed
    torch.manual_seed(seeded_generator(seed, index, "dropout").initial_seed())  # layers draw from torch's own

    latents = batch.latents.to(device)  # (B, 4, h, w)
    noise = draw_noise(batch.latents, settings, seeded_generator(seed, index, "noise")).to(device)  # (B, 4, h, w)
    timesteps = draw_timesteps(len(latents), settings, seeded_generator(seed, index, "timesteps")).to(device)  # (B,)
    added = perturb(noise, settings.input_perturbation, seeded_generator(seed, index, "perturbation"))  # (B, 4, h, w)
    noisy = add_noise(latents, added, alphas, timesteps)  # (B, 4, h, w)

    with autocast(device, ingredients.dtype):
        condition = ingredients.encode(batch.captions)  # (B, T, C)
        prediction = family.predict(noisy, timesteps, condition, batch.sizes)  # (B, 4, h, w)
    target = prediction_target(family.prediction_type, latents, noise, alphas, timesteps)  # (B, 4, h, w)

    thresholds = huber_thresholds(settings, alphas, timesteps)  # (B,)
    masks = None if batch.masks is None else batch.masks.to(device)  # (B, 1, h, w)
    losses = loss_per_picture(prediction, target, settings.type, thresholds, masks, settings.unmasked_weight)  # (B,)
    snr = signal_to_noise(alphas, timesteps)  # (B,)
    weights = noise_level_weights(snr, family.prediction_type, settings)  # (B,)
    yield (losses * weights * batch.loss_weights.to(device)).mean()  # ()

    if settings.preserve is not None:
        plain = plain_captions(batch.captions, ingredients.config)
        with autocast(device, ingredients.dtype):
            drift = preservation_loss(family, ingredients.encode, plain, noisy, timesteps, batch.sizes)  # ()
        yield settings.preserve.weight * drift
