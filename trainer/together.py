"""What all processes of a run do at the same time; the first one says when."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from trainer.conditioning import CaptionEncoder
from trainer.config import Config
from trainer.data.contents import Contents
from trainer.data.training_set import TrainingSet
from trainer.devices import give_back_cached_memory, is_out_of_memory
from trainer.families.base import Family
from trainer.learning import Learning
from trainer.ranks import Call, Ranks
from trainer.rollback import load_checkpoint
from trainer.session import Session
from trainer.step_calls import Calls
from trainer.validation import ValidationLoss, validation_loss
from trainer.validation_history import ValidationHistory


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
        self._validation = data.validation_batches()

    @property
    def can_validate(self) -> bool:
        """Whether there are pictures for it."""
        return bool(self._validation)

    def validate(self) -> ValidationLoss:
        """The validation loss of the weights that would be saved now."""
        self._ranks.call("validate")
        return self._validate()

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
            "leave": self._leave,
            "return": self._return,
        }
        for call in self._ranks.calls():
            answers[call]()

    def let_parts_rest(self) -> None:
        """Text encoders and VAE leave this process's device, as far as training does not need them."""
        let_parts_rest(self._family, self._config, self._data)

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

    def _leave(self) -> None:
        self._move(torch.device("cpu"))
        give_back_cached_memory()

    def _return(self) -> None:
        self._move(self._session.device)
        self.let_parts_rest()

    def _move(self, device: torch.device) -> None:
        self._calls.forget()
        self._family.move(denoiser=device, text=device, vae=device)
        self._learning.move(device)


def let_parts_rest(family: Family, config: Config, data: TrainingSet) -> None:
    """Text encoders and VAE leave the GPU's memory where training needs them no more: 1.8 GiB of SDXL's."""
    texts_rest, pictures_rest = data.text_plan.texts_rest, config.dataset.cache.latents
    family.move(text="cpu" if texts_rest else None, vae="cpu" if pictures_rest else None)


def set_training_mode(family: Family, config: Config) -> None:
    """Dropout on, and gradient checkpointing where asked for."""
    for module in (family.denoiser, *family.text_encoders.values()):
        module.train()
    family.save_memory(config.train.gradient_checkpointing, draws=config.lora.has_dropout)
