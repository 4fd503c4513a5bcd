"""The command line: ``python -m trainer CMD``. Each command is a module in ``trainer/commands``.

Exit codes: 0 done, 2 wrong input, 3 stopped on request, 1 anything else.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn, TextIO

from trainer.errors import JobFailed, Problem, StoppedOnRequest, UserError
from trainer.processes import ending_signals
from trainer.ranks import leads_launch, starter
from trainer.runs.events import EventLog, Events, EventSink
from trainer.terminal import TerminalEvents

COMMANDS: dict[str, str] = {
    "train": "train a LoRA from a config file",
    "resume": "continue a run, or extend a finished one",
    "plan": "what a config would do: buckets, steps, memory, time",
    "settings": "every setting of a config: what it does, allows and is called elsewhere",
    "read-config": "settings of kohya_ss, sd-scripts, OneTrainer or ai-toolkit as a config",
    "dataset": "look for problems in a folder of pictures",
    "fix": "mend what `dataset` found, so that it can be undone",
    "caption": "write captions for a folder of pictures",
    "export": "a folder of pictures for other programs: kohya, imagefolder, CSV, zip",
    "pictures": "a folder of pictures in other sizes, shapes and formats",
    "split": "split validation pictures off a dataset, or bring them back",
    "import": "a data set of Hugging Face's datasets library as a folder of pictures",
    "pack": "a training as a folder that runs on another machine",
    "cache": "what downloads and caches take of the disk, and deleting them",
    "pull": "a LoRA of the Hugging Face Hub, to be used by its name",
    "push": "a LoRA to the Hugging Face Hub, with a card",
    "merge": "merge LoRAs with each other or into a model",
    "extract": "the difference of two models as a LoRA",
    "resize": "give a LoRA another rank, of the same strength",
    "convert": "a LoRA in another form: kohya, diffusers or PEFT",
    "inspect": "what is in a LoRA, a base model or a checkpoint",
    "generate": "make pictures",
    "grid": "a picture for each combination of values, on one sheet",
    "evaluate": "measure a run's checkpoints and tell the best",
    "demo": "train the demo from start to end and show before and after",
    "bench": "measure training speed",
    "runs": "list runs and control them",
    "queue": "what waits: add to it, reorder it, pause it",
    "remote": "other machines that train, reached over SSH",
}
INTERNAL_COMMANDS: dict[str, str] = {
    "worker": "run queued runs one after the other",
    "spare": "be loaded for the run that a worker tells",
    "job": "run a command on behalf of the page",
    "studio": "keep a model loaded and answer picture requests",
}


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    wants = _command_of(arguments)
    if wants is None:
        return _without_command(arguments)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # it warns of packages that nothing here needs
    command = importlib.import_module(f"trainer.commands.{module_of(wants)}")
    try:
        args = command_parser(wants, command).parse_args(arguments[1:])
    except UserError as error:
        return _refuse(error, json_wanted="--json" in arguments)
    if not leads_launch() or starter() is not None:
        return _as_one_of_several(command, args)
    for number in ending_signals():
        if number != signal.SIGINT:  # Python's own answer to it is as good
            signal.signal(number, _stop)
    with _stdout_kept_for_json(args.json) as json_out:
        return _run(command, args, _event_sink(args), json_out)


def _as_one_of_several(command: ModuleType, args: argparse.Namespace) -> int:
    """Run one command for somebody else, who says what there is to say of its end: the first of the processes, or who
    launched them. Of these the first one tells how far it is.

    What has been written down is an orderly end: the launcher need not speak of it.
    """
    try:
        command.run(args, _event_sink(args) if leads_launch() else Events())
    except (UserError, StoppedOnRequest, KeyboardInterrupt, JobFailed):
        return 0 if leads_launch() else 1
    except Exception:
        if leads_launch():
            raise
        return 1  # why is in the run's log, where it is not that the first process has ended
    return 0


def _without_command(arguments: list[str]) -> int:
    """What ``trainer``, ``trainer --help`` and ``trainer NONSENSE`` say."""
    parser = _top_parser()
    if arguments:
        try:
            parser.parse_args(arguments)  # ends the program for --help
        except UserError as error:
            return _refuse(error, json_wanted="--json" in arguments)
    parser.print_help(sys.stderr)
    return 2


def _refuse(error: UserError, *, json_wanted: bool) -> int:
    """Tell what is wrong with the user's input."""
    if json_wanted:
        sys.stdout.write(json.dumps({"error": [vars(problem) for problem in error.problems]}, indent=2) + "\n")
    for problem in error.problems:
        sys.stderr.write(f"error: {problem}\n")
    return 2


def _run(command: ModuleType, args: argparse.Namespace, events: EventSink, json_out: TextIO) -> int:
    code, answer = 0, None
    try:
        answer = command.run(args, events)
    except UserError as error:
        code = 2
        answer = {"error": [vars(problem) for problem in error.problems]}
        for problem in error.problems:
            sys.stderr.write(f"error: {problem}\n")
    except (StoppedOnRequest, KeyboardInterrupt) as stop:
        code = 3
        answer = {"stopped": str(stop) or "stopped on request"}
        sys.stderr.write(f"{answer['stopped']}\n")
    except Exception as error:
        code = 1
        problem, log = _failure(error)
        answer = {"error": [{**vars(problem), "log": str(log)}]}
        sys.stderr.write(f"error: {problem}\nDetails are in {log}\n")
    if args.json:
        json.dump(answer, json_out, indent=2, ensure_ascii=False, default=str)
        json_out.write("\n")
    elif code == 0 and answer is not None:
        json_out.write(command.describe(answer).rstrip() + "\n")
    json_out.flush()
    return code


class _Parser(argparse.ArgumentParser):
    """Wrong arguments are wrong input like any other."""

    def error(self, message: str) -> NoReturn:
        hint = f"`{self.prog} --help` tells what there is."
        raise UserError("cli.arguments", f"{message[0].upper()}{message[1:]}.", hint)

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        """Up to Python 3.12 the value of ``--trigger=--`` is taken for the end of the options, and is lost."""
        if action.option_strings and action.nargs is None and arg_strings == ["--"]:
            value = self._get_value(action, "--")
            self._check_value(action, value)
            return value
        return super()._get_values(action, arg_strings)


def _top_parser() -> argparse.ArgumentParser:
    listing = "\n".join(f"  {name:<12}{text}" for name, text in COMMANDS.items())
    parser = _Parser(
        prog="trainer",
        description="LoRA Atelier's trainer.",
        epilog=f"commands:\n{listing}\n\n`trainer CMD --help` tells more.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=[*COMMANDS, *INTERNAL_COMMANDS], metavar="CMD")
    return parser


def module_of(command: str) -> str:
    """The name of a command's module, which cannot have a hyphen."""
    return command.replace("-", "_")


def _command_of(arguments: list[str]) -> str | None:
    return arguments[0] if arguments and arguments[0] in COMMANDS | INTERNAL_COMMANDS else None


def command_parser(name: str, command: ModuleType) -> argparse.ArgumentParser:
    """The parser of one command. It raises UserError for arguments that the command does not take."""
    parser = _Parser(prog=f"trainer {name}", description=(COMMANDS | INTERNAL_COMMANDS)[name].capitalize() + ".")
    parser.add_argument(
        "--json", action="store_true", help="print one JSON document on stdout; progress goes to stderr"
    )
    parser.add_argument("--events", type=Path, help=argparse.SUPPRESS)  # where a job's progress is written
    command.add_arguments(parser)
    return parser


def _event_sink(args: argparse.Namespace) -> EventSink:
    terminal = TerminalEvents(sys.stderr)
    return Events(terminal, EventLog(args.events)) if args.events else terminal


def _stop(signum: int, frame: object) -> None:
    raise StoppedOnRequest("stopped on request")


@contextlib.contextmanager
def _stdout_kept_for_json(json_wanted: bool) -> Iterator[TextIO]:
    """With ``--json``, send everything any library prints to stderr, and keep the real stdout for the answer."""
    if not json_wanted:
        yield sys.stdout
        return
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with os.fdopen(kept, "w", encoding="utf-8", closefd=False) as out:
            yield out
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def _failure(error: Exception) -> tuple[Problem, Path]:
    """What went wrong in a sentence, and the file that has the details."""
    if isinstance(error, JobFailed):
        return error.problem, error.log_path or _write_traceback()
    return Problem("internal", f"{type(error).__name__}: {error}"), _write_traceback()


def _write_traceback() -> Path:
    """Keep the traceback of an unexpected error in a file; returns its path."""
    folder = Path(tempfile.gettempdir()) / "lora-atelier"
    folder.mkdir(exist_ok=True)
    path = folder / f"error-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    path.write_text(traceback.format_exc(), encoding="utf-8")
    return path


if __name__ == "__main__":
    sys.exit(main())
