"""A page in Markdown of tables and figures, with their pictures and CSVs beside it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from deepscan.benchmark.request import Results
from deepscan.benchmark.tables import Table, to_markdown
from deepscan.files import part_file


def write(
    folder: Path, head: str, tables: Sequence[Table], outputs: Results, title: Callable[[str], str]
) -> None:
    """README.md in `folder`: `head`, the tables, then the figures, each under its `title`.

    Raises:
        OutputError: `folder` cannot be written.
    """
    pictures = {path.stem: path for path in outputs.files if path.suffix == ".png"}
    parts = [head, *map(to_markdown, tables)]
    parts += [
        f"## {title(name)}\n\n![{title(name)}]({pictures[name].name})\n" for name in outputs.drawn
    ]
    names = {table.name for table in tables} | set(outputs.drawn)
    folder.mkdir(parents=True, exist_ok=True)
    for path in outputs.files:
        if path.suffix in (".png", ".csv") and path.stem in names:
            with part_file(folder / path.name) as part:
                shutil.copyfile(path, part)
    with part_file(folder / "README.md") as part:
        part.write_text("\n".join(parts), "utf-8")
