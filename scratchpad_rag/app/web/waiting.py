"""What is shown while the model loads, when it cannot, and to those who wait in the queue."""

from __future__ import annotations

from markupsafe import Markup

_PANEL = Markup(
    '<section class="sp sp-loading{classes}" role="{role}" aria-live="polite">'
    '<p class="sp-loading-title">{title}</p><p class="sp-loading-text">{message}</p>'
    "{bar}</section>"
)
_BAR = Markup('<div class="sp-progress" aria-hidden="true"><span></span></div>')


def loading_panel(message: str, seconds: float, failed: bool = False) -> str:
    """What is being loaded and for how long, or why it failed; line breaks in `message` stay."""
    if failed:
        title = "No model could be loaded"
        return str(
            _PANEL.format(classes=" sp-failed", role="alert", title=title, message=message, bar="")
        )
    # The seconds are hidden from screen readers, which would read each of them out.
    title = Markup('Loading <span class="sp-seconds" aria-hidden="true">{:.0f} s</span>')
    return str(
        _PANEL.format(
            classes="", role="status", title=title.format(seconds), message=message, bar=_BAR
        )
    )


def queue_line(ahead: int) -> str:
    """How many people are served before this one; empty for none."""
    if ahead <= 0:
        return ""
    who = "1 person is" if ahead == 1 else f"{ahead} people are"
    return str(
        Markup(
            '<p class="sp sp-queue" role="status" aria-live="polite">'
            "{} before you in the queue. Your run starts by itself.</p>"
        ).format(who)
    )


def sentence(text: str) -> str:
    """What went wrong, as a sentence.

    >>> sentence("there is no question")
    'There is no question.'
    """
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")
