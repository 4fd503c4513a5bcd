"""Text of strangers on the page runs nothing: names, logs, errors and warnings of runs."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.example_runs import example_run, open_tab, tell
from trainer.runs.store import Run, Workspace

HOSTILE = '<img src=x onerror="window.hacked=1"> ${window.hacked=2} {{window.hacked}} <script>window.hacked=3</script>'


@pytest.fixture(scope="module")
def run(workspace: Workspace) -> Run:
    """A failed run in which every text is hostile."""
    problem = {"code": "x", "message": f"message {HOSTILE}", "hint": f"hint {HOSTILE}", "field": HOSTILE}
    run = example_run(workspace, "plain", "failed", steps=8)
    run.update(name=f"name {HOSTILE}", error=f"error {HOSTILE}")
    run.log_path.write_text(f"log {HOSTILE}\n\x1b[31m\x1b]0;{HOSTILE}\x07\n", encoding="utf-8")
    tell(run, {"type": "warning", **problem}, {"type": "error", **problem})
    return run


def test_what_a_run_says_is_text(page: Page, run: Run) -> None:
    open_tab(page, "Runs")
    page.locator(".run-item").first.click()
    expect(page.locator("#run-head h2")).to_have_text(f"name {HOSTILE}")
    expect(page.locator("#run-head")).to_contain_text(f"error {HOSTILE}")
    page.get_by_role("button", name=re.compile(r"^Log\b")).click()
    expect(page.locator("#run-log pre")).to_contain_text(f"log {HOSTILE}")
    expect(page.get_by_text("message <img").first).to_be_attached()
    nothing_ran(page)


def nothing_ran(page: Page) -> None:
    """Scripts and pictures that were put in have had their time once the page answers another question."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
    assert page.evaluate("window.hacked") is None
    assert page.locator("img[src='x']").count() == 0
