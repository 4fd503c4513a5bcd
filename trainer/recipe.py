"""The training recipe, from top to bottom.

Every random draw depends on (seed, number of the batch, purpose) alone. There is no generator to carry over: a run that
was killed and resumed draws what it would have drawn, and ends with the same bytes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from trainer.checkpoint_folders import checkpoints
from trainer.conditioning import CaptionEncoder, caption_encoder
from trainer.config import Config
from trainer.continuing import continuation_of
from trainer.data.epoch import total_steps
from trainer.data.plain_captions import plain_captions
from trainer.data.rows import Rows
from trainer.data.training_set import Batch, prepare_training_set
from trainer.device_needs import suited
from trainer.devices import autocast, compute_dtype, kind_of, seeded_generator, use_deterministic
from trainer.families import load_family
from trainer.families.base import Family
from trainer.following import session_of
from trainer.hub_loras import with_local_loras
from trainer.late_numbers import moment
from trainer.learning import Learning
from trainer.lora.adapter import add_adapters, norm_limiter
from trainer.lora.dropout import Draws
from trainer.lora.patches import merge_before_training
from trainer.losses import check_prediction_type, huber_thresholds, loss_per_picture, noise_level_weights
from trainer.noise import add_noise, among_all, draw_noise, draw_timesteps, perturb, prediction_target, signal_to_noise
from trainer.offload import offload_blocks
from trainer.optimizers import optimizer_class
from trainer.parameter_groups import parameter_groups
from trainer.preservation import preservation_loss
from trainer.quantize import quantize_denoiser
from trainer.ranks import ALONE, Ranks
from trainer.runs.events import EventSink
from trainer.runs.settings import read_settings
from trainer.runs.store import Run, Workspace
from trainer.sampling import check_prompts
from trainer.sharing.after_training import share_finished
from trainer.step_calls import CALLED, Calls, calls_of
from trainer.step_inputs import Names, StepInputs
from trainer.together import Together, let_parts_rest, set_training_mode
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
        draws: where the layers' dropouts take their chance from.
    """

    config: Config
    family: Family
    encode: CaptionEncoder
    device: torch.device
    dtype: torch.dtype
    alphas: Tensor
    draws: Draws = field(default_factory=Draws)


def train(
    run: Run, *, workspace: Workspace, events: EventSink, share_gpu: bool | None = None, ranks: Ranks = ALONE
) -> Outcome:
    """Train a run from its newest checkpoint, or from nothing, to its end.

    Waits for a device that another job uses, unless ``share_gpu``; None where nobody can ask. ``ranks`` share batches.

    Raises:
        UserError: what the user gave is wrong. The run is then ``failed``.
        StoppedOnRequest: stopped; everything is saved, and the run resumes at exactly this step.
        JobFailed: anything else. The run is ``failed``, with the reason in ``run.json``, events and log.
    """
    begun = time.monotonic()
    with session_of(run, workspace, events, share_gpu, ranks) as session:
        device, events = session.device, session.events
        config = with_local_loras(run.config(), events, begun=any(checkpoints(run.checkpoints_dir)))
        allowed_optimizers = read_settings(workspace).allowed_optimizers
        use_deterministic(config.train.deterministic)
        config = suited(config, kind_of(device), allowed_optimizers, session.warn)  # what the device lacks is told
        optimizer_class(config.train, allowed_optimizers)  # before the long work: one that is broken ends the run
        dtype = compute_dtype(config.train.mixed_precision, device)
        before = ranks.share(lambda: continuation_of(session, config.lora))  # the newest checkpoint, if there is one

        # The frozen model, LoRA layers on it, the pictures as latents, the captions as embeddings
        session.enter("preparing")
        family = load_family(
            config.model,
            device=torch.device("cpu"),  # each part comes to the device when it is needed there
            dtype=dtype,
            prediction_type=config.loss.prediction_type,
            zero_terminal_snr=config.loss.zero_terminal_snr,
            events=events,
        )
        check_prediction_type(config.loss, family.prediction_type)
        check_prompts(config.samples.prompts, family)
        merge_before_training(family, config.lora.merge_before_training)
        quantize_denoiser(family.denoiser, config.model.quantize, device)
        offload_blocks(family.denoiser, config.model.offload, device)
        ranks.share_out(family.denoiser, device, wanted=config.model.share_out)
        draws = Draws()
        trainables = add_adapters(family, config.lora, seed=config.train.seed, checkpoint=before.lora, draws=draws)
        family.move(vae=device)
        data = prepare_training_set(config, family, workspace.cache_dir, events, session.check_stop, ranks)
        family.move(text=device)
        encode = caption_encoder(family, config, data.text_plan, workspace.cache_dir, events, session.check_stop, ranks)
        let_parts_rest(family, config, data)
        family.move(denoiser=device)
        ingredients = Ingredients(config, family, encode, device, dtype, family.alphas_cumprod.to(device), draws)

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
        calls = calls_of(config, learning, family, device, events, in_step=ranks.in_step)
        learning.learn_with(ranks, passes=backward_passes(config) if calls is CALLED else 0)
        together = Together(config, family, data, encode, learning, calls, session, ranks)
        set_training_mode(family, config)
        if not ranks.leads:
            together.follow(partial(train_step, ingredients, learning, data.batch, calls))
            return Outcome(learning.step, run.output_path, time.monotonic() - begun, None)
        upkeep = Upkeep(session, config, family, data, together, learning, max_steps, before)
        upkeep.begin()
        with upkeep.nothing_untold():
            while not upkeep.over:
                begin = moment(device)
                ranks.call("step")
                numbers = train_step(ingredients, learning, data.batch, calls)
                # All that is not learning: metrics, checkpoints, previews, validation, pause, stop
                upkeep.after_step(numbers, begin)

        lora_path = upkeep.finish()
        share_finished(session, config)
        return Outcome(learning.step, lora_path, time.monotonic() - begun, upkeep.loss)


def train_step(
    ingredients: Ingredients, learning: Learning, batch_of: Callable[[int], Batch | None], calls: Calls = CALLED
) -> Tensor:
    """One optimizer step over as many batches as gradients are accumulated.

    Returns (3,) float32 on the device, where it may not be computed yet: the step's loss, the length of its gradient,
    and how many layers ``lora.max_norm`` has shortened.
    """
    device, accumulation = ingredients.device, ingredients.config.train.gradient_accumulation_steps
    first = learning.step * accumulation

    def add_up() -> None:
        for index in range(first, first + accumulation):
            batch = batch_of(index)
            if batch is None:  # fewer pictures than processes: this one has none
                continue
            names, inputs = batch_inputs(ingredients, batch, index).tensors()
            kind = names, batch.rows
            calls.run(kind, partial(add_gradients, ingredients, learning, *kind), inputs, device)

    calls.within_memory(add_up, learning.forget_gradients)
    learning.join()
    ways = calls if learning.decides_on_device else CALLED
    return ways.run("update", learning.apply_gradients, [learning.advance()], device)


def batch_inputs(ingredients: Ingredients, batch: Batch, index: int) -> StepInputs:
    """The host's part of the ``index``-th batch: all that is drawn at random, and the captions looked up."""
    settings, seed = ingredients.config.loss, ingredients.config.train.seed
    torch.manual_seed(seeded_generator(seed, index, "dropout").initial_seed())  # layers draw from torch's own

    # Drawn for the whole batch of all processes: (W, 4, h, w) and (W,), of which this one has B rows
    rows, latents = batch.rows, among_all(batch.latents, batch.rows)
    noise = draw_noise(latents, settings, seeded_generator(seed, index, "noise"))
    timesteps = draw_timesteps(rows.whole, settings, seeded_generator(seed, index, "timesteps"))
    added = perturb(noise, settings.input_perturbation, seeded_generator(seed, index, "perturbation"))
    plain = plain_captions(batch.captions, ingredients.config)
    with autocast(ingredients.device, ingredients.dtype):
        texts = ingredients.encode.read(batch.captions)
        plain_texts = ingredients.encode.read(plain) if plain else None
    return StepInputs(
        latents=batch.latents,
        noise=noise[rows.part],
        added=None if added is noise else added[rows.part],
        timesteps=timesteps[rows.part],
        sizes=batch.sizes,
        loss_weights=batch.loss_weights,
        masks=batch.masks,
        texts=texts,
        plain_texts=plain_texts,
    )


def add_gradients(ingredients: Ingredients, learning: Learning, names: Names, rows: Rows, *tensors: Tensor) -> Tensor:
    """The device's part of a batch: its gradients and its loss are added to the step's. Returns that loss up to now.

    What is added is this process's part of the mean over the whole batch.
    """
    ingredients.draws.rows = rows
    for term in batch_losses(ingredients, StepInputs.from_tensors(names, tensors)):
        # each before the next is computed: one graph in memory at a time
        learning.backward(term / (ingredients.config.train.gradient_accumulation_steps * rows.times_fewer))
    return learning.loss


def batch_losses(ingredients: Ingredients, inputs: StepInputs) -> Iterator[Tensor]:
    """The terms of a batch's loss, which is their sum: scalars with gradients, one after the other.

    The weighted mean loss of the pictures, and how far what is to be preserved has drifted where that is asked for.
    """
    family, device, alphas = ingredients.family, ingredients.device, ingredients.alphas
    settings = ingredients.config.loss
    latents, noise, timesteps, sizes = inputs.latents, inputs.noise, inputs.timesteps, inputs.sizes
    added = noise if inputs.added is None else inputs.added
    noisy = add_noise(latents, added, alphas, timesteps)  # (B, 4, h, w)

    with autocast(device, ingredients.dtype):
        condition = ingredients.encode.encode(inputs.texts)  # (B, T, C)
        prediction = family.predict(noisy, timesteps, condition, sizes)  # (B, 4, h, w)
    target = prediction_target(family.prediction_type, latents, noise, alphas, timesteps)  # (B, 4, h, w)

    thresholds, masks = huber_thresholds(settings, alphas, timesteps), inputs.masks  # (B,), (B, 1, h, w)
    losses = loss_per_picture(prediction, target, settings.type, thresholds, masks, settings.unmasked_weight)  # (B,)
    snr = signal_to_noise(alphas, timesteps)  # (B,)
    weights = noise_level_weights(snr, family.prediction_type, settings)  # (B,)
    yield (losses * weights * inputs.loss_weights).mean()  # ()

    if settings.preserve is not None and inputs.plain_texts is not None:
        with autocast(device, ingredients.dtype):
            drift = preservation_loss(family, ingredients.encode, inputs.plain_texts, noisy, timesteps, sizes)  # ()
        yield settings.preserve.weight * drift


def backward_passes(config: Config) -> int:
    """How often a step goes backward: once for each term of each batch's loss."""
    return config.train.gradient_accumulation_steps * (1 if config.loss.preserve is None else 2)
