"""Preview prompts that are changed while a run is going."""

from __future__ import annotations

from trainer.config import Config, SampleSettings
from trainer.config_io import parse_section, save_config
from trainer.errors import UserError
from trainer.families.base import Family
from trainer.runs import control
from trainer.sampling import check_prompts
from trainer.session import Session


def take_new_prompts(session: Session, config: Config, family: Family, step: int) -> None:
    """Put prompts that were asked for into ``config`` and the run's ``config.yaml``, and tell of it at ``step``.

    Prompts that the model cannot draw are told as a warning, and the old ones stay.
    """
    given = control.take_prompts(session.run.control_dir)
    if given is None:
        return
    try:
        samples = parse_section(SampleSettings, config.samples.model_dump() | {"prompts": given})
        check_prompts(samples.prompts, family)
    except UserError as error:
        reasons = " ".join(problem.message for problem in error.problems)
        session.warn("samples.prompts", f"The new preview prompts cannot be drawn: {reasons}", "The old ones stay.")
        return
    config.samples.prompts = samples.prompts
    with session.run.lock():
        kept = session.run.config()  # not ``config``: the run may have been renamed since it was read
        kept.samples.prompts = samples.prompts
        save_config(kept, session.run.config_path)
    session.events.emit("prompts", step, prompts=[prompt.prompt for prompt in samples.prompts])
