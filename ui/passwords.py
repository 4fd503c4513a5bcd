"""Names and passwords of those who may use the page, and how often an address may be wrong."""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
import os
import secrets
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from trainer.errors import UserError

MOST_WRONG = 10
WINDOW_S = 60.0
_MOST_ADDRESSES = 10_000

Answer = Literal["in", "wrong", "wait"]


class Door:
    """Lets in who gives a name with its password; an address that was wrong MOST_WRONG times in WINDOW_S has to wait.

    What an address gives while it waits is not looked at, right or not. It never waits longer than the window, and
    others do not wait with it. The same wrong password again does not count: it tells nothing new, and a page that is
    open since before the password was changed sends it every second.

    Args:
        users: name to password. Only digests are kept.
        clock: seconds that only grow.
    """

    def __init__(self, users: dict[str, str], clock: Callable[[], float] = time.monotonic) -> None:
        self._key = secrets.token_bytes(32)
        self._users = {name: self._digest(password) for name, password in users.items()}
        self._nobody = secrets.token_bytes(32)
        self._clock = clock
        self._wrong: dict[str, dict[bytes, float]] = {}

    def answer(self, address: str, header: str) -> Answer:
        """What to say to a request from ``address`` with this Authorization header, empty where there is none."""
        if not header:
            return "wrong"
        wrong = self._recently_wrong(_block_of(address))
        given = self._digest(header)
        if given in wrong:
            return "wrong"
        if len(wrong) >= MOST_WRONG:
            return "wait"
        if self._knows(*_basic_credentials(header)):
            return "in"
        self._note(_block_of(address), {**wrong, given: self._clock()})
        return "wrong"

    def _knows(self, name: str, password: str) -> bool:
        """Compares digests of one length in the same time for every password, also for names that nobody has."""
        expected = self._users.get(name, self._nobody)
        return hmac.compare_digest(self._digest(password), expected)

    def _digest(self, text: str) -> bytes:
        return hmac.digest(self._key, text.encode("utf-8"), "sha256")

    def _recently_wrong(self, block: str) -> dict[bytes, float]:
        since = self._clock() - WINDOW_S
        return {given: when for given, when in self._wrong.get(block, {}).items() if when > since}

    def _note(self, block: str, wrong: dict[bytes, float]) -> None:
        self._wrong.pop(block, None)
        self._wrong[block] = wrong  # behind all others: in front are those that were not wrong for longest
        if len(self._wrong) > _MOST_ADDRESSES:
            del self._wrong[next(iter(self._wrong))]


def read_users(path: Path) -> dict[str, str]:
    """Read an auth file: one ``name:password`` a line, ``#`` starts a comment line. Raises UserError."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError("auth.unreadable", f"--auth-file {path} cannot be read: {error}.", "Check the path.") from error
    users: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, colon, password = line.strip().partition(":")
        if not (name and colon and password):
            raise UserError(
                "auth.line",
                f"--auth-file {path}: line {number} is not of the form name:password.",
                "Correct that line.",
            )
        users[name] = password
    if not users:
        raise UserError("auth.empty", f"--auth-file {path} names nobody.", "Write one name:password a line.")
    return users


def is_readable_by_others(path: Path) -> bool:
    """Whether other accounts of this machine may read a file. Windows keeps that elsewhere: there it is not known."""
    return os.name != "nt" and bool(path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH))


def _basic_credentials(header: str) -> tuple[str, str]:
    """Name and password of a Basic Authorization header (RFC 7617); both empty where it is none."""
    kind, _, encoded = header.partition(" ")
    try:
        decoded = base64.b64decode(encoded, validate=True).decode("utf-8") if kind.lower() == "basic" else ""
    except (binascii.Error, ValueError):
        decoded = ""
    name, _, password = decoded.partition(":")
    return name, password


def _block_of(address: str) -> str:
    """What counts as one address: of IPv6 the network of 64 bits that one customer has to choose from."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    return str(ipaddress.ip_network((found, 64), strict=False)) if found.version == 6 else address
