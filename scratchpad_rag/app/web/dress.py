"""How Gradio's own parts look: a theme in the page's colours, and the style around them."""

from __future__ import annotations

from importlib import resources

import gradio as gr

from scratchpad_rag.app.web.anchors import script, style

# Of Gradio's parts; the variables are page.css's, which change with light and dark.
_LOOKS = {
    "body_text_color_subdued": "var(--sp-muted)",
    "block_background_fill": "transparent",
    "block_border_width": "0px",
    "block_padding": "0px",
    "block_label_text_color": "var(--sp-muted)",
    "block_title_text_color": "var(--sp-muted)",
    "block_info_text_color": "var(--sp-muted)",
    "border_color_primary": "var(--sp-rule)",
    "input_background_fill": "var(--sp-paper)",
    "input_background_fill_focus": "var(--sp-paper)",
    "input_border_color": "var(--sp-edge)",
    "input_border_color_focus": "var(--sp-blue)",
    "input_border_width": "1px",
    "input_placeholder_color": "var(--sp-muted)",
    "slider_color": "var(--sp-ink)",
    "button_primary_background_fill": "var(--sp-ink)",
    "button_primary_background_fill_hover": "var(--sp-blue)",
    "button_primary_text_color": "var(--sp-paper)",
    "button_primary_border_color": "var(--sp-ink)",
    "button_secondary_background_fill": "var(--sp-panel)",
    "button_secondary_background_fill_hover": "var(--sp-rule)",
    "button_secondary_text_color": "var(--sp-ink)",
    "button_secondary_border_color": "var(--sp-edge)",
    "button_border_width": "1px",
}


def theme() -> gr.themes.Base:
    """Quiet, in the system's own fonts, so that none has to be fetched; colours are page.css's."""
    base = gr.themes.Base(
        primary_hue=gr.themes.colors.zinc,
        neutral_hue=gr.themes.colors.zinc,
        radius_size=gr.themes.sizes.radius_sm,
        font=("system-ui", "-apple-system", "Segoe UI", "Roboto", "Arial", "sans-serif"),
        font_mono=("ui-monospace", "Menlo", "Consolas", "Liberation Mono", "monospace"),
    )
    # These two are wanted before the page knows whether it is night: as --sp-paper and --sp-ink.
    first = {
        "body_background_fill": "#fefefe",
        "body_background_fill_dark": "#16161a",
        "body_text_color": "#1d1d21",
        "body_text_color_dark": "#e9e9ec",
    }
    dark = {
        f"{name}_dark": value for name, value in _LOOKS.items() if hasattr(base, f"{name}_dark")
    }
    return base.set(**{**_LOOKS, **dark, **first})


def head() -> str:
    """What goes into the page's head: our own style and script.

    Gradio's own way for styles (`css`) rewrites selectors and drops `@container`.
    """
    shell = resources.files("scratchpad_rag.app.web") / "shell.css"
    css = style() + shell.read_text(encoding="utf-8")
    return f"<style>{css}</style><script>{script()}</script>"
