"""The report of an import as the page shows it: escaped, in the form's words."""

from __future__ import annotations

import re

from tests.unit.import_samples import imported
from trainer.imports.base import Line, Report
from ui.train.import_report import report_html


def test_counts_come_first_and_what_needs_a_look_before_the_rest() -> None:
    shown = report_html(imported("kohya_gui", "sd21_v_huber").report, "my.json")
    status, _, lists = shown.partition("</p>")
    assert "<strong>my.json</strong> (kohya_ss GUI) fills the form" in status
    titles = re.findall(r"<summary>\d+ ([^<]+)</summary>", lists)
    assert titles == ["not taken over", "taken over as nearly as it goes", "taken over", "without effect"]
    counted = re.findall(r"<strong>(\d+)</strong>", status)
    assert counted == re.findall(r"<summary>(\d+) ", lists)


def test_settings_have_the_forms_words() -> None:
    shown = report_html(imported("kohya_gui", "sd15_character_reg").report, "x")
    assert "<code>network_dim</code> 32 &rarr; <b>Rank</b> 32" in shown
    assert "<b>Folders 2</b> /data/ohwx/reg" in shown


def test_all_text_of_a_file_is_escaped() -> None:
    line = Line("<i>key", "<img src=x>", "lora.rank", "<b>", "<script>")
    shown = report_html(Report("<u>kind", mapped=[line]), "<a>name")
    for hostile in ("<i>key", "<img", "<script>", "<u>", "<a>"):
        assert hostile not in shown
    assert "&lt;img src=x&gt;" in shown
