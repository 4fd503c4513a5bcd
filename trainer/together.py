"""What all processes of a run do at the same time; the first one says when."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from PIL import Image

from trainer.conditioning import CaptionEncoder
from trainer.config import Config, SamplePrompt
from trainer.data.contents import Contents
from trainer.data.training_set import TrainingSet
from trainer.devices import features_of, give_back_cached_memory, is_out_of_memory, is_small
from trainer.drawing import Progress
from trainer.errors import StoppedOnRequest, UserError
from trainer.families.base import Family
from trainer.families.side_by_side import lay_pictures_side_by_side
from trainer.fused.layers import use_fused_layers
from trainer.learning import Learning
from trainer.ranks import ALONE, Call, OutOfStep, Ranks
from trainer.rollback import load_checkpoint
from trainer.sampling import Draw, draw_prompt
from trainer.session import Session
from trainer.step_calls import Calls
from trainer.validation import ValidationLoss, validation_loss
from trainer.validation_history import ValidationHistory

_log = logging.getLogger("trainer")


class Together:
    """A model in training, on the devices of all processes.

    Each method is called in the first process, and has the others do the same, who are in ``follow``.
    """

    def __init__(
        self,
        config: Config,
        family: Family,
        data: TrainingSet,
        encode: CaptionEncoder,
        learning: Learning,
        calls: Calls,
        session: Session,
        ranks: Ranks,
    ) -> None:
        self._config = config
        self._family = family
        self._data = data
        self._encode = encode
        self._learning = learning
        self._calls = calls
        self._session = session
        self._ranks = ranks
        self._drawers = ranks if ranks.in_step else ALONE  # one that has the whole model draws by itself
        self._validation = data.validation_batches()

    @property
    def processes(self) -> int:
        """How many train."""
        return self._ranks.size

    @property
    def can_validate(self) -> bool:
        """Whether there are pictures for it."""
        return bool(self._validation)

    def validate(self) -> ValidationLoss:
        """The validation loss of the weights that would be saved now."""
        self._ranks.call("validate")
        return self._validate()

    @contextmanager
    def drawing(self) -> Iterator[Draw]:
        """Inside, previews are drawn, with the weights that would be saved now."""
        self._drawers.call("draw")
        with self._ready_to_draw():
            yield self._draw
            self._drawers.share(lambda: None)

    def leave_device(self) -> None:
        """Give the devices' memory back."""
        self._ranks.call("leave")
        self._leave()

    def return_to_device(self) -> None:
        """Take it again."""
        self._ranks.call("return")
        self._return()

    def end(self) -> None:
        """There is nothing more to do together."""
        self._ranks.call("end")

    def load(self, checkpoint: Path, history: ValidationHistory) -> Contents:
        """Be as the run was at a checkpoint. Returns and raises as ``load_checkpoint`` does."""
        self._ranks.call("load")
        return self._load(checkpoint, history)

    def follow(self, step: Callable[[], object]) -> None:
        """Do what the first process calls, up to the end; ``step`` is one of the training."""
        answers: dict[Call, Callable[[], object]] = {
            "load": lambda: self._load(None, ValidationHistory(None)),
            "step": step,
            "validate": self._validate_along,
            "draw": self._draw_along,
            "leave": self._leave,
            "return": self._return,
        }
        for call in self._ranks.calls():
            answers[call]()

    def _load(self, checkpoint: Path | None, history: ValidationHistory) -> Contents:
        """The first process knows which checkpoint it is."""
        agreed = self._ranks.share(lambda: checkpoint)
        assert agreed is not None
        self._calls.forget()  # graphs hold the optimizer's averages, which come anew
        return load_checkpoint(agreed, self._session, self._learning, history)

    def _validate(self) -> ValidationLoss:
        with self._learning.result():
            return validation_loss(
                self._family,
                self._config,
                self._validation,
                self._encode,
                self._session.device,
                self._ranks,
                self._session.sign,
            )

    def _validate_along(self) -> None:
        """Where there is no memory, all know it, and the first process tells it."""
        try:
            self._validate()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise

    @contextmanager
    def _ready_to_draw(self) -> Iterator[None]:
        """Text encoders and VAE are on the device, and the weights are the ones to look at."""
        device = self._session.device
        try:
            with self._drawers.agreed():
                self._family.move(text=device, vae=device)
                with suppress(UserError):  # a broken part is told of each picture
                    self._family.load()
            with self._learning.result():
                yield
        finally:
            self._let_parts_rest()

    def _draw(self, prompt: SamplePrompt, size: tuple[int, int]) -> Image.Image:
        """The first process says what is drawn."""
        self._drawers.share(lambda: (prompt, size))
        return self._drawn(prompt, size)

    def _draw_along(self) -> None:
        """What fails here fails in the first process too, which tells it."""
        try:
            with self._ready_to_draw():
                while (asked := self._drawers.share(lambda: None)) is not None:
                    self._draw_unseen(*asked)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise

    def _draw_unseen(self, prompt: SamplePrompt, size: tuple[int, int]) -> None:
        try:
            self._drawn(prompt, size)
        except OutOfStep:
            raise
        except Exception as error:
            _log.debug("The preview failed here too: %s", error)

    def _drawn(self, prompt: SamplePrompt, size: tuple[int, int]) -> Image.Image:
        with self._drawers.agreed():
            return draw_prompt(self._family, self._config, prompt, size, self._go_on_drawing)

    def _go_on_drawing(self, progress: Progress) -> None:
        """All end a picture at the same denoising step. Raises StoppedOnRequest when a stop is asked for."""
        if self._drawers.share(lambda: self._session.stop_asked):
            raise StoppedOnRequest("a stop was asked for while a preview was drawn")

    def _leave(self) -> None:
        self._move(torch.device("cpu"))
        give_back_cached_memory()

    def _return(self) -> None:
        self._move(self._session.device)
        self._let_parts_rest()

    def _let_parts_rest(self) -> None:
        """Text encoders and VAE leave this process's device, as far as training does not need them."""
        let_parts_rest(self._family, self._config, self._data)

    def _move(self, device: torch.device) -> None:
        self._calls.forget()
        self._family.move(denoiser=device, text=device, vae=device)
        self._learning.move(device)


def let_parts_rest(family: Family, config: Config, data: TrainingSet) -> None:
    """Text encoders and VAE leave the GPU's memory where training needs them no more: 1.8 GiB of SDXL's.

    Where they have nothing else to do, they leave the machine's memory, too.
    """
    texts_rest, pictures_rest = data.text_plan.texts_rest, config.dataset.cache.latents
    if not config.keeps_parts:
        family.release(text=texts_rest, vae=pictures_rest)
    family.move(text="cpu" if texts_rest else None, vae="cpu" if pictures_rest else None)


def set_training_mode(family: Family, config: Config) -> None:
    """Dropout on, gradient checkpointing where asked for, and layers as the device computes them soonest."""
    device = next(family.denoiser.parameters()).device
    if features_of(device).beside_host:
        use_fused_layers(family.denoiser, device)
    elif is_small(family.denoiser):  # a large one's convolutions are slower so
        lay_pictures_side_by_side(family.denoiser)
    family.train(True)
    family.save_memory(config.train.gradient_checkpointing, draws=config.lora.has_dropout)
