"""One table in five forms: for the terminal, as Markdown, CSV, LaTeX and JSON."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepscan.benchmark.evaluation import Estimate
from deepscan.files import part_file

if TYPE_CHECKING:
    from rich.table import Table as RichTable

CAVEAT = (
    "Published figures are as their authors state them. Papers that follow DeepfakeBench usually"
    " select checkpoints on the test sets; here checkpoints are selected on held-out training data,"
    " never on a test set."
)


@dataclass(frozen=True, slots=True)
class Cell:
    """A number, with its 95 % interval and the published number, if there are any."""

    value: float | None
    low: float | None = None
    high: float | None = None
    published: float | None = None
    digits: int = 3
    signed: bool = False
    n: int | None = None  # videos it rests on

    @classmethod
    def of(cls, estimate: Estimate, published: float | None = None, **more: Any) -> Cell:
        """A cell of an estimate with its interval."""
        return cls(estimate.value, estimate.low, estimate.high, published, **more)

    @property
    def difference(self) -> float | None:
        """Measured minus published."""
        if self.value is None or self.published is None:
            return None
        return self.value - self.published

    def lines(self) -> list[str]:
        """Value with interval; then the published one with the difference."""
        listed = []
        plain, plus = f".{self.digits}f", f"+.{self.digits}f"
        own = plus if self.signed else plain
        if self.value is not None:
            listed.append(f"{self.value:{own}}")
            if self.low is not None and self.high is not None:
                listed[0] += f" [{self.low:{own}}, {self.high:{own}}]"
        if self.published is not None:
            listed.append(f"paper {self.published:{plain}}")
            if self.difference is not None:
                listed[-1] += f", {self.difference:{plus}}"
        return listed


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells under columns; a cell is a number, a word, or nothing. `notes` go wherever it goes."""

    name: str  # of its files: "table-1"
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell | str | None, ...]], ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, cells in self.rows:
            if len(cells) != len(self.columns):
                raise ValueError(
                    f"{self.name}, {name}: {len(cells)} cells, {len(self.columns)} columns"
                )


def _words(cell: Cell | str | None) -> list[str]:
    return cell.lines() if isinstance(cell, Cell) else [cell] if cell else []


def to_rich(table: Table) -> RichTable:
    """For the terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table as RichTable
    from rich.text import Text

    listed = RichTable(
        title=Text(table.title), box=SIMPLE_HEAD, pad_edge=False, title_justify="left"
    )
    listed.add_column("", overflow="fold")
    for column in table.columns:
        listed.add_column(Text(column), justify="right")
    for name, cells in table.rows:
        listed.add_row(Text(name), *(Text("\n".join(_words(cell))) for cell in cells))
    return listed


def to_markdown(table: Table) -> str:
    """A heading, the table, its notes."""
    lines = [f"## {table.title}", "", f"| | {' | '.join(table.columns)} |"]
    lines.append("|---" * (len(table.columns) + 1) + "|")
    for name, cells in table.rows:
        lines.append(f"| {' | '.join([name, *('<br>'.join(_words(cell)) for cell in cells)])} |")
    lines += ["", *(f"- {note}" for note in table.notes)] if table.notes else []
    return "\n".join(lines) + "\n"


def to_csv(table: Table) -> str:
    """One line per cell."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["row", "column", "value", "low", "high", "published", "difference", "videos"])
    for name, cells in table.rows:
        for column, cell in zip(table.columns, cells, strict=True):
            if isinstance(cell, Cell):
                numbers = (cell.value, cell.low, cell.high, cell.published, cell.difference, cell.n)
                writer.writerow([name, column, *("" if n is None else n for n in numbers)])
            elif cell:
                writer.writerow([name, column, cell, *[""] * 5])
    return out.getvalue()


def to_latex(table: Table) -> str:
    """A table environment for booktabs; intervals and published figures below the values, smaller."""

    def cell(words: Sequence[str]) -> str:
        if len(words) < 2 and "[" not in "".join(words):
            return _escaped("".join(words))
        value, _, interval = words[0].partition(" ")
        small = [part for part in (interval, *words[1:]) if part]
        inner = r" \\ ".join([_escaped(value), *(rf"\scriptsize {_escaped(s)}" for s in small)])
        return rf"\shortstack{{{inner}}}"

    lines = [
        r"\begin{table}",
        rf"\caption{{{_escaped(' '.join((table.title + '.', *table.notes)))}}}",
        rf"\label{{tab:{table.name}}}",
        rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}",
        r"\toprule",
        f" & {' & '.join(map(_escaped, table.columns))} \\\\",
        r"\midrule",
    ]
    lines += [
        f"{' & '.join([_escaped(name), *(cell(_words(c)) for c in cells)])} \\\\"
        for name, cells in table.rows
    ]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"]) + "\n"


def _escaped(text: str) -> str:
    marked = re.sub(r"([&%$#_{}])", r"\\\1", text.replace("\\", r"\textbackslash "))
    return marked.replace("~", r"\textasciitilde ").replace("^", r"\textasciicircum ")


def to_dict(table: Table) -> dict[str, Any]:
    """Plain values, for JSON."""

    def plain(cell: Cell | str | None) -> Any:
        if not isinstance(cell, Cell):
            return cell or None
        numbers = {
            "value": cell.value,
            "low": cell.low,
            "high": cell.high,
            "published": cell.published,
            "difference": cell.difference,
            "videos": cell.n,
        }
        return {name: number for name, number in numbers.items() if number is not None}

    return {
        "name": table.name,
        "title": table.title,
        "rows": {
            name: {c: plain(cell) for c, cell in zip(table.columns, cells, strict=True)}
            for name, cells in table.rows
        },
        "notes": list(table.notes),
    }


def plain_name(name: str) -> str:
    """A detector's name as part of a file's."""
    return re.sub(r"[^\w+.]+", "-", name)


def write(table: Table, folder: Path) -> list[Path]:
    """Write all four files of a table; return their paths.

    Raises:
        OutputError: one cannot be written.
    """
    forms = {
        "md": to_markdown(table),
        "csv": to_csv(table),
        "tex": to_latex(table),
        "json": json.dumps(to_dict(table), indent=2, allow_nan=False) + "\n",
    }
    paths = []
    for suffix, text in forms.items():
        paths.append(folder / f"{table.name}.{suffix}")
        with part_file(paths[-1]) as part:
            part.write_text(text, "utf-8")
    return paths
