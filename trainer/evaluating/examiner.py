"""A run's model with the LoRA of one checkpoint after the other, and what is measured of each."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import torch
from PIL import Image

from trainer.checkpoint_folders import LORA
from trainer.conditioning import caption_encoder
from trainer.config import Config, SamplePrompt
from trainer.data.buckets import resolutions
from trainer.data.training_set import prepare_training_set
from trainer.devices import compute_dtype, use_deterministic
from trainer.evaluating.drift import Probe, predictions, relative_distance
from trainer.evaluating.gallery import Gallery, as_pixels
from trainer.evaluating.looks import Looks
from trainer.evaluating.prompts import prompts_for_drift, prompts_to_draw
from trainer.evaluating.results import BASE_STEP, Drawn, Evaluated, EvaluationFolder
from trainer.evaluating.settings import MOST_VALIDATED, PROBE_STEPS, EvaluationSettings
from trainer.families import load_family
from trainer.families.base import Conditioning, Family
from trainer.hub_loras import with_local_loras
from trainer.lora.adapter import add_adapters, load_into_adapters, without_adapters
from trainer.lora.file import read_lora
from trainer.lora.patches import merge_before_training
from trainer.pictures import save_png
from trainer.quantize import quantize_denoiser
from trainer.runs.events import EventSink
from trainer.sampling import draw_prompt, preview_name, settings_of
from trainer.validation import timestep_bands, validation_loss


class Examiner:
    """Holds the model; ``examine`` measures one checkpoint.

    Attributes:
        held_out: whether the validation loss is of pictures that were not trained on.
        validated_pictures: how many it is of.
    """

    def __init__(
        self,
        config: Config,
        settings: EvaluationSettings,
        folder: EvaluationFolder,
        *,
        lora: Path,
        cache_dir: Path,
        device: torch.device,
        events: EventSink,
    ) -> None:
        """Load the run's model as the run does, and see its pictures.

        Args:
            config: the run's settings.
            settings: what to measure.
            folder: where pictures go.
            lora: the LoRA of one of the checkpoints: adapters are made in its form.
            cache_dir: the workspace's caches.
            device: where to compute.
            events: get the progress.

        Raises UserError when the model, the pictures or the LoRA cannot be used.
        """
        self._config, self._settings, self._folder, self._device = config, settings, folder, device
        use_deterministic(config.train.deterministic)
        self._looks = Looks(settings.model, device) if settings.model and "similarity" in settings.metrics else None
        self._dtype = compute_dtype(config.train.mixed_precision, device)
        self._family = _loaded(config, device, self._dtype, events)
        add_adapters(self._family, config.lora, seed=config.train.seed, checkpoint=lora)
        data = prepare_training_set(config, self._family, cache_dir, events, _never)
        self._encode = caption_encoder(self._family, config, data.text_plan, cache_dir, events, _never)
        self._validation = data.validation_batches() or data.steady_batches(MOST_VALIDATED)
        self.held_out = bool(data.validation_batches())
        self.validated_pictures = sum(len(batch.captions) for batch in self._validation)
        captions = [caption for batch in data.steady_batches(settings.pictures) for caption in batch.captions]
        self._prompts = prompts_to_draw(config, settings, captions)
        if settings.draws:
            self._gallery = Gallery(data, self._looks, events)
        self._probes = list(self._drawn_probes(events)) if "drift" in settings.metrics else []

    def examine(self, key: str, step: int, checkpoint: Path | None, tell: Callable[[], None]) -> Evaluated:
        """Measure a checkpoint, or the model without a LoRA as ``BASE_STEP``.

        Args:
            key: of the settings, kept with the result.
            step: of the checkpoint.
            checkpoint: its folder; None for the base model.
            tell: called after each of the ``pieces`` of work.

        Raises OSError or UserError when its LoRA cannot be read.
        """
        begun = time.monotonic()
        result = Evaluated(step=step, key=key)
        if checkpoint is not None:
            load_into_adapters(self._family, read_lora(checkpoint / LORA), f"{checkpoint.name}/{LORA}")
            result.lora_sha256 = hashlib.sha256((checkpoint / LORA).read_bytes()).hexdigest()
        with without_adapters(self._family) if checkpoint is None else nullcontext():
            if "validation" in self._settings.metrics:
                loss = validation_loss(self._family, self._config, self._validation, self._encode, self._device)
                result.validation_loss, result.bands = loss.total, loss.bands
                tell()
            if self._probes:
                result.drift = 0.0 if step == BASE_STEP else self._drift()
                tell()
            if self._settings.draws:
                self._judge(result, list(self._drawn(step, tell)))
        result.seconds = round(time.monotonic() - begun, 2)
        return result

    @property
    def pieces(self) -> int:
        """How often ``examine`` tells of its progress."""
        drawn = len(self._prompts) if self._settings.draws else 0
        return ("validation" in self._settings.metrics) + bool(self._probes) + drawn

    def _drift(self) -> float:
        pairs: list[tuple[torch.Tensor, torch.Tensor]] = []
        for probe in self._probes:
            now = self._predictions(probe, self._read(probe.prompt))
            with without_adapters(self._family):
                before = self._predictions(probe, probe.condition)
            pairs += zip(now, before, strict=True)
        return relative_distance(pairs)

    def _predictions(self, probe: Probe, condition: Conditioning) -> list[torch.Tensor]:
        config = self._config
        bands = timestep_bands(config.loss, config.validation.timesteps)
        timesteps = [band.timestep for band in bands]
        return predictions(self._family, probe, condition, timesteps, config.train.seed, self._dtype)

    def _drawn_probes(self, events: EventSink) -> Iterator[Probe]:
        """The base model's pictures of the prompts that must not drift."""
        prompts = prompts_for_drift(self._config, self._settings)
        with without_adapters(self._family):
            for number, text in enumerate(prompts):
                steps = self._settings.steps or PROBE_STEPS
                picture = self._draw(SamplePrompt.model_validate({"prompt": text, "seed": number, "steps": steps}))
                pixels = as_pixels(picture)[None].to(self._device)
                latents = self._family.encode_pixels(pixels).cpu()
                yield Probe(latents, self._read(text), text)
                events.emit("progress", what="drawing what must not change", done=number + 1, total=len(prompts))

    @torch.no_grad()
    def _read(self, text: str) -> Conditioning:
        captions = self._config.dataset.captions
        return self._family.encode_captions(
            [text],
            max_token_length=captions.max_token_length,
            clip_skip=self._config.train.clip_skip,
            weighted=captions.weighted,
        )

    def _drawn(self, step: int, tell: Callable[[], None]) -> Iterator[tuple[Drawn, Image.Image]]:
        for index, prompt in enumerate(self._prompts):
            picture = self._draw(prompt)
            name = preview_name(step, index, prompt.seed)
            self._folder.check_run()
            save_png(picture, self._folder.pictures / name, settings_of(self._config, prompt, picture, step))
            yield Drawn(picture=name, prompt=prompt.prompt, seed=prompt.seed), picture
            tell()

    def _draw(self, prompt: SamplePrompt) -> Image.Image:
        native = resolutions(self._config.dataset)[0]
        size = prompt.width or native[0], prompt.height or native[1]
        return draw_prompt(self._family, self._config, prompt, size)

    def _judge(self, result: Evaluated, drawn: list[tuple[Drawn, Image.Image]]) -> None:
        """Compare the pictures drawn with the training pictures and with their prompts."""
        result.drawn = [each for each, _ in drawn]
        if "nearest" in self._settings.metrics:
            for each, picture in drawn:
                each.nearest = self._gallery.nearest(picture, self._folder.pictures)
            result.copies = sum(each.nearest is not None and each.nearest.copied for each in result.drawn)
        if self._looks is not None:
            vectors = self._looks.pictures([picture for _, picture in drawn])
            result.image_similarity = self._gallery.similarity(vectors)
            if self._looks.reads:
                texts = self._looks.prompts([each.prompt for each, _ in drawn])
                result.prompt_similarity = float((vectors * texts).sum(dim=-1).mean())


def _loaded(config: Config, device: torch.device, dtype: torch.dtype, events: EventSink) -> Family:
    """The run's model before its LoRA."""
    family = load_family(
        config.model,
        device=device,
        dtype=dtype,
        prediction_type=config.loss.prediction_type,
        zero_terminal_snr=config.loss.zero_terminal_snr,
        events=events,
    )
    merge_before_training(family, with_local_loras(config, events, begun=True).lora.merge_before_training)
    quantize_denoiser(family.denoiser, config.model.quantize)
    return family


def _never() -> None:
    """A stop ends the process by a signal: there is nothing to ask for."""
