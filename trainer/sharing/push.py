"""Sending a LoRA to the Hugging Face Hub: a repository, its large files one after the other, then one commit.

Large files go over the Hub's LFS route: each is read here, so that progress is known and a cancel ends it at once; one
that is there already is not sent again. Until the commit nothing of them is seen by anybody.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from huggingface_hub import CommitOperationAdd, HfApi, constants, get_token
from huggingface_hub.errors import RepositoryNotFoundError
from huggingface_hub.utils import logging as hub_logging

from trainer.errors import StoppedOnRequest, UserError
from trainer.hub_calls import patient
from trainer.hub_errors import HubModel, causes, hub_error
from trainer.hub_login import account_name, no_token
from trainer.runs.events import EventSink
from trainer.sharing.contents import Contents, SentFile, Source, as_rows, contents_of
from trainer.sharing.settings import ShareSettings

_FIELD = "repo"
_MB = 1_000_000

T = TypeVar("T")


@dataclass(frozen=True)
class _Target:
    """A repository, as it is on the Hub; ``private`` None where it is not there yet."""

    repo: str
    private: bool | None


def push(
    source: Source,
    settings: ShareSettings,
    *,
    events: EventSink,
    dry_run: bool = False,
    check_stop: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Send a LoRA with card, settings and sample pictures. Begun again after an end of any kind it goes on.

    Args:
        source: what.
        settings: where to, and what of it.
        events: told progress, and each wait that the Hub asks for.
        dry_run: only tell what would be sent.
        check_stop: called between blocks; raises to stop.

    Returns:
        ``repo``, ``url``, ``visibility``, ``new`` (the repository), ``files``, ``size_bytes``, ``cleaned`` and
        ``dry_run``, and once it is sent ``commit``.

    Raises:
        UserError: no or a wrong token, no right to write there, a repository that everyone sees without it being asked
            for, no network, or something private in what would be sent.
        StoppedOnRequest: from ``check_stop`` or a signal; what is there stays for the next time.
    """
    if get_token() is None:
        raise no_token()
    repo = settings.repo or f"{account_name(events)}/{source.name}"
    target = _target(repo, events)
    if target.private is False and not settings.public:
        hint = "Say that everyone may see it (--public), or choose another name."
        raise UserError("share.public", f"repo: {repo} is there, and everyone can see it.", hint, _FIELD)
    private = not settings.public if target.private is None else target.private
    with contents_of(source, settings, repo) as contents:
        answer = {
            "repo": repo,
            "url": f"{constants.ENDPOINT}/{repo}",
            "visibility": "private" if private else "public",
            "new": target.private is None,
            "files": as_rows(contents),
            "size_bytes": contents.size_bytes,
            "cleaned": contents.cleaned,
            "dry_run": dry_run,
        }
        if dry_run:
            return answer
        if target.private is None:
            _asked(repo, lambda: HfApi().create_repo(repo, private=private, exist_ok=True), events)
        return {**answer, "commit": _sent(contents, events, check_stop)}


def _target(repo: str, events: EventSink) -> _Target:
    def look() -> _Target:
        with suppress(RepositoryNotFoundError):
            return _Target(repo, bool(HfApi().model_info(repo).private))
        return _Target(repo, None)

    return _asked(repo, look, events)


def _sent(contents: Contents, events: EventSink, check_stop: Callable[[], None]) -> str:
    """Send the files; returns the commit that holds them."""
    api, repo, done = HfApi(), contents.repo, 0
    operations: list[CommitOperationAdd] = []
    tell = _Teller(repo, contents.size_bytes, events)
    with _without_warnings():
        for file in contents.files:
            check_stop()
            before = done

            def read(place: int, before: int = before) -> None:
                check_stop()
                tell(before + place)

            operations.append(_operation(file, read))
            _asked(repo, partial(api.preupload_lfs_files, repo, operations[-1:], free_memory=False), events)
            done += file.size_bytes
            tell(done)
        message = "LoRA, card, settings and samples from LoRA Atelier"
        return str(_asked(repo, lambda: api.create_commit(repo, operations, commit_message=message), events).oid)


def _operation(file: SentFile, read: Callable[[int], None]) -> CommitOperationAdd:
    raw = io.BytesIO(file.content) if isinstance(file.content, bytes) else io.FileIO(file.content)
    reader = _Followed(raw)
    operation = CommitOperationAdd(file.name, reader)  # reads it for its hash
    reader.read_to = read
    return operation


class _Followed(io.BufferedReader):
    """A file that tells how far it is read."""

    def __init__(self, raw: io.BytesIO | io.FileIO) -> None:
        super().__init__(raw)
        self.read_to: Callable[[int], None] = lambda place: None

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.read_to(self.tell())
        return data


class _Teller:
    """Tells progress in MB, when another hundredth is done."""

    def __init__(self, repo: str, total_bytes: int, events: EventSink) -> None:
        self._what, self._total, self._events, self._told = f"uploading to {repo}, MB", total_bytes, events, -1

    def __call__(self, done_bytes: int) -> None:
        percent = 100 * done_bytes // max(1, self._total)
        if percent > self._told:
            self._told = percent
            done, total = (math.ceil(count / _MB) for count in (done_bytes, self._total))
            self._events.emit("progress", what=self._what, done=done, total=total)


def _asked(repo: str, call: Callable[[], T], events: EventSink) -> T:
    """What a call to the hub's library returns. Raises UserError in plain words, and StoppedOnRequest as it is."""
    try:
        return patient(call, events)
    except (UserError, StoppedOnRequest):
        raise
    except Exception as error:
        stop = next((cause for cause in causes(error) if isinstance(cause, StoppedOnRequest)), None)
        if stop is not None:  # the library wraps what ends an upload
            raise stop from error
        told = hub_error(HubModel(repo, None, _FIELD, writes=True), error)
        if told is None:
            raise
        raise told from error


@contextmanager
def _without_warnings() -> Iterator[None]:
    """The library warns of uploads that it does not do by Xet."""
    before = hub_logging.get_verbosity()
    hub_logging.set_verbosity_error()
    try:
        yield
    finally:
        hub_logging.set_verbosity(before)
