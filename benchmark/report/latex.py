"""A leaderboard as LaTeX tables that use the packages booktabs and graphicx."""

from collections.abc import Sequence

from benchmark.leaderboard.rows import Board, Overall
from benchmark.report.tables import (
    header,
    heading,
    legend,
    notes,
    overall_header,
    overall_heading,
    overall_notes,
    overall_rows,
    table_rows,
)
from common.limits import printable

SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#",
    "%": r"\%", "_": r"\_", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    "±": r"$\pm$", "×": r"$\times$", "·": r"$\cdot$", "−": r"$-$", "↑": r"$\uparrow$",
    "↓": r"$\downarrow$", "δ": r"$\delta$", "Δ": r"$\Delta$", "β": r"$\beta$", "–": "--",
    "…": r"\ldots{}", "≤": r"$\leq$", "≥": r"$\geq$", "→": r"$\rightarrow$",
    "\n": " ", "\r": " ", "\t": " ",
}  # fmt: skip
"""Characters that LaTeX reads as commands or that its standard fonts lack."""
_TABLE = str.maketrans(SPECIAL)


def escape(text: str) -> str:
    """``text`` with LaTeX's special characters escaped."""
    return printable(text).translate(_TABLE)


def latex(tables: Sequence[Board], across: Sequence[Overall] = ()) -> str:
    """LaTeX source for ``\\input``: a table for each board and each table across boards."""
    parts = ["% needs \\usepackage{booktabs,graphicx}", f"% {escape(legend(tables))}"]
    for board in tables:
        caption = f"{heading(board)}. {board.protocol}. {' '.join(notes(board))}"
        parts.append(_table(header(board), table_rows(board), caption))
    for table in across:
        caption = f"{overall_heading(table)}. {table.title}. {' '.join(overall_notes(table))}"
        rows = overall_rows(table)
        parts.append(_table(overall_header(table), rows, caption))
    return "\n\n".join(parts) + "\n"


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> str:
    kinds = "".join("l" if title in ("decoder", "backbone") else "r" for title in titles)
    # {} keeps LaTeX from reading a [ at the start as the argument of the preceding \\
    lines = ["{}" + " & ".join(map(escape, row)) + r" \\" for row in rows]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escape(caption)}}}",
            r"\resizebox{\linewidth}{!}{%",
            rf"\begin{{tabular}}{{{kinds}}}",
            r"\toprule",
            " & ".join(map(escape, titles)) + r" \\",
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}}",
            r"\end{table}",
        ]
    )
