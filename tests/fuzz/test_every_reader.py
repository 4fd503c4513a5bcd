"""Broken files through every reader: an answer or a message, in time, within memory, and nothing written elsewhere.

``LORA_ATELIER_FUZZ=1000000`` makes that many cases in all; the usual number is small. A case that fails is told by its
reader and number, and made again by them alone. ``LORA_ATELIER_FUZZ_REPORT=file.json`` keeps how many were run of each,
how many were refused, and how long they took, and is kept up to date meanwhile.
"""

from __future__ import annotations

import faulthandler
import os
import random
import signal
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz.guard import GUARD, LONGEST_SECONDS, OutsideError
from tests.fuzz.mutations import mutated
from tests.fuzz.targets import Target, targets
from tests.time_limits import in_time
from trainer.errors import UserError
from trainer.files import write_json

CASES = int(os.environ.get("LORA_ATELIER_FUZZ", "1500"))
REPORT = os.environ.get("LORA_ATELIER_FUZZ_REPORT")
ROUND = 5000
"""Cases of all readers before it begins with the first one again."""
DEAD_SECONDS = 900
"""After which a turn that not even the alarm ends is shown with its stack, and ended."""
MOST_FAILURES = 40

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGPROF"), reason="the time is kept with SIGPROF")


def numbers_of(all_targets: dict[str, Target], cases: int) -> dict[str, int]:
    """How many cases each reader gets."""
    shares = sum(target.share for target in all_targets.values())
    return {name: max(1, round(cases * target.share / shares)) for name, target in all_targets.items()}


def turns(numbers: dict[str, int]) -> Iterator[tuple[str, range]]:
    """Some cases of each reader after the other, so that all of them are equally far at any time."""
    rounds = max(1, sum(numbers.values()) // ROUND)
    for each in range(rounds):
        for name, count in numbers.items():
            yield name, range(count * each // rounds, count * (each + 1) // rounds)


def case(name: str, number: int) -> bytes:
    """The bytes of a case."""
    return mutated(random.Random(f"{name} {number}"), targets()[name].samples)


def try_case(name: str, number: int, folder: Path) -> tuple[str, str]:
    """``read``, ``refused`` or ``failed``, and in that case what happened."""
    data = case(name, number)
    try:
        with in_time(LONGEST_SECONDS, of_processor=True):
            targets()[name].read(folder, data)
    except UserError as error:
        if error.problems and str(error).encode("utf-8", "replace"):
            return "refused", ""
        return "failed", "it refused without a word"
    except (Exception, OutsideError):
        return "failed", f"{name} {number}: {data[:200]!r}\n{traceback.format_exc(limit=-4)}"
    return "read", ""


def test_every_reader_gives_an_answer_or_a_message(tmp_path: Path) -> None:
    numbers = numbers_of(targets(), CASES)
    told = {name: {"read": 0, "refused": 0, "failed": 0, "seconds": 0.0} for name in numbers}
    failures: list[str] = []
    inside = tmp_path / "inside"
    for name in numbers:
        (inside / name).mkdir(parents=True)
    for name, part in turns(numbers):
        faulthandler.dump_traceback_later(DEAD_SECONDS, exit=True)
        begun = time.perf_counter()
        with GUARD.over(inside):
            for number in part:
                outcome, what = try_case(name, number, inside / name)
                told[name][outcome] += 1
                if what:
                    failures.append(what)
        told[name]["seconds"] += time.perf_counter() - begun
        if REPORT:
            write_json(Path(REPORT), {"cases": told, "failures": failures[:MOST_FAILURES]}, durable=False)
        if len(failures) > MOST_FAILURES and not REPORT:
            break
    faulthandler.cancel_dump_traceback_later()
    assert not failures, f"{len(failures)} cases fail; the first:\n" + "\n".join(failures[:5])
    assert [path.name for path in tmp_path.iterdir()] == ["inside"]
    for name, counts in told.items():
        assert sum(counts[outcome] for outcome in ("read", "refused")) == numbers[name]


@pytest.mark.parametrize("name", targets())
def test_the_samples_themselves_are_read(name: str, tmp_path: Path) -> None:
    """Else what is made of them would tell little. One of them is enough: some readers refuse others on purpose."""
    read = 0
    for number, sample in enumerate(targets()[name].samples):
        (folder := tmp_path / str(number)).mkdir()
        try:
            targets()[name].read(folder, sample)
            read += 1
        except UserError:
            continue
    assert read >= 1


def test_the_guard_sees_what_no_reader_may(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (inside / "way_out").symlink_to(outside)
    attempts = [
        lambda: (outside / "a").write_text("x"),
        lambda: (inside / ".." / "outside" / "a").write_text("x"),
        lambda: (inside / "way_out" / "a").write_text("x"),
        lambda: (inside / "b").rename(outside / "b"),
        lambda: (outside / "folder").mkdir(),
        lambda: os.system("true"),  # noqa: S605 - it never starts
    ]
    with GUARD.over(inside):
        (inside / "b").write_text("x")
        for attempt in attempts:
            with pytest.raises(OutsideError):
                attempt()
        assert len(GUARD.tried) == len(attempts)
        with pytest.raises(MemoryError):
            bytearray(1 << 45)
    assert list(outside.iterdir()) == []
    (outside / "a").write_text("it looks no more")


def test_what_takes_too_long_is_ended() -> None:
    with pytest.raises(TimeoutError), in_time(0.05, of_processor=True):
        while True:
            pass
