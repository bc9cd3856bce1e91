"""Tables for a paper: booktabs, and text that LaTeX takes literally."""

from __future__ import annotations

from collections.abc import Sequence

from scratchpad_rag.evaluate.statistics import Interval
from scratchpad_rag.report.grid_runs import Names
from scratchpad_rag.report.grid_tables import columns, table_order
from scratchpad_rag.report.labels import clean, method_name
from scratchpad_rag.report.measures import DataSetMeasures
from scratchpad_rag.report.verdicts import is_real, title_of

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "·": r"\textperiodcentered{}",
    "–": "--",
    "−": r"\ensuremath{-}",
    "…": r"\ldots{}",
}
_NOTHING = "--"


def escape(text: str) -> str:
    r"""Text that LaTeX prints as it stands; other scripts need a Unicode engine.

    >>> print(escape("R&D_1 50% {x}"))
    R\&D\_1 50\% \{x\}
    """
    flat = " ".join(clean(text).split())
    return "".join(_SPECIAL.get(character, character) for character in flat)


def accuracy_table(measures: Sequence[DataSetMeasures], names: Names) -> str:
    """A row a method, a column a data set and run: accuracy in percent with its 95% interval.

    The best way of reading of a data set is bold.
    """
    across = columns(measures, names)
    rows = []
    for base in table_order(measures, names):
        cells = []
        for column in across:
            key = names.key(base, column.run)
            best = key == column.measures.best()
            cells.append(_rate(column.measures.accuracy.get(key), best))
        rows.append(" & ".join([escape(method_name(base)), *cells]) + r" \\")
    titles = [escape(column.heading) for column in across]
    note = (
        "Accuracy (subspan exact match, percent) over all cells with the gold passages inserted, "
        "with 95\\% intervals from resampling questions. Bold: the most accurate way of reading."
    )
    return _table(["Method", *titles], rows, "l" + "c" * len(across), note, "tab:accuracy")


def paired_table(measures: Sequence[DataSetMeasures], names: Names) -> str:
    """A row a comparison over all cells of a data set; a star where it is beyond chance."""
    rows = []
    for one in measures:
        for comparison in one.pooled:
            gap = comparison.difference.interval
            star = r"$^{*}$" if is_real(comparison) else ""
            cells = [
                escape(title_of(one.dataset)),
                escape(names.pair(comparison.method, comparison.baseline)),
                f"${100 * gap.estimate:+.1f}${star}",
                f"$[{100 * gap.low:+.1f}, {100 * gap.high:+.1f}]$",
                _p(comparison.difference.p_value),
                _p(comparison.adjusted_p),
            ]
            rows.append(" & ".join(cells) + r" \\")
    note = (
        "Paired differences in accuracy (points) on the same questions and cells, 95\\% intervals "
        "from resampling questions, $p$ of the sign-flip test, and $p$ after Holm's correction "
        "over all rows. A star: the interval excludes zero and the corrected $p$ is below 0.05."
    )
    head = ["Data set", "Methods", "Difference", "95\\% interval", "$p$", "$p$ (Holm)"]
    return _table(head, rows, "llrcrr", note, "tab:paired")


def _table(head: Sequence[str], rows: Sequence[str], columns: str, note: str, label: str) -> str:
    lines = [
        "% needs \\usepackage{booktabs}; to be read in with \\input",
        r"\begin{table}[t]",
        r"\centering\small",
        rf"\begin{{tabular}}{{@{{}}{columns}@{{}}}}",
        r"\toprule",
        " & ".join(head) + r" \\",
        r"\midrule",
        *rows,
        r"\bottomrule",
        r"\end{tabular}",
        rf"\caption{{{note}}}",
        rf"\label{{{label}}}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _rate(rate: Interval | None, best: bool) -> str:
    if rate is None:
        return _NOTHING
    figure = f"{100 * rate.estimate:.1f}"
    figure = rf"\textbf{{{figure}}}" if best else figure
    return rf"{figure} {{\scriptsize [{100 * rate.low:.1f}, {100 * rate.high:.1f}]}}"


def _p(p: float) -> str:
    return "$<$0.001" if p < 0.001 else f"{p:.3f}"
