"""How far a merge is: tensors done, and the time left by the bytes written so far."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

from trainer.lora.weight_file import Block, Item
from trainer.runs.events import EventSink


class MergeProgress:
    """Tells of every percent of the bytes that is done."""

    def __init__(self, items: list[Item], events: EventSink) -> None:
        self._events = events
        self._tensors, self._bytes = len(items), max(1, sum(item.stored.size_bytes for item in items))
        self._done_tensors = self._done_bytes = 0
        self._told = -1
        self._began = time.monotonic()
        self._tell()

    def watched(self, item: Item) -> Item:
        """The same item, counted as it is written."""

        def blocks() -> Iterator[Block]:
            yield from item.blocks()
            self._done_tensors += 1
            self._done_bytes += item.stored.size_bytes
            self._tell()

        return replace(item, blocks=blocks)

    def _tell(self) -> None:
        percent = 100 * self._done_bytes // self._bytes
        if percent == self._told and self._done_tensors < self._tensors:
            return
        self._told = percent
        elapsed = time.monotonic() - self._began
        left = elapsed * (self._bytes - self._done_bytes) / self._done_bytes if self._done_bytes else None
        self._events.emit(
            "progress",
            what="merging",
            done=self._done_tensors,
            total=self._tensors,
            seconds_left=None if left is None else round(left, 1),
        )
