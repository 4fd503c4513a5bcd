"""Tensors kept in memory as far as there is room: those used longest ago make way."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor


class Shelf:
    """Rows of tensors by name, the bytes of all together bounded."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._rows: OrderedDict[str, dict[str, Tensor]] = OrderedDict()  # the one used last at the end
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._rows)

    def take(self, name: str) -> dict[str, Tensor] | None:
        """The tensors of this name, which are then the ones used last; None where they are not there (any more)."""
        if name in self._rows:
            self._rows.move_to_end(name)
        return self._rows.get(name)

    def put(self, name: str, row: dict[str, Tensor]) -> None:
        """Keep tensors, which must not change any more; what alone is larger than the shelf is not kept."""
        size = _bytes(row)
        if name in self._rows or size > self._most_bytes:
            return
        self._rows[name] = row
        self.bytes += size
        while self.bytes > self._most_bytes:
            _, oldest = self._rows.popitem(last=False)
            self.bytes -= _bytes(oldest)


def _bytes(row: dict[str, Tensor]) -> int:
    return sum(tensor.untyped_storage().nbytes() for tensor in row.values())
