"""``trainer job JOB_DIR``: run a job's command and write down how it ended."""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import traceback
from pathlib import Path
from typing import Any

from trainer.errors import JobFailed, Problem, StoppedOnRequest, UserError
from trainer.jobs import Job
from trainer.runs.events import EventLog, Events, EventSink


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The job's folder."""
    parser.add_argument("job_dir", type=Path)


def run(args: argparse.Namespace, events: EventSink) -> dict[str, Any]:
    """Run the job's command; raises what it raises, after writing it down."""
    job = Job(args.job_dir)
    job.note_process(os.getpid())
    try:
        if job.cancel_asked:
            raise StoppedOnRequest("cancelled before it started")
        answer = _run_command(job.command, Events(events, EventLog(job.events_path)))
    except UserError as error:
        _finish(job, "failed", error=[vars(problem) for problem in error.problems])
        raise
    except (StoppedOnRequest, KeyboardInterrupt):
        _finish(job, "stopped")
        raise
    except Exception as error:
        if job.cancel_asked:  # while packages are imported they make another exception of the one that stops
            _finish(job, "stopped")
            raise StoppedOnRequest("stopped on request") from error
        _finish(job, "failed", error=[vars(_problem_of(error, job))])
        with job.log_path.open("a", encoding="utf-8") as log:
            log.write(traceback.format_exc())
        raise
    _finish(job, "finished", result=answer)
    return {"job": job.id}


def describe(answer: dict[str, Any]) -> str:
    """That the job is done."""
    return f"Job {answer['job']} is done."


def _run_command(command: list[str], events: EventSink) -> dict[str, Any]:
    """Run a trainer command in this process. Raises whatever it raises; UserError for arguments it does not take."""
    from trainer.__main__ import COMMANDS, command_parser

    name, arguments = command[0], command[1:]
    if name not in COMMANDS:
        raise UserError("job.command", f"{name!r} is not a command.", "Commands are: " + ", ".join(COMMANDS) + ".")
    module = importlib.import_module(f"trainer.commands.{name}")
    return module.run(command_parser(name, module).parse_args(arguments), events)


def _problem_of(error: Exception, job: Job) -> Problem:
    if isinstance(error, JobFailed):
        return error.problem
    return Problem("internal", f"{type(error).__name__}: {error}", f"Details are in {job.log_path}.")


def _finish(job: Job, state: Any, **outcome: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a late cancel must not tear the record of how it ended
    job.finish(state, **outcome)
