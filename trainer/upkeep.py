"""What a run does between its steps: metrics, checkpoints, previews, validation, pause, stop, and its end."""

from __future__ import annotations

import pickle
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from trainer.checkpoint import save_checkpoint
from trainer.checkpoint_folders import LORA, checkpoint_at, is_valid, prune
from trainer.config import Config
from trainer.continuing import Continuation
from trainer.data.contents import differences
from trainer.data.training_set import TrainingSet
from trainer.devices import is_out_of_memory
from trainer.disk_room import DiskRoom
from trainer.errors import StoppedOnRequest, UserError
from trainer.families.base import Family
from trainer.files import atomic_path, is_full
from trainer.late_numbers import LateNumbers, Read
from trainer.learning import Learning
from trainer.lora.adapter import adapter_layers, check_same_layers
from trainer.lora.base_model_names import base_model_metadata
from trainer.lora.file import LoraFile, write_lora
from trainer.lora.metadata import Progress, training_metadata
from trainer.metrics import Metrics, Step, values_of
from trainer.plan_warnings import about_optimizer, about_processes
from trainer.prompt_changes import take_new_prompts
from trainer.rhythm import Rhythm, rhythms_of
from trainer.rollback import go_back, trouble_of
from trainer.runs.events import paths_told
from trainer.sampling import draw_previews
from trainer.session import Session
from trainer.together import Together
from trainer.validation import bands_told
from trainer.validation_history import ValidationHistory


class Upkeep:
    """Everything about a run that is not learning, in the order it happens.

    Attributes:
        loss: the latest step's, as far as it is known; None before the first.
    """

    def __init__(
        self,
        session: Session,
        config: Config,
        family: Family,
        data: TrainingSet,
        together: Together,
        learning: Learning,
        max_steps: int,
        before: Continuation,
    ) -> None:
        self._session = session
        self._config = config
        self._family = family
        self._data = data
        self._together = together
        self._learning = learning
        self._max_steps = max_steps
        self._before = before
        self._metrics = Metrics(session.events, max_steps)
        self._late: LateNumbers[Step] = LateNumbers(session.device)
        self._base_model = base_model_metadata(config.model, session.check_stop)
        self._history = ValidationHistory(config.validation.early_stop_patience)
        self._rhythms = rhythms_of(config)
        self._room = DiskRoom(session, config, learning.weights)
        self._done_with = 0
        self.loss: float | None = None

    @property
    def over(self) -> bool:
        """Whether there is nothing left to learn: all steps are done, or validation has not improved for too long."""
        return self._learning.step >= self._max_steps or self._history.enough

    def begin(self) -> None:
        """Go on from the checkpoint, if there is one, and draw the previews due there."""
        self._restore()
        step = self._learning.step
        self._history.go_on(step, self._max_steps, self._session.run.read().length_asked)
        self._session.at_step(step, self._epoch)
        self._room.check(self._rhythms.sampling.count_with_end(step + 1, self._max_steps, self._epochs_at))
        batches = self._data.batches_per_epoch
        self._session.enter("training", max_steps=self._max_steps, extend_to=None, batches_per_epoch=batches)
        self._take_new_prompts()
        if self._rhythms.sampling.ever and not self._config.samples.prompts:
            self._session.warn("samples.no_prompts", "No preview prompts are given.", "No previews will be drawn.")
        for problem in (*about_optimizer(self._config.train), *about_processes(self._config, self._together.processes)):
            self._session.warn(problem.code, problem.message, problem.hint)
        if step == 0:
            self._validate()
        if self._config.samples.at_start if step == 0 else self._due(self._rhythms.sampling):
            self._draw_previews()

    def after_step(self, numbers: Tensor, begin: Any) -> None:
        """Tell the numbers of steps that are done, then do what is due or asked for.

        Args:
            numbers: of the latest step, see ``train_step``; they need not be there yet.
            begin: the ``moment`` before it.

        Raises:
            StoppedOnRequest: after a stop is saved.
            JobFailed: the numbers are bad, and the run cannot go back.
        """
        learning = self._learning
        step = learning.step
        self._late.add(
            Step(step, learning.learning_rate, learning.other_learning_rates, learning.limits_norms), numbers, begin
        )
        for each in self._late.ready():
            self._tell(each)
        asked = self._session.requests()
        to_look_at = learning.skipped or asked or step == self._max_steps or self._anything_due()
        if to_look_at and self._went_back() and not asked:
            return
        if learning.step == self._max_steps:
            return  # the rest is ``finish``'s
        self._take_new_prompts()  # after the requests: prompts that came before "sample" are there for it
        # Validation before saving: a checkpoint knows the validations up to it, so that a resumed run decides alike
        if self._due(self._rhythms.validating):
            self._validate()
        if self.over:
            return
        best = self._config.keeps_best and self._history.best_step == learning.step
        due = self._due(self._rhythms.saving) or best
        healthy = not learning.skipped  # a run that goes wrong must not push its good checkpoints out
        if (due and healthy) or asked & {"save", "pause"}:
            self._save_or_warn()
        if self._due(self._rhythms.sampling) or "sample" in asked:
            self._draw_previews()
        if "pause" in asked and "stop" not in asked:
            self._pause()
        if self._session.stop_asked:
            self._stop()
        self._done_with = learning.step

    @contextmanager
    def nothing_untold(self) -> Iterator[None]:
        """When the steps end by an exception, tell the numbers of those that were done, as far as they can be read.

        What was learned by them is saved where it is sound. What is told in the end is that first exception.
        """
        try:
            yield
        except BaseException as error:
            with suppress(Exception):  # a GPU that failed may give none
                self._tell_all()
            self._metrics.flush()
            if isinstance(error, Exception):
                with suppress(Exception):
                    self._save_after_failure()
            raise

    def finish(self) -> Path:
        """Validate, save the last checkpoint and the LoRA, draw the last previews, and end. Returns the LoRA's path."""
        self._tell_all()
        self._validate()
        self._history.end_at(self._max_steps, self._session.run.read().length_asked)
        self._take_new_prompts()
        output = self._save_all()
        if self._rhythms.sampling.ever:
            self._draw_previews()
        self._together.end()
        self._session.end("finished", 0)
        return output

    @property
    def _epoch(self) -> int:
        """Epochs done."""
        return self._epochs_at(self._learning.step)

    def _epochs_at(self, step: int) -> int:
        """Whole epochs behind so many steps."""
        return step * self._config.train.gradient_accumulation_steps // self._data.batches_per_epoch

    def _due(self, rhythm: Rhythm) -> bool:
        return rhythm.due(self._learning.step, self._epochs_at)

    def _anything_due(self) -> bool:
        rhythms = self._rhythms
        return any(map(self._due, (rhythms.validating, rhythms.saving, rhythms.sampling)))

    def _tell_all(self) -> None:
        """Wait for the device and tell all steps: before anything is told of the latest one, or kept of it."""
        for each in self._late.all():
            self._tell(each)
        self._metrics.flush()

    def _tell(self, read: Read[Step]) -> None:
        learning, step = self._learning, read.facts.step
        values = values_of(read, self._session.device)
        self.loss = values["loss"]
        learning.heard(values["grad_norm"])
        self._metrics.add(step, **values)
        self._session.at_step(step, self._epochs_at(step))
        if learning.skipped:
            self._tell_skipped(step)

    def _tell_skipped(self, step: int) -> None:
        """Warn of a step without update, the first of several in a row."""
        self._metrics.flush()
        if self._learning.skipped == 1:
            message = f"Step {step}: the gradient was not finite, so the LoRA was not changed."
            hint = "Now and then this is harmless; in fp16 it is usual in the first steps."
            self._session.warn("training.not_finite", message, hint)

    def _went_back(self) -> bool:
        """Go back to the newest checkpoint where the numbers are bad, before anything is kept of them.

        Raises JobFailed where that cannot be done.
        """
        self._tell_all()
        trouble = trouble_of(self._learning)
        if trouble is None:
            return False
        checkpoint = go_back(self._session, trouble)
        self._together.load(checkpoint, self._history)
        self._session.at_step(self._learning.step, self._epoch)
        self._session.enter("training")
        return True

    def _restore(self) -> None:
        checkpoint = self._before.checkpoint
        if checkpoint is None:
            return
        try:
            check_same_layers(self._family, checkpoint / LORA)
            contents = self._together.load(checkpoint, self._history)
        except (ValueError, KeyError, RuntimeError, pickle.UnpicklingError) as error:
            message = f"{checkpoint.name} does not fit config.yaml: {error}."
            hint = "Undo the changes to the config, or start a new run with it; lora.init_from takes the checkpoint's "
            hint += "lora.safetensors."
            raise UserError("checkpoint.other_config", message, hint) from error
        if changes := differences(contents, self._data.contents):
            message = f"The data set is not what it was at {checkpoint.name}: {changes}."
            self._session.warn("dataset.changed", message, "The run goes on with what there is now.")
        if self._path_of(checkpoint) not in paths_told(self._session.run.events_path):
            self._tell_checkpoint(checkpoint)  # a kill came in between

    def _save_or_warn(self) -> None:
        """A checkpoint on the way: a full disk or memory is told, and training goes on."""
        self._tell_all()
        self._room.look()
        begin = f"The checkpoint of step {self._learning.step} could not be written"
        try:
            with self._unless_out_of_memory("checkpoint.failed", f"{begin}: there is no memory for it."):
                self._save()
        except OSError as error:
            hint = "Free some space; the next one is tried as usual."
            self._session.warn("checkpoint.failed", f"{begin}: {error.strerror}.", hint)

    def _save_after_failure(self) -> None:
        """Keep what was learned before a step that failed, unless it is kept already, or something due is not done."""
        step = self._learning.step
        sound = step == self._done_with and trouble_of(self._learning) is None
        if sound and step > 0 and not checkpoint_at(self._session.run.checkpoints_dir, step).exists():
            self._save_or_warn()

    def _save(self) -> None:
        run, step, history = self._session.run, self._learning.step, self._history
        state = {**self._learning.state(), "validation": history.state(), "contents": self._data.contents}
        loss = history.loss(step) if step in history else None
        merged = self._before.merged
        checkpoint = save_checkpoint(
            run.checkpoints_dir, step, state, self._write_lora, validation_loss=loss, merged=merged
        )
        best = history.best_step if self._config.keeps_best else None
        prune(run.checkpoints_dir, self._config.output.keep_last, best)
        self._tell_checkpoint(checkpoint)

    def _tell_checkpoint(self, checkpoint: Path) -> None:
        step = self._learning.step
        best = self._config.keeps_best and step == self._history.best_step
        self._session.events.emit("checkpoint", step, path=self._path_of(checkpoint), best=best)

    def _path_of(self, checkpoint: Path) -> str:
        return checkpoint.relative_to(self._session.run.dir).as_posix()

    def _save_all(self) -> Path:
        """All that is to be kept at an end. A full disk is waited for: until there is room it is kept in memory."""
        try:
            return self._write_all()
        except OSError as error:
            if not is_full(error):
                raise
        message = f"The disk is full: what was learned up to step {self._learning.step} could not be saved."
        hint = "Free some space: saving is tried again every few seconds, and at once when the run is resumed."
        self._session.warn("disk.full", message, hint)
        self._together.leave_device()
        output = self._session.paused_until(self._write_all_if_room)
        if not self._session.stop_asked:
            self._session.hold_device()
            self._together.return_to_device()
            self._session.enter("training")  # the last previews are still to come
        return output

    def _write_all_if_room(self) -> Path | None:
        try:
            return self._write_all()
        except OSError as error:
            if not is_full(error):
                raise
            return None

    def _write_all(self) -> Path:
        """The checkpoint first: from it the LoRA could be written again."""
        self._save()
        output = self._session.run.output_path
        best = self._best_lora() if self._config.output.use_best else None
        if best is None:
            self._write_lora(output)
        else:
            with atomic_path(output) as temporary:
                shutil.copyfile(best, temporary)
        return output

    def _best_lora(self) -> Path | None:
        """The LoRA of the best checkpoint; None where it is not known or cannot be used."""
        step = self._history.best_step
        if step is None:
            return None
        checkpoint = checkpoint_at(self._session.run.checkpoints_dir, step)
        if is_valid(checkpoint):
            return checkpoint / LORA
        message = f"The best checkpoint, {checkpoint.name}, is missing or damaged."
        self._session.warn("checkpoint.best_lost", message, "The finished LoRA is the last one.")
        return None

    def _write_lora(self, path: Path) -> None:
        with self._learning.result():
            layers = adapter_layers(self._family)
        progress = Progress(
            step=self._learning.step,
            epoch=self._epoch,
            max_steps=self._max_steps,
            started=self._session.run.read().started or time.time(),
            now=time.time(),
        )
        metadata = training_metadata(self._config, self._family, layers, self._data.facts, self._base_model, progress)
        write_lora(path, LoraFile(layers, metadata), precision=self._config.output.precision)

    def _validate(self) -> None:
        """Measure the validation loss of this step, unless that was done, and tell what follows from it."""
        step, history = self._learning.step, self._history
        if not self._together.can_validate or step in history:
            return
        self._tell_all()
        message = f"There is no memory for the validation of step {step}, so it is left out."
        with self._unless_out_of_memory("validation.memory", message):
            self._measure_validation(step)
        if history.enough and step < self._max_steps:
            self._tell_early_stop()

    def _measure_validation(self, step: int) -> None:
        history, loss = self._history, self._together.validate()
        history.add(step, loss.total)
        best, relative, bands = step == history.best_step, history.relative(step), bands_told(self._config, loss)
        self._session.events.emit("validation", step, loss=loss.total, relative=relative, best=best, bands=bands)

    @contextmanager
    def _unless_out_of_memory(self, code: str, message: str) -> Iterator[None]:
        """Inside, memory that runs out is told as a warning: the training is worth more."""
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            self._session.warn(code, message, "Training goes on.")

    def _tell_early_stop(self) -> None:
        message = f"Stopped early at step {self._learning.step} of {self._max_steps}: {self._history.why_enough}."
        hint = "To train on nevertheless, extend the run: patience then starts anew."
        self._session.warn("validation.early_stop", message, hint)

    def _take_new_prompts(self) -> None:
        take_new_prompts(self._session, self._config, self._family, self._learning.step)

    def _draw_previews(self) -> None:
        self._tell_all()
        message = "There is no memory for text encoders and VAE, so the previews are left out."
        with self._unless_out_of_memory("preview.memory", message), self._together.drawing() as draw:
            draw_previews(draw, self._config, self._session, self._learning.step)

    def _pause(self) -> None:
        """Give the device's memory and lock back until asked to go on, or to stop."""
        self._together.leave_device()
        self._session.wait_while_paused()
        if not self._session.stop_asked:
            self._together.return_to_device()
            self._session.enter("training")

    def _stop(self) -> None:
        self._went_back()
        self._session.enter("stopping")
        self._take_new_prompts()
        output = self._save_all()
        self._together.end()
        raise StoppedOnRequest(f"stopped at step {self._learning.step} of {self._max_steps}; saved as {output}")
