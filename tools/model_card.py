"""Measures a trained detector on the people its run held out: `make model-card RUN=runs/lora/run`.

The numbers of a model card come from here: accuracy on each set, the verdicts, the effect of distortions,
and the errors. The page holds numbers only; the pictures of errors belong to others and stay in OUT.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from deepscan.benchmark import evaluation, page, predict, predictions
from deepscan.benchmark.datasets import Crops, TestSet
from deepscan.benchmark.evaluation import Videos
from deepscan.benchmark.request import Request
from deepscan.benchmark.run import benchmark
from deepscan.benchmark.tables import Table
from deepscan.config import Scoring
from deepscan.data.crops import CropRow
from deepscan.errors import DataError, SettingsError
from deepscan.files import part_file
from deepscan.judgement.verdict import thresholds_of
from deepscan.model.header import Header, read_header
from deepscan.records import VerdictName
from deepscan.training.data import picture
from deepscan.training.folder import RunFolder
from deepscan.training.rows import shown
from deepscan.training.splits import BLENDED, thin

KINDS = (
    VerdictName.NO_MANIPULATION_INDICATED,
    VerdictName.INCONCLUSIVE,
    VerdictName.MANIPULATION_INDICATED,
)
ERRORS = 12  # of each kind that are listed
DISTORTED_FRAMES = 2  # crops of a video that are distorted in all ways and strengths

HEAD = """# What {name} does on people it was not trained on

Of each set that it was trained on, `deepscan train` held a share of the people out ({share:g}, drawn by
seed {seed}): these. By them the epoch was chosen and the calibration fitted, so the figures lean to the
good side; intervals say what other videos would do. Trained on {data}.

Made by `make model-card` on {date}; checkpoint {digest}.

"""


NO_WIDENING = (
    "A video's score is the mean of its crops' logits. Weak evidence, which moves the thresholds apart in"
    " `deepscan detect`, is not looked for here."
)


@dataclass(frozen=True, slots=True)
class Answer:
    """One video's score, and whether it was manipulated."""

    video: str
    label: int
    score: float


def main(arguments: list[str] | None = None) -> None:
    """Score what is not scored yet, then tell it."""
    parser = argparse.ArgumentParser(prog="python -m tools.model_card", description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="a finished run's folder")
    parser.add_argument("--out", type=Path, required=True, help="predictions, tables, pictures")
    parser.add_argument("--docs", type=Path, required=True, help="folder of the page")
    parser.add_argument("--device", default="auto")
    asked = parser.parse_args(arguments)

    def say(line: str) -> None:
        sys.stderr.write(line + "\n")

    checkpoint = asked.run / "detector.safetensors"
    header = read_header(checkpoint)
    settings, _, _ = RunFolder(asked.run).reopen()
    sets = held_out(asked.run)
    scoring = Scoring(device=asked.device)
    judged = [crops for crops in sets if len({row.label for row in crops.rows}) == 2]
    if not judged:
        raise DataError(f"{asked.run}: no set of which real and manipulated videos were held out")
    request = Request(
        out=asked.out,
        sets=tuple(judged),
        weights=(str(checkpoint),),
        scoring=scoring,
        own_validation=True,
    )
    outputs = benchmark(request, say)
    candidate = predict.candidate(str(checkpoint), own_validation=True)
    for crops in sets:
        predict.score(asked.out / "predictions", candidate, crops, scoring, 1)
    answers = {crops.short: _answers(asked.out, candidate.name, crops.short) for crops in sets}
    verdict_table = verdicts(answers, header)
    error_table, wrong = errors(answers, header)
    outputs.add(verdict_table)
    outputs.add(error_table)
    gallery(wrong, sets, asked.out / "errors.png")

    thinned = [replace(crops, rows=thin(crops.rows, DISTORTED_FRAMES)) for crops in judged]
    apart = replace(
        request, out=asked.out / "distorted", sets=tuple(thinned), distortions=("all",)
    )  # fmt: skip
    robust = benchmark(apart, say)
    outputs.tables.extend(table for table in robust.tables if table.name.startswith("robustness"))
    outputs.drawn.extend(robust.drawn)
    outputs.files.extend(path for path in robust.files if path.stem.startswith("robustness"))

    head = HEAD.format(
        name=header.name,
        share=settings.validation,
        seed=settings.seed,
        data=header.training["data"],
        date=datetime.now(UTC).date().isoformat(),
        digest=candidate.weights,
    )
    kept = [table for table in outputs.tables if table.name != "auc"]
    page.write(asked.docs, head, kept, outputs, lambda name: "Robustness")
    sys.stdout.write(f"{asked.docs / 'README.md'}\n")


def held_out(run: Path) -> list[Crops]:
    """What a run held out of each of its sets, but for pseudo-fakes, which are no videos.

    Raises:
        SettingsError: no run.
        DataError: its data are not there any more.
    """
    settings, _, _ = RunFolder(run).reopen()
    _, held = shown(settings)
    of_set: dict[str, list[CropRow]] = defaultdict(list)
    for row in held:
        if row.method != BLENDED:
            of_set[row.video.split("/")[0]].append(row)
    folders = {folder.name: folder for folder in settings.data}
    return [
        Crops(TestSet(name, name, folder=folders[name]), folders[name], rows, [])
        for name, rows in of_set.items()
    ]


def _answers(out: Path, detector: str, name: str) -> list[Answer]:
    scored = predictions.scored(predictions.read(out / "predictions"), name, detector)
    assert scored is not None
    judged: Videos = evaluation.videos(scored)
    return [
        Answer(video, label, score)
        for video, label, score in zip(
            judged.names, judged.labels.tolist(), judged.scores.tolist(), strict=True
        )
    ]


def verdicts(answers: dict[str, list[Answer]], header: Header) -> Table:
    """How many videos of each set and class would get which verdict, were no evidence weak."""
    low, high = _bounds(header)
    rows = []
    for name, outputs in answers.items():
        for label in (0, 1):
            scores = np.array([answer.score for answer in outputs if answer.label == label])
            if not len(scores):
                continue
            counts = (
                (scores <= low).sum(),
                ((scores > low) & (scores < high)).sum(),
                (scores >= high).sum(),
            )
            cells = tuple(f"{count} ({count / len(scores):.0%})" for count in counts)
            rows.append((f"{name}, {'manipulated' if label else 'real'}", cells))
    return Table(
        "verdicts",
        f"Verdicts at the calibrated thresholds, {low:+.2f} and {high:+.2f}",
        tuple(name.value.replace("_", " ") for name in KINDS),
        tuple(rows),
        (NO_WIDENING,),
    )


def errors(answers: dict[str, list[Answer]], header: Header) -> tuple[Table, list[Answer]]:
    """The videos on the wrong side of both thresholds, worst first."""
    low, high = _bounds(header)
    everything = [answer for outputs in answers.values() for answer in outputs]
    false = sorted(
        (a for a in everything if not a.label and a.score >= high), key=lambda a: -a.score
    )
    missed = sorted((a for a in everything if a.label and a.score <= low), key=lambda a: a.score)
    shown_ = false[:ERRORS] + missed[:ERRORS]
    rows = tuple(
        (a.video, ("manipulated" if a.label else "real", f"{a.score:+.2f}")) for a in shown_
    )
    table = Table(
        "errors",
        f"Where it is wrong: {len(false)} real videos called manipulated, {len(missed)} manipulated passed",
        ("is", "score"),
        rows,
        (f"The worst {ERRORS} of each kind; `make model-card` draws them to errors.png.",),
    )  # fmt: skip
    return table, shown_


def gallery(wrong: Sequence[Answer], sets: Sequence[Crops], path: Path) -> None:
    """A picture of each video that it was wrong about, its middle crop, with its score."""
    side, text, across = 160, 30, 6
    down = max(1, -(-len(wrong) // across))
    sheet = Image.new("RGB", (across * side, down * (side + text)), "white")
    draw = ImageDraw.Draw(sheet)
    crops: dict[str, list[CropRow]] = defaultdict(list)
    for row in (row for one in sets for row in one.rows):
        crops[row.video].append(row)
    for i, answer in enumerate(wrong):
        x, y = i % across * side, i // across * (side + text)
        rows = sorted(crops[answer.video], key=lambda row: row.frame)
        pixels, _ = picture(rows[len(rows) // 2])
        sheet.paste(Image.fromarray(pixels).resize((side, side)), (x, y))
        words = f"{'manipulated' if answer.label else 'real'}  {answer.score:+.2f}"
        draw.text((x + 4, y + side + 2), words, "black")
        draw.text((x + 4, y + side + 15), Path(answer.video).name[:26], "#555555")
    with part_file(path) as part:
        sheet.save(part, "PNG")


def _bounds(header: Header) -> tuple[float, float]:
    if header.calibration is None:
        raise SettingsError(f"{header.name} is not calibrated; its run held out too few videos")
    thresholds = thresholds_of(header.calibration)
    return thresholds.low, thresholds.high


if __name__ == "__main__":
    main()
