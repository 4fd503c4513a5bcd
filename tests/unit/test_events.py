"""The event file: appended by one, read by others meanwhile."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from trainer.runs.events import EventLog, Events, EventTail, read_events


def test_events_are_read_as_they_were_told(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "new" / "events.jsonl")
    log.emit("metric", 3, loss=0.5, lr=1e-4)
    log.emit("state", state="training")
    log.close()
    first, second = read_events(tmp_path / "new" / "events.jsonl")
    assert (first["type"], first["step"], first["loss"]) == ("metric", 3, 0.5)
    assert (second["type"], second["step"], second["state"]) == ("state", 0, "training")
    assert second["time"] >= first["time"] > 1.6e9


@pytest.mark.parametrize(
    ("value", "told"), [(math.nan, "nan"), (math.inf, "inf"), (-math.inf, "-inf"), ([math.nan], ["nan"])]
)
def test_numbers_that_json_lacks_become_words(tmp_path: Path, value: Any, told: Any) -> None:
    EventLog(tmp_path / "e.jsonl").emit("metric", loss=value)
    line = (tmp_path / "e.jsonl").read_text()
    event = json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert event["loss"] == told


def test_the_tail_gives_each_event_once(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    tail = EventTail(path)
    assert tail.read() == []
    log = EventLog(path)
    log.emit("a")
    log.emit("b")
    assert [event["type"] for event in tail.read()] == ["a", "b"]
    assert tail.read() == []
    log.emit("c")
    assert [event["type"] for event in tail.read()] == ["c"]


def test_half_a_line_waits_for_its_end(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    line = '{"time": 1, "type": "sample", "step": 2, "path": "ü.png"}\n'.encode()
    tail = EventTail(path)
    for cut in range(1, len(line)):  # every place, also within the two bytes of the u
        path.write_bytes(line[:cut])
        assert tail.read() == []
    path.write_bytes(line)
    assert tail.read()[0]["path"] == "ü.png"


def test_a_torn_line_of_a_killed_writer_harms_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    EventLog(path).emit("a")
    with path.open("a") as file:
        file.write('{"time": 1, "type": "metr')
    EventLog(path).emit("b")
    EventLog(path).emit("c")
    assert [event["type"] for event in read_events(path)] == ["a", "b", "c"]


@pytest.mark.parametrize("junk", [b"", b"\n", b"[]\n", b"5\n", b'{"no": "type"}\n', b"\xff\xfe\n", b"nul\x00l\n"])
def test_other_lines_are_skipped(tmp_path: Path, junk: bytes) -> None:
    path = tmp_path / "e.jsonl"
    path.write_bytes(junk)
    EventLog(path).emit("a")
    assert [event["type"] for event in read_events(path)] == ["a"]


def test_line_breaks_in_texts_do_not_break_the_line(tmp_path: Path) -> None:
    text = "one\ntwo\r\nthree\u2028four\x85five"
    EventLog(tmp_path / "e.jsonl").emit("warning", message=text)
    assert read_events(tmp_path / "e.jsonl")[0]["message"] == text


def test_several_sinks_hear_the_same(tmp_path: Path) -> None:
    logs = [EventLog(tmp_path / name) for name in ("a", "b")]
    Events(*logs).emit("state", 1, state="paused")
    for name in ("a", "b"):
        assert read_events(tmp_path / name)[0]["state"] == "paused"
