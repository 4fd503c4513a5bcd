"""The doctor's whole examination of a folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from trainer.config import Config, DatasetSettings, Source
from trainer.curation.caption_edits import count_tags
from trainer.curation.doctor.buckets import small_buckets
from trainer.curation.doctor.captions import Captioned, caption_findings, read_captions
from trainer.curation.doctor.duplicates import duplicates
from trainer.curation.doctor.look import Look, look_at
from trainer.curation.doctor.masks import mask_findings
from trainer.curation.doctor.pictures import broken_pictures, single_pictures
from trainer.curation.doctor.records import Records, file_key, folder_state
from trainer.curation.doctor.report import SEVERITIES, Findings, Report
from trainer.data.datasets_library import is_library_dataset, unpacked_dataset
from trainer.data.folders import collect_source
from trainer.errors import UserError
from trainer.runs.events import EventSink

_WORKERS = min(4, os.cpu_count() or 1)
_ABOUT_CAPTIONS = ("caption.", "tag.")
_BROKEN = ("picture.unreadable", "picture.truncated")


def examine(
    folder: Path,
    resolution: int,
    events: EventSink,
    *,
    batch_size: int | None = None,
    records: Records | None = None,
) -> Report:
    """Look at every picture and caption under ``folder``. A broken picture is a finding, never a failure.

    Args:
        folder: pictures in it and below it are looked at.
        resolution: side in pixels that training is meant for; tells which pictures are too small.
        events: told ``progress``.
        batch_size: pictures per step; tells which buckets are too small. The default of training without it.
        records: files that did not change since the last check are not looked at again, and the report is kept.

    Raises:
        UserError: there is no such folder, or nothing in it that is meant to be a picture.
    """
    folder = folder.expanduser().resolve()
    if is_library_dataset(str(folder)):
        folder = unpacked_dataset(Source(path=str(folder)), "dataset")
    state = folder_state(folder)
    collection, problem = collect_source(0, Source(path=str(folder)), DatasetSettings().caption_extension)
    if problem is not None and not collection.skipped:
        raise UserError(problem.code, problem.message.partition(": ")[2].capitalize(), problem.hint)
    paths = [picture.path for picture in collection.pictures] + [picture.path for picture in collection.skipped]
    looks = _looks(paths, records, events)
    found = Findings(folder)
    broken_pictures(looks, collection.skipped, found)
    single_pictures(looks, resolution, found)
    captions = read_captions(folder)
    duplicates(looks, {picture.path for picture in captions if picture.text.strip()}, found)
    batch_size = batch_size or Config().train.batch_size
    small_buckets(collection.pictures, resolution, batch_size, found)
    mask_findings(folder, looks, found)
    for warning in collection.warnings:
        found.add(warning.code, "warning", [], warning.message, warning.hint)
    broken = {path for path, look in looks.items() if look.error}
    caption_findings(captions, broken, found)
    report = _report(folder, len(looks), [each for each in captions if each.path not in broken], found)
    if records is not None:
        records.keep_report(state, report)
    return report


def recheck_captions(folder: Path, report: Report, records: Records) -> Report:
    """The report with the findings on captions made anew, after an edit of nothing but captions."""
    state = folder_state(folder)
    broken = {folder / path for finding in report.findings if finding.code in _BROKEN for path in finding.paths}
    found = Findings(folder)
    captions = read_captions(folder)
    caption_findings(captions, broken, found)
    fresh = _report(folder, report.pictures, [each for each in captions if each.path not in broken], found)
    others = [finding for finding in report.findings if not finding.code.startswith(_ABOUT_CAPTIONS)]
    findings = sorted([*fresh.findings, *others], key=lambda each: (SEVERITIES.index(each.severity), each.code))
    fresh = Report(fresh.folder, fresh.pictures, fresh.captions, findings, fresh.tags)
    records.keep_report(state, fresh)
    return fresh


def _report(folder: Path, pictures: int, usable: Sequence[Captioned], found: Findings) -> Report:
    texts = [picture.text for picture in usable if picture.text.strip()]
    return Report(str(folder), pictures, len(texts), found.sorted(), count_tags(texts))


def _looks(paths: list[Path], records: Records | None, events: EventSink) -> dict[Path, Look]:
    """A look for each picture: kept ones where the file is the same, new ones for the rest."""
    earlier = records.looks() if records is not None else {}
    keys = {path: key for path in paths if (key := _key(path)) is not None}
    looks = {path: earlier[key] for path, key in keys.items() if key in earlier}
    missing = [path for path in paths if path not in looks]
    try:
        _look_at_all(missing, len(paths), looks, events)
    finally:  # what was seen before a request to stop need not be seen again
        if records is not None:
            records.keep_looks({keys[path]: look for path, look in looks.items() if path in keys}, earlier)
    return {path: looks[path] for path in sorted(paths)}


def _look_at_all(missing: list[Path], total: int, looks: dict[Path, Look], events: EventSink) -> None:
    pool = ThreadPoolExecutor(_WORKERS)
    try:
        events.emit("progress", what="looking at pictures", done=len(looks), total=total)
        for path, look in zip(missing, pool.map(look_at, missing), strict=True):
            looks[path] = look
            events.emit("progress", what="looking at pictures", done=len(looks), total=total)
    finally:
        pool.shutdown(cancel_futures=True)  # a request to stop must not wait for the pictures still queued


def _key(path: Path) -> str | None:
    try:
        return file_key(path)
    except OSError:
        return None
