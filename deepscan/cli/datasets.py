"""The command `deepscan datasets`: shows which test sets are here."""

from __future__ import annotations

import json as jsonlib
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Option

from deepscan.cli import options
from deepscan.cli.console import say

if TYPE_CHECKING:
    from deepscan.benchmark.datasets import Inventory


def datasets(
    root: options.Root = None,
    only: Annotated[
        str | None,
        Option("--datasets", help="Short names, as in cdf2,dfdc; all of them by default."),
    ] = None,
    compression: options.Compression = "c23",
    json: Annotated[bool, Option("--json", help="One JSON document to stdout.")] = False,
) -> None:
    """Show which test sets are here, prepared or as published, and whether they are complete.

    The numbers count videos. Sets can be prepared by deepscan prepare or by DeepfakeBench. What is missing is
    listed on stderr, with the place to get it.
    """
    from deepscan.benchmark.datasets import SETS, inventory, parse
    from deepscan.config import data_root

    place = data_root(root)
    asked = parse(only) if only else list(SETS.values())
    found = [inventory(test_set, place, compression) for test_set in asked]
    if json:
        typer.echo(jsonlib.dumps({one.test_set.short: _plain(one) for one in found}, indent=2))
        return
    _print_table(found)
    for one in found:
        short, (folder, page) = one.test_set.short, one.test_set.layout
        if one.layout_missing:
            first = one.layout_missing[0]
            say(
                f"{short}: {len(one.layout_missing)} listed videos are missing, the first is {first}"
            )
        if one.crops is None and one.layout is not None:
            say(f"{short}: {one.problem}")
        elif one.crops is None:
            say(
                f"{short}: not under {place}; its folder is {folder}"
                + (f", from {page}" if page else "")
            )
        for words in one.differs if one.crops is not None else ():
            say(f"{short}: {words}")


def _print_table(found: list[Inventory]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("", "set", "split"):
        table.add_column(name, overflow="fold")
    for name in ("real", "manipulated", "expected"):
        table.add_column(name, justify="right")
    table.add_column("state", overflow="fold")
    for one in found:
        sides = sorted({split for split, _ in (one.videos or one.layout_videos)}, key=_order)
        state = (
            "prepared" + (", not as expected" if one.differs else "")
            if one.crops is not None
            else "official layout" + (", not whole" if one.layout_missing else "")
            if one.layout is not None
            else "missing"
        )
        for i, split in enumerate(sides or ["test"]):
            counts = one.videos if one.crops is not None else one.layout_videos
            real, fake = (str(counts[split, k]) if (split, k) in counts else "-" for k in (0, 1))
            names = (one.test_set.short, one.test_set.title, state) if i == 0 else ("", "", "")
            row = (names[0], names[1], split or "-", real, fake, _expected(one, split), names[2])
            table.add_row(*map(Text, row))
    Console().print(table)


def _order(split: str) -> int:
    return ("train", "val", "test", "").index(split)


def _expected(one: Inventory, split: str) -> str:
    wanted = one.test_set.expected
    about = "about " if one.test_set.about else ""
    if (split, 0) in wanted:
        return f"{about}{wanted[split, 0]} + {wanted[split, 1]}"
    return f"{about}{one.test_set.total}" if split == "test" and one.test_set.total else ""


def _plain(one: Inventory) -> dict[str, Any]:
    def by_class(counts: Any) -> dict[str, dict[str, int]]:
        by_split: dict[str, dict[str, int]] = {}
        for (split, label), count in sorted(counts.items()):
            by_split.setdefault(split, {})["manipulated" if label else "real"] = count
        return by_split

    folder, page = one.test_set.layout
    return {
        "title": one.test_set.title,
        "prepared": None if one.crops is None else str(one.crops),
        "videos": by_class(one.videos),
        "without_crops": one.cropless,
        "expected": by_class(one.test_set.expected),
        "expected_in_test": one.test_set.total,
        "differs": one.differs if one.crops is not None else [],
        "official_layout": None if one.layout is None else str(one.layout),
        "official_videos": by_class(one.layout_videos),
        "official_missing": [str(path) for path in one.layout_missing],
        "folder": folder,
        "had_from": page,
        "problem": one.problem,
    }
