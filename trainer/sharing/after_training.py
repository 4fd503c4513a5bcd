"""A finished run's LoRA sent to the Hugging Face Hub, where its settings ask for it. The run cannot fail by it."""

from __future__ import annotations

import logging

from trainer.config import Config
from trainer.errors import Problem, StoppedOnRequest, UserError
from trainer.session import Session
from trainer.sharing.contents import source_of
from trainer.sharing.push import push
from trainer.sharing.settings import ShareSettings

FAILED = "share.failed"
"""Code of the warning that nothing was sent."""

_log = logging.getLogger("trainer")


def share_finished(session: Session, config: Config) -> None:
    """Send the finished LoRA to ``output.hub_repo``; nothing where that is empty. What goes wrong becomes a warning."""
    repo = config.output.hub_repo
    if repo is None:
        return
    session.let_device_go()
    try:
        settings = ShareSettings(repo=repo)
        answer = push(source_of(session.run.dir), settings, events=session.events, check_stop=session.check_stop)
    except UserError as error:
        _tell(session, repo, error.problems)
    except (StoppedOnRequest, KeyboardInterrupt):
        _tell(session, repo, (Problem("share.stopped", "Sending was stopped."),))
    except Exception as error:
        _log.exception("Sending to the Hub failed.")
        _tell(session, repo, (Problem("internal", f"{type(error).__name__}."),))
    else:
        session.events.emit("shared", repo=repo, url=answer["url"], visibility=answer["visibility"])
        _log.info("Sent to %s", answer["url"])


def _tell(session: Session, repo: str, problems: tuple[Problem, ...]) -> None:
    reasons = " ".join(str(problem) for problem in problems)
    again = f"`trainer push {session.run.id} --repo {repo}` sends it later, as does Share on the Runs tab."
    session.warn(FAILED, f"The LoRA is finished, and was not sent to {repo}: {reasons}", again)
