"""`make small-study`: makes every table and figure of the paper, on little material that fits two CPU cores.

Detectors train on side-by-side pairs and are tested on three stand-ins for the paper's ten sets: pairs of
held-out people ("pairs"), crops of FaceForensics++ ("ffpp") and whole clips ("clips"). Finished runs are
kept in OUT and interrupted ones continue; DOCS gets the tables, the figures and a page that says where the
results agree with the paper's direction.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from deepscan.benchmark import page
from deepscan.benchmark.datasets import Crops, TestSet, read_test
from deepscan.benchmark.request import Request, Results
from deepscan.benchmark.run import benchmark
from deepscan.benchmark.runs import RunStore
from deepscan.benchmark.studies import STUDIES
from deepscan.benchmark.tables import Cell, Table
from deepscan.config import Scoring
from deepscan.data.listings import read_json
from deepscan.data.prepare import PrepareSettings, prepare
from deepscan.errors import DataError
from deepscan.files import part_file
from deepscan.judgement.words import counted
from deepscan.training.settings import TrainSettings
from deepscan.training.splits import thin

HELD_OUT = 0.25  # of the pairs' people, to be judged on
SEED = 0  # of drawing them
TOWER = "ViT-B-16-quickgelu"  # whose training steps Table 5 times: the base's


def main(arguments: list[str] | None = None) -> None:
    """Do what is not done yet, then tell it."""
    parser = argparse.ArgumentParser(prog="python -m tools.small_study", description=__doc__)
    parser.add_argument("--pairs", type=Path, required=True, help="with pairs.csv, or prepared")
    parser.add_argument("--crops", type=Path, required=True, help="real/ and fake/ crops")
    parser.add_argument("--clips", type=Path, required=True, help="videos in real/ and fake/")
    parser.add_argument("--out", type=Path, default=Path("small-study"))
    parser.add_argument("--docs", type=Path, help="folder of a page without faces; none: OUT alone")
    parser.add_argument("--only", default=",".join(STUDIES), help="studies, as in table-1,figure-2")
    parser.add_argument("--steps", type=int, default=80, help="of 16 crops, each run's budget")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--patches", type=float, default=1.0, help="share a step looks at")
    parser.add_argument("--frames", type=int, default=8, help="crops to use from a test video")
    parser.add_argument("--seeds", default="0", help="as in 0,1,2")
    parser.add_argument("--timed", type=int, default=8, help="steps of each method in Table 5")
    parser.add_argument("--base", default="clip-vit-b16")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--other", action="append", default=[], help="NAME=FILE of predictions")
    asked = parser.parse_args(arguments)

    def say(line: str) -> None:
        sys.stderr.write(line + "\n")

    sets = stand_ins(asked.pairs, asked.crops, asked.clips, asked.out, asked.frames)
    recipe = TrainSettings(
        (sets[0].folder,),
        asked.out,
        base=asked.base,
        steps=asked.steps,
        epochs=asked.epochs,
        patches=asked.patches,
        device=asked.device,
        workers=1,
    )
    request = Request(
        out=asked.out / "benchmark",
        sets=sets,
        recipe=recipe,
        frames=asked.frames,
        seeds=tuple(int(seed) for seed in asked.seeds.split(",")),
        train=True,
        protocols=("deepscan",),
        scoring=Scoring(device=asked.device),
        timing=(TOWER, asked.timed),
        faces=asked.docs is None,  # of the material, which is not ours to publish
        date=datetime.now(UTC).date().isoformat(),
    )
    outputs = Results(request.out)
    for name in asked.only.split(","):
        one = benchmark(_of(request, name), say)
        outputs.tables.extend(table for table in one.tables if table not in outputs.tables)
        outputs.drawn.extend(one.drawn)
        outputs.files.extend(one.files)
    if asked.other:
        _beside_others(request, asked.other, outputs, say)
    write_page(outputs, request, sets, asked.docs or asked.out / "page")


def _beside_others(
    request: Request, named: list[str], outputs: Results, say: Callable[[str], None]
) -> None:
    """Other tools' predictions beside effort+ours, on the same crops."""
    assert request.recipe is not None
    run = RunStore(request.out / "runs", request.recipe).run("effort+ours", request.seeds[0])
    foreign = tuple((name, Path(file)) for name, _, file in (word.partition("=") for word in named))
    alone = replace(
        request,
        studies=(),
        weights=(str(run.checkpoint),),
        foreign=foreign,
        recipe=None,
        out=request.out / "others",
    )
    one = benchmark(alone, say)
    outputs.tables.extend(table for table in one.tables if table.name == "auc")
    outputs.files.extend(path for path in one.files if path.stem == "auc")


def _of(request: Request, name: str) -> Request:
    return replace(request, studies=(name,), localisation=name in ("methods", "variants"))


# --- material --------------------------------------------------------------------------------------


def stand_ins(pairs: Path, crops: Path, clips: Path, out: Path, frames: int) -> tuple[Crops, ...]:
    """The three stand-ins, prepared where need be, `frames` crops of a video at most.

    The first one's folder is also what runs learn from.

    Raises:
        DataError: material is missing, or not what its name says.
    """
    prepared = pairs
    if (pairs / "pairs.csv").is_file():
        prepared = out / "prepared"
        prepare(pairs, prepared, PrepareSettings(frames=8))
    learn = hold_out(prepared, out / "pairs")
    prepare(clips, out / "clips", PrepareSettings(frames=32))
    sets = (
        TestSet("pairs", "held-out pairs", folder=learn),
        TestSet("ffpp", "FaceForensics++ crops", folder=crops),
        TestSet("clips", "clips", folder=out / "clips"),
    )
    every = (read_test(one, None) for one in sets)
    return tuple(replace(one, rows=thin(one.rows, frames)) for one in every)


def hold_out(prepared: Path, folder: Path) -> Path:
    """List prepared pairs anew, a share of their people as "test"; the pictures stay where they are."""
    document: dict[str, Any] = read_json(prepared / "pairs.json")
    try:
        labels = document["pairs"]
        videos = {
            (label, name): entry
            for label, splits in labels.items()
            for name, entry in splits["train"].items()
        }
        groups = sorted({str(entry["group"]) for entry in videos.values()})
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{prepared}/pairs.json: not a listing of pairs as deepscan prepare writes it ({error})"
        ) from error
    held = set(
        np.random.default_rng(SEED).permutation(groups)[: round(HELD_OUT * len(groups))].tolist()
    )
    outputs: dict[str, dict[str, dict[str, Any]]] = {
        label: {"train": {}, "val": {}, "test": {}} for label in labels
    }
    for (label, name), entry in videos.items():
        outputs[label]["test" if str(entry["group"]) in held else "train"][name] = entry
    with part_file(folder / "pairs.json") as part:
        part.write_text(json.dumps({"pairs": outputs}, indent=1) + "\n", "utf-8")
    link = folder / "pairs"
    if not link.exists():
        os.symlink((prepared / "pairs").resolve(), link, target_is_directory=True)
    return folder


# --- the page --------------------------------------------------------------------------------------

HEAD = """# The small study

Every table and figure of the paper on little material: trained on {train},
judged on {sets}, which stand in
for all of the paper's sets, whatever a title says. It shows that every part works and in which direction it
pulls, not how good the paper's method is; the paper trains on FaceForensics++ with CLIP ViT-L/14 on a GPU and
judges on ten sets.

Made by `make small-study` on {date}: {budget};
base {base}, device {device}. With so few steps a difference says who learns faster, not who ends better;
a loss that has hardly begun to act shows as 0.000, and a gain whose interval holds 0 is none. Figures leave
the faces out: they are other people's. All of it, with JSON, LaTeX and SVG, comes from kept predictions; the
same command draws it anew.

"""


def write_page(outputs: Results, request: Request, sets: Sequence[Crops], folder: Path) -> None:
    """README.md of all tables and figures, with their pictures and CSVs beside it."""
    assert request.recipe is not None
    recipe = request.recipe
    head = HEAD.format(
        train="side-by-side pairs of face-swap models' public demos",
        sets=", ".join(f"{s.test_set.title} (`{s.short}`)" for s in sets),
        date=request.date,
        budget=f"at most {recipe.steps} steps of {recipe.batch} crops a run, within"
        f" {counted(recipe.epochs, 'epoch')}, {recipe.patches:.0%} of the patches in each step; at most"
        f" {counted(request.frames, 'crop')} of a test video;"
        f" {'seed' if len(request.seeds) == 1 else 'seeds'} {', '.join(map(str, request.seeds))}",
        base=recipe.base,
        device=recipe.device,
    )
    page.write(folder, head, [directions(outputs.tables), *outputs.tables], outputs, _title)


def _title(name: str) -> str:
    key = next((key for key in STUDIES if name.startswith(key)), name)
    test_set = name.removeprefix(key).strip("-")
    return (STUDIES[key].title if key in STUDIES else name) + (f" ({test_set})" if test_set else "")


def directions(tables: list[Table]) -> Table:
    """Of each comparison that the paper publishes: its sign there and here, and whether here is chance."""
    rows: list[tuple[str, tuple[Cell | str | None, ...]]] = []
    for table in tables:
        study = STUDIES.get(table.name)
        if study is None or study.published is None or study.kind != "auc":
            continue
        figures = study.published.figures()
        for row, cells in table.rows:
            other = study.other(row)
            gain = dict(zip(table.columns, cells, strict=True)).get("gain, on average")
            if other is None or not isinstance(gain, Cell) or gain.value is None:
                continue
            published = _published_gain(figures.get(row, {}), figures.get(other, {}))
            if published is None:
                continue
            rows.append(
                (
                    f"{table.title.partition(':')[0]}: {row} over {other}",
                    (f"{published:+.3f}", gain, _verdict(gain, published)),
                )
            )
    notes = (
        "The paper's gain is over its own sets, ours over the stand-ins: compare signs, not sizes. Within"
        " chance: the 95 % interval of ours holds 0.",
    )
    return Table(
        "directions",
        "What agrees with the paper's direction",
        ("paper", "here", "which says"),
        tuple(rows),
        notes,
    )


def _published_gain(ours: dict[str, float], theirs: dict[str, float]) -> float | None:
    """Difference of averages where stated, else over the columns that both have."""
    both = ["avg"] if "avg" in ours and "avg" in theirs else sorted(set(ours) & set(theirs))
    return float(np.mean([ours[c] - theirs[c] for c in both])) if both else None


def _verdict(gain: Cell, published: float) -> str:
    assert gain.value is not None
    assert gain.low is not None
    assert gain.high is not None
    if gain.value == 0:
        return "no difference"
    same = "same direction" if gain.value * published > 0 else "other direction"
    return f"{same}, within chance" if gain.low <= 0 <= gain.high else same


if __name__ == "__main__":
    main()
