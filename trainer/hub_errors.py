"""What went wrong with a model of the Hugging Face Hub, in plain words. Never torch.

The libraries' own messages are not passed on: they hold links that are signed for one person.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from huggingface_hub import constants
from huggingface_hub.errors import (
    DisabledRepoError,
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from trainer.errors import UserError

_LOGIN = "log in with hf auth login, or set HF_TOKEN"
_NETWORK = ("httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3", "socket", "ssl", "hf_xet")
_NO_NETWORK = "Check the network, or give a folder or file that is on this machine."
_LATER = "Try again later; what is done already is kept."


@dataclass(frozen=True)
class HubModel:
    """A model of the hub, as the settings name it.

    Attributes:
        repo: ``owner/name``.
        revision: branch, tag or commit; None for the main branch.
        field: the setting that named it.
        writes: whether it is written to, and not read.
    """

    repo: str
    revision: str | None
    field: str
    writes: bool = False

    @property
    def page(self) -> str:
        """Where a person finds it."""
        return f"{constants.ENDPOINT}/{self.repo}"


def hub_error(model: HubModel, error: BaseException) -> UserError | None:
    """The message for an error of the hub's libraries; None for one that has nothing to do with the hub."""
    chain = list(causes(error))
    for link in chain:
        if told := _by_kind(model, link):
            return UserError(told[0], f"{model.field}: {told[1]}", told[2], _field(model, told[0]))
    if any(type(link).__module__.partition(".")[0] in _NETWORK for link in chain):
        where = "" if model.writes else f"{model.repo} is not on this machine, and "
        message = f"{model.field}: {where}{constants.ENDPOINT} cannot be reached."
        hint = "Check the network, and try again." if model.writes else _NO_NETWORK
        return UserError("model.no_network", message, hint, model.field)
    if isinstance(error, OSError):
        what = f"upload to {model.repo}" if model.writes else f"download of {model.repo}"
        message = f"{model.field}: the {what} did not succeed ({type(error).__name__})."
        return UserError("model.download", message, _LATER, model.field)
    return None


def no_copy(model: HubModel) -> UserError:
    """Downloads are switched off, and the model is not or not completely on this machine."""
    message = f"{model.field}: {model.repo} is not completely on this machine, and HF_HUB_OFFLINE forbids to download."
    hint = f"Unset HF_HUB_OFFLINE, or copy the model into {constants.HF_HUB_CACHE}."
    return UserError("model.offline", message, hint, model.field)


def disk_full(model: HubModel, needed: str) -> UserError:
    """There is no room for the download: ``needed`` tells how much is missing."""
    message = f"{model.field}: the disk of {constants.HF_HUB_CACHE} is too full for {model.repo}{needed}."
    return UserError("model.disk_full", message, "Free some space, or set HF_HOME to a larger disk.", model.field)


def _field(model: HubModel, code: str) -> str:
    return "model.revision" if code == "model.revision" and model.field == "model.base" else model.field


def wait_asked_s(headers: Mapping[str, str]) -> int | None:
    """Seconds that an answer asks to wait before the next request: ``Retry-After``, or the hub's own ``RateLimit``."""
    found = re.fullmatch(r"\s*(\d+)\s*", headers.get("Retry-After", ""))
    found = found or re.search(r";\s*t\s*=\s*(\d+)", headers.get("RateLimit", ""))
    return int(found[1]) if found else None


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, what it came from, and so on."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        yield error
        error = error.__cause__ or error.__context__


def _by_kind(model: HubModel, error: BaseException) -> tuple[str, str, str] | None:
    """Code, message and hint. The order counts: a gated model's error is also one of a missing model."""
    repo = model.repo
    if isinstance(error, OfflineModeIsEnabled) and model.writes:
        return "model.offline", "HF_HUB_OFFLINE forbids to ask the hub.", "Unset HF_HUB_OFFLINE."
    if isinstance(error, OfflineModeIsEnabled):
        told = no_copy(model).problems[0]
        return told.code, told.message.removeprefix(f"{model.field}: "), told.hint
    if isinstance(error, GatedRepoError):
        hint = f"Accept its terms on {model.page}, then {_LOGIN}."
        return "model.gated", f"{repo} is only given to those who accepted its terms.", hint
    if isinstance(error, DisabledRepoError):
        return "model.disabled", f"{repo} was disabled on the hub.", "Choose another model."
    if isinstance(error, RevisionNotFoundError):
        asked = model.revision or "main"
        hint = "Leave model.revision empty for the main branch, or give a branch, tag or whole commit."
        return "model.revision", f"{repo} has no revision {asked!r}.", hint
    if isinstance(error, RepositoryNotFoundError):
        hint = f"Check the spelling of owner/name; for a private one {_LOGIN}."
        return "model.not_found", f"{repo!r} is not a folder here, and not a model on the hub, or a private one.", hint
    if isinstance(error, HfHubHTTPError):
        return _by_status(model, error.response.status_code, wait_asked_s(error.response.headers))
    if isinstance(error, HFValidationError):
        return "model.not_found", f"{repo!r} cannot be the name of a model on the hub.", "Check the spelling."
    if isinstance(error, FileMetadataError):
        hint = "Check HF_ENDPOINT, proxy and firewall."
        return "model.no_hub", f"{constants.ENDPOINT} does not answer as a hub does.", hint
    if isinstance(error, OSError):
        return _by_errno(model, error)
    return None


def _by_status(model: HubModel, status: int, wait_s: int | None) -> tuple[str, str, str]:
    repo, may = model.repo, "write to" if model.writes else "read"
    if status == 401:
        return "model.token", "the hub does not accept the access token of this machine.", f"To renew it, {_LOGIN}."
    if status == 403:
        hint = f"Give it the right to {may} {repo} in your settings on the hub, or {_LOGIN} with another."
        return "model.token", f"the access token of this machine may not {may} {repo}.", hint
    if status == 429:
        how_long = "a while" if wait_s is None else f"{wait_s} s"
        return "model.hub_busy", f"the hub takes no more requests from here for {how_long}.", _LATER
    if status >= 500:
        return "model.hub_down", f"the hub has trouble of its own (status {status}).", _LATER
    asked = f"take files for {repo}" if model.writes else f"give {repo}"
    return "model.download", f"the hub refused to {asked} (status {status}).", "Check the name and revision."


def _by_errno(model: HubModel, error: OSError) -> tuple[str, str, str] | None:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        told = disk_full(model, "").problems[0]
        return told.code, told.message.removeprefix(f"{model.field}: "), told.hint
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        message = f"the folder for downloads, {constants.HF_HUB_CACHE}, cannot be written."
        return "model.cache", message, "Make it writable, or set HF_HOME to a folder that is."
    return None
