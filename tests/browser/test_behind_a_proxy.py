"""The page behind a proxy with TLS, by a name of its own, with a password."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import expect, sync_playwright

from tests.browser.conftest import ARGS, chromium, wait_until_open
from tests.browser.example_runs import example_run, open_tab
from tests.reverse_proxy import tls_proxy
from tests.running_app import end_app, free_port, start_app
from trainer.runs.store import Workspace

NAME = "atelier.test"


def test_the_page_by_another_name(tmp_path: Path) -> None:
    own, other = free_port(), free_port()
    users = tmp_path / "users"
    users.write_text("anna:a long password\n")
    workspace = tmp_path / "workspace"
    example_run(Workspace(workspace), "seen-from-afar", steps=20)
    with tls_proxy(other, f"http://127.0.0.1:{own}", tmp_path), sync_playwright() as playwright:
        app = start_app(workspace, own, ["--auth-file", str(users), "--allowed-host", f"https://{NAME}:{other}/"])
        browser = playwright.chromium.launch(
            executable_path=chromium(), args=[*ARGS, f"--host-resolver-rules=MAP {NAME} 127.0.0.1"]
        )
        try:
            context = browser.new_context(
                ignore_https_errors=True, http_credentials={"username": "anna", "password": "a long password"}
            )
            page = context.new_page()
            refused: list[str] = []
            page.on("console", lambda told: refused.append(told.text) if told.type == "error" else None)
            page.goto(f"https://{NAME}:{other}", timeout=120_000)
            wait_until_open(page)
            open_tab(page, "Runs")
            expect(page.locator("#run-head h2")).to_have_text("seen-from-afar", timeout=120_000)
            Workspace(workspace).runs()[0].update(name="still seen")
            expect(page.locator("#run-head h2")).to_have_text("still seen", timeout=120_000)
            assert refused == []
        finally:
            browser.close()
            end_app(app, workspace)
