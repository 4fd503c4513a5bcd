"""Colours that can be read, and a page that fetches nothing."""

from __future__ import annotations

import re

import pytest

from ui import theme
from ui.theme import DARK, LIGHT, Palette

TEXT = ["text", "quiet", "accent_text", "problem", "good"]
GROUNDS = ["ground", "panel", "sunken"]


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_the_formula_knows_black_and_white() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("ground", GROUNDS)
@pytest.mark.parametrize("text", TEXT)
def test_text_can_be_read(palette: Palette, text: str, ground: str) -> None:
    assert contrast(getattr(palette, text), getattr(palette, ground)) >= 4.5


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
def test_buttons_problems_and_edges_can_be_seen(palette: Palette) -> None:
    assert contrast(palette.on_accent, palette.accent) >= 4.5
    assert contrast(palette.on_accent, palette.accent_hover) >= 4.5
    assert contrast(palette.problem, palette.problem_soft) >= 4.5
    assert contrast(palette.text, palette.accent_soft) >= 4.5
    assert contrast(palette.edge, palette.panel) >= 3


def test_nothing_is_fetched_from_elsewhere() -> None:
    made = theme.make_theme()
    fonts = made._font_css + made._stylesheets
    assert not any("http" in str(each) for each in fonts)
    assert not re.search(r"@import|url\(|https?://", theme.style_sheet())
    assert "src=" not in theme.head()


def test_both_palettes_are_in_the_style_sheet() -> None:
    css = theme.style_sheet()
    assert f"--atelier-accent: {LIGHT.accent};" in css and f"--atelier-accent: {DARK.accent};" in css
