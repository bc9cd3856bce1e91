"""Names of methods and numbers as people read them; every table, plot and page uses these."""

from __future__ import annotations

import math
import re

from scratchpad_rag.evaluate.statistics import Interval

METHOD_NAMES = {
    "closed_book": "Closed-book",
    "zero_shot": "Zero-shot",
    "sft": "SFT",
    "scratchpad": "Scratchpad",
    "scratchpad_verbatim": "Scratchpad, verbatim",
    "gold_only": "Gold only",
    "rerank_then_read": "Rerank, then read",
    "scratchpad_gold_forced": "Scratchpad, gold quotes forced",
    "scratchpad_wrong_forced": "Scratchpad, wrong quotes forced",
}
NOTHING = "–"  # what a table shows where there is no number
_SHIPPED = "_shipped"
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")


def method_name(method: str) -> str:
    """The name of a method for people; one that is not known keeps its own.

    >>> method_name("rerank_then_read"), method_name("sft_shipped"), method_name("my_run")
    ('Rerank, then read', 'SFT (trained beforehand)', 'my_run')
    """
    base = method.removesuffix(_SHIPPED)
    name = METHOD_NAMES.get(base, base)
    return f"{name} (trained beforehand)" if method.endswith(_SHIPPED) else clean(name)


def clean(text: str) -> str:
    r"""Text that any file and page can hold: other control characters and halves of pairs go.

    >>> clean("tab\tstays, bell\a goes")
    'tab\tstays, bell\ufffd goes'
    """
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def percent(rate: float | None) -> str:
    """A rate in 0..1 as a whole percentage.

    >>> percent(0.625), percent(1.0), percent(None)
    ('62%', '100%', '–')
    """
    return NOTHING if rate is None or not math.isfinite(rate) else f"{100 * rate:.0f}%"


def interval_range(interval: Interval) -> str:
    """The limits of an interval of a rate in percent.

    >>> interval_range(Interval(0.5, 0.412, 0.6, 80))
    '41–60'
    """
    return f"{100 * interval.low:.0f}–{100 * interval.high:.0f}"


def accuracy_text(interval: Interval) -> str:
    """A rate with its interval, both in percent.

    >>> accuracy_text(Interval(0.5, 0.412, 0.6, 80))
    '50% (41–60)'
    """
    return f"{percent(interval.estimate)} ({interval_range(interval)})"


def points(difference: float) -> str:
    """A difference of rates in percentage points, with its sign and a decimal.

    >>> points(0.104), points(-0.02), points(0.0)
    ('+10.4', '−2.0', '0.0')
    """
    size = f"{abs(100 * difference):.1f}"
    if size == "0.0":
        return size
    return ("+" if difference > 0 else "−") + size


def p_value(p: float) -> str:
    """
    >>> p_value(0.0412), p_value(0.00003), p_value(1.0)
    ('p = 0.041', 'p < 0.001', 'p = 1.000')
    """
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def amount(value: float) -> str:
    """A mean of tokens, passes or seconds: three figures, thousands apart.

    >>> amount(2714.6), amount(38.25), amount(4.0), amount(0.0314), amount(0)
    ('2,715', '38.2', '4.00', '0.031', '0')
    """
    if not math.isfinite(value):
        return NOTHING
    if value == 0:
        return "0"
    size = abs(value)
    decimals = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3
    return f"{value:,.{decimals}f}"


def duration(seconds: float) -> str:
    """
    >>> duration(42.3), duration(125), duration(7322)
    ('42 s', '2 min 5 s', '2 h 2 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def count(number: int, noun: str) -> str:
    """
    >>> count(1, "question"), count(1200, "question")
    ('1 question', '1,200 questions')
    """
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
