"""The training recipe, from top to bottom.

Every random draw of a step depends on (seed, step, micro-batch, purpose) alone. There is no generator to carry over:
a run that was killed and resumed draws what it would have drawn, and ends with the same bytes.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch

from trainer.conditioning import caption_encoder
from trainer.data.epoch import total_steps
from trainer.data.training_set import prepare_training_set
from trainer.devices import autocast, compute_dtype, seeded_generator
from trainer.families import load_family
from trainer.learning import Learning
from trainer.lora.adapter import add_adapters
from trainer.losses import loss_per_picture, noise_level_weights
from trainer.noise import add_noise, draw_noise, draw_timesteps, perturb, prediction_target, signal_to_noise
from trainer.runs.events import EventSink
from trainer.runs.store import Run, Workspace
from trainer.session import open_session
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


def train(run: Run, *, workspace: Workspace, events: EventSink) -> Outcome:
    """Train a run from its newest checkpoint, or from nothing, to its end.

    Raises:
        UserError: what the user gave is wrong. The run is then ``failed``.
        StoppedOnRequest: stopped; everything is saved, and the run resumes at exactly this step.
        JobFailed: anything else. The run is ``failed``, with the reason in ``run.json``, events and log.
    """
    begun = time.monotonic()
    with open_session(run, workspace, events) as session:
        config, device, events = run.config(), session.device, session.events
        settings, loss_settings, seed = config.train, config.loss, config.train.seed

        # The frozen model, LoRA layers on it, and the pictures as latents
        session.enter("preparing")
        dtype = compute_dtype(settings.mixed_precision, device)
        family = load_family(
            config.model,
            device=device,
            dtype=dtype,
            prediction_type=loss_settings.prediction_type,
            zero_terminal_snr=loss_settings.zero_terminal_snr,
        )
        parameters = add_adapters(family, config.lora, seed=seed)  # by part, float32
        data = prepare_training_set(config, family, workspace.cache_dir, events, session.check_stop)
        encode = caption_encoder(family, config, workspace.cache_dir, events)
        alphas = family.alphas_cumprod.to(device)  # (1000,)

        # What learns, as it was at the newest checkpoint
        max_steps, accumulation = total_steps(settings, data.batches_per_epoch), settings.gradient_accumulation_steps
        learning = Learning(parameters, settings, max_steps, scaled=dtype == torch.float16)
        upkeep = Upkeep(session, config, family, data, encode, learning, max_steps)
        upkeep.begin()
        last_loss = None

        while learning.step < max_steps:
            step_begun = time.perf_counter()
            step_loss = torch.zeros((), device=device)

            for micro in range(accumulation):
                index = learning.step * accumulation + micro
                batch = data.batch(index)
                draws = {name: seeded_generator(seed, index, name) for name in ("noise", "timesteps", "perturbation")}
                torch.manual_seed(seeded_generator(seed, index, "dropout").initial_seed())  # drawn inside the layers

                latents = batch.latents.to(device)  # (B, 4, h, w)
                noise = draw_noise(latents.shape, loss_settings, draws["noise"]).to(device)  # (B, 4, h, w)
                timesteps = draw_timesteps(len(latents), loss_settings, draws["timesteps"]).to(device)  # (B,)
                input_noise = perturb(noise, loss_settings.input_perturbation, draws["perturbation"])  # (B, 4, h, w)
                noisy = add_noise(latents, input_noise, alphas, timesteps)  # (B, 4, h, w)

                with autocast(device, dtype):
                    condition = encode(batch.captions)  # (B, T, C)
                    prediction = family.predict(noisy, timesteps, condition)  # (B, 4, h, w)
                target = prediction_target(family.prediction_type, latents, noise, alphas, timesteps)  # (B, 4, h, w)

                losses = loss_per_picture(prediction, target, loss_settings)  # (B,)
                snr = signal_to_noise(alphas, timesteps)  # (B,)
                weights = noise_level_weights(snr, family.prediction_type, loss_settings)  # (B,)
                loss = (losses * weights * batch.loss_weights.to(device)).mean() / accumulation
                learning.backward(loss)
                step_loss += loss.detach()

            grad_norm = learning.clip_gradients()
            # The step's one wait for the device: whether to update hangs on these numbers
            last_loss, norm = torch.stack([step_loss, grad_norm]).tolist()
            learning.update(norm)

            # All that is not learning: metrics, checkpoints, previews, validation, pause, stop
            step_ms = (time.perf_counter() - step_begun) * 1000
            upkeep.after_step(loss=last_loss, grad_norm=norm, step_ms=step_ms)

        return Outcome(learning.step, upkeep.finish(), time.monotonic() - begun, last_loss)
