"""The look: one palette in a light and a dark form, system fonts, and the page's own style sheet and script."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

ASSETS = Path(__file__).resolve().parent / "assets"
STYLE_SHEETS = ("page.css", "pictures.css")
"""Those of the whole page; what else lies in ``assets`` belongs to single components."""


@dataclass(frozen=True)
class Palette:
    """Colours by what they are for. Text on its ground reaches 4.5:1, edges of controls 3:1 (WCAG 2.2 AA)."""

    ground: str
    panel: str
    sunken: str
    line: str
    edge: str
    text: str
    quiet: str
    accent: str
    accent_hover: str
    on_accent: str
    accent_text: str
    accent_soft: str
    problem: str
    problem_soft: str
    good: str


LIGHT = Palette(
    ground="#f6f5f1",
    panel="#ffffff",
    sunken="#f0eee8",
    line="#e2dfd6",
    edge="#8c877a",
    text="#1f1d19",
    quiet="#5b574d",
    accent="#1e5a52",
    accent_hover="#16463f",
    on_accent="#ffffff",
    accent_text="#1e5a52",
    accent_soft="#e3eeeb",
    problem="#a3271c",
    problem_soft="#fbebe8",
    good="#2c6a2f",
)
DARK = Palette(
    ground="#161615",
    panel="#1f1f1d",
    sunken="#191918",
    line="#34332f",
    edge="#7d796d",
    text="#eeece6",
    quiet="#b4b0a4",
    accent="#7cc4b6",
    accent_hover="#96d5c8",
    on_accent="#10211e",
    accent_text="#8fd0c3",
    accent_soft="#213431",
    problem="#f0978b",
    problem_soft="#3a211e",
    good="#8cc78f",
)

_ROLES: dict[str, str] = {
    "body_background_fill": "ground",
    "body_text_color": "text",
    "body_text_color_subdued": "quiet",
    "background_fill_primary": "panel",
    "background_fill_secondary": "sunken",
    "border_color_primary": "line",
    "border_color_accent": "accent",
    "border_color_accent_subdued": "edge",
    "color_accent_soft": "accent_soft",
    "link_text_color": "accent_text",
    "link_text_color_hover": "accent_hover",
    "link_text_color_active": "accent_text",
    "link_text_color_visited": "accent_text",
    "code_background_fill": "sunken",
    "block_background_fill": "panel",
    "block_border_color": "line",
    "block_info_text_color": "quiet",
    "block_label_background_fill": "panel",
    "block_label_border_color": "line",
    "block_label_text_color": "quiet",
    "block_title_text_color": "text",
    "panel_background_fill": "panel",
    "panel_border_color": "line",
    "accordion_text_color": "text",
    "table_text_color": "text",
    "table_border_color": "line",
    "table_even_background_fill": "panel",
    "table_odd_background_fill": "sunken",
    "table_row_focus": "accent_soft",
    "checkbox_background_color": "panel",
    "checkbox_background_color_hover": "panel",
    "checkbox_background_color_focus": "panel",
    "checkbox_background_color_selected": "accent",
    "checkbox_border_color": "edge",
    "checkbox_border_color_hover": "accent",
    "checkbox_border_color_focus": "accent",
    "checkbox_border_color_selected": "accent",
    "checkbox_label_background_fill": "panel",
    "checkbox_label_background_fill_hover": "sunken",
    "checkbox_label_background_fill_selected": "accent_soft",
    "checkbox_label_border_color": "line",
    "checkbox_label_border_color_hover": "edge",
    "checkbox_label_border_color_selected": "accent",
    "checkbox_label_text_color": "text",
    "checkbox_label_text_color_selected": "text",
    "error_background_fill": "problem_soft",
    "error_border_color": "problem",
    "error_text_color": "problem",
    "error_icon_color": "problem",
    "input_background_fill": "panel",
    "input_background_fill_focus": "panel",
    "input_background_fill_hover": "panel",
    "input_border_color": "edge",
    "input_border_color_hover": "quiet",
    "input_border_color_focus": "accent",
    "input_placeholder_color": "quiet",
    "loader_color": "accent",
    "slider_color": "accent",
    "stat_background_fill": "accent_soft",
    "button_primary_background_fill": "accent",
    "button_primary_background_fill_hover": "accent_hover",
    "button_primary_border_color": "accent",
    "button_primary_border_color_hover": "accent_hover",
    "button_primary_text_color": "on_accent",
    "button_primary_text_color_hover": "on_accent",
    "button_secondary_background_fill": "panel",
    "button_secondary_background_fill_hover": "sunken",
    "button_secondary_border_color": "edge",
    "button_secondary_border_color_hover": "quiet",
    "button_secondary_text_color": "text",
    "button_secondary_text_color_hover": "text",
    "button_cancel_background_fill": "panel",
    "button_cancel_background_fill_hover": "problem_soft",
    "button_cancel_border_color": "problem",
    "button_cancel_border_color_hover": "problem",
    "button_cancel_text_color": "problem",
    "button_cancel_text_color_hover": "problem",
}
_SHAPES: dict[str, Any] = {
    "color_accent": "#2c7a6f",
    "block_border_width": "0px",
    "block_border_width_dark": "0px",
    "block_shadow": "none",
    "block_shadow_dark": "none",
    "block_padding": "0px",
    "block_radius": "10px",
    "block_label_radius": "8px",
    "block_label_shadow": "none",
    "block_title_text_weight": "600",
    "block_title_text_size": "0.875rem",
    "block_title_background_fill": "transparent",
    "block_title_background_fill_dark": "transparent",
    "block_title_padding": "0",
    "block_info_text_size": "0.8125rem",
    "checkbox_label_padding": "8px 12px",
    "checkbox_label_shadow": "none",
    "checkbox_label_shadow_dark": "none",
    "checkbox_border_radius": "4px",
    "checkbox_shadow": "none",
    "input_border_width": "1px",
    "input_border_width_dark": "1px",
    "input_shadow": "none",
    "input_shadow_dark": "none",
    "input_shadow_focus": "0 0 0 3px *color_accent_soft",
    "input_shadow_focus_dark": "0 0 0 3px *color_accent_soft",
    "input_radius": "8px",
    "input_padding": "9px 12px",
    "input_text_size": "0.9375rem",
    "form_gap_width": "0px",
    "layout_gap": "20px",
    "shadow_drop": "none",
    "shadow_drop_lg": "0 8px 30px rgb(0 0 0 / 0.12)",
    "button_border_width": "1px",
    "button_large_radius": "8px",
    "button_medium_radius": "8px",
    "button_small_radius": "6px",
    "button_large_padding": "10px 20px",
    "button_medium_padding": "8px 16px",
    "button_large_text_size": "0.9375rem",
    "button_medium_text_size": "0.9375rem",
    "button_large_text_weight": "600",
    "button_medium_text_weight": "600",
    "button_primary_shadow": "none",
    "button_secondary_shadow": "none",
    "button_primary_shadow_dark": "none",
    "button_secondary_shadow_dark": "none",
    "table_radius": "8px",
    "section_header_text_weight": "600",
}


def make_theme() -> gr.themes.Base:
    """Gradio's theme from the palette. System fonts only: nothing is fetched, and the bundled ones lack letters."""
    theme = gr.themes.Base(
        font=["system-ui", "-apple-system", "Segoe UI", "Roboto", "Liberation Sans", "sans-serif"],
        font_mono=["ui-monospace", "SF Mono", "Cascadia Mono", "Liberation Mono", "monospace"],
    )
    colours = {name: getattr(LIGHT, role) for name, role in _ROLES.items()}
    colours |= {f"{name}_dark": getattr(DARK, role) for name, role in _ROLES.items()}
    return theme.set(**colours, **_SHAPES)


def style_sheet() -> str:
    """The palette as CSS variables (``--atelier-text`` ...) followed by the style sheets in ``assets``."""
    sheets = "\n".join(asset(name) for name in STYLE_SHEETS)
    return f":root {{{_variables(LIGHT)}}}\n.dark {{{_variables(DARK)}}}\n{sheets}"


def head() -> str:
    """What goes into the page's head: scripts that find fields, show problems beside them, keep the theme, and tell
    in the title how the runs stand."""
    scripts = "".join(f"\n<script>\n{asset(name)}\n</script>" for name in ("page.js", "tidings.js"))
    return f'<meta name="color-scheme" content="light dark">{scripts}'


def _variables(palette: Palette) -> str:
    return " ".join(f"--atelier-{name.replace('_', '-')}: {value};" for name, value in vars(palette).items())


def asset(name: str) -> str:
    """The text of a script, style sheet or drawing of ``assets``."""
    return (ASSETS / name).read_text(encoding="utf-8")
