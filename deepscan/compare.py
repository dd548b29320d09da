"""`make compare`: the paper's six methods, MACL and no RAAL, trained alike and told side by side.

Training goes on where it was broken off; what is told is made of what the run folders hold: OUT gets
comparison.md and attention.png.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import interpolate

from deepscan import metrics
from deepscan.files import part_file
from deepscan.manifest import CropRow, read_crops
from deepscan.model import checkpoint, weights
from deepscan.model.detector import Answer, Detector
from deepscan.model.header import read_header
from deepscan.model.size import size
from deepscan.training.data import picture, split, thin
from deepscan.training.losses import fake_likelihood
from deepscan.training.run import resume, train
from deepscan.training.settings import TrainSettings

# The method's, but a twentieth of it for full fine-tuning, an order usual for that.
RATES = {"effort": 2e-4, "lora": 2e-4, "full": 1e-5}

STUDIES: dict[str, dict[str, Any]] = {
    "effort": {"adapter": "effort", "token": "cls"},
    "effort + ours": {"adapter": "effort"},
    "lora": {"adapter": "lora", "token": "cls"},
    "lora + ours": {"adapter": "lora"},
    "full": {"adapter": "full", "token": "cls"},
    "full + ours": {"adapter": "full"},
    "lora + ours, MACL": {"adapter": "lora", "contrast": "macl"},
    "lora + ours, no RAAL": {"adapter": "lora", "alignment": "none"},
    "lora + ours, no norm": {"adapter": "lora", "patch_norm": False},  # patches before ln_post
}
ROUNDS = 2000  # of the bootstrap
SHOWN = ("lora + ours", "lora + ours, no RAAL")  # whose attention is drawn


def folder_of(out: Path, study: str, seed: int) -> Path:
    """Where a study's run lies."""
    return out / f"{study.replace(',', '').replace(' + ', '+').replace(' ', '-')}-{seed}"


def run_all(data: Path, test: Path, out: Path, seeds: list[int], epochs: int, device: str) -> None:
    """Train every study with every seed; finished runs are left alone, broken ones gone on with."""
    for seed in seeds:
        for study, changes in STUDIES.items():
            folder = folder_of(out, study, seed)
            if (folder / "results.json").is_file():
                continue
            sys.stderr.write(f"{study}, seed {seed}\n")
            if folder.exists():
                resume(folder, say=_tell)
                continue
            settings = TrainSettings(
                data=(data,),
                out=folder,
                test=test,
                name=folder.name,
                lr=RATES[changes["adapter"]],
                epochs=epochs,
                seed=seed,
                device=device,
                workers=1,
                **changes,
            )
            train(settings, datetime.now(UTC).date().isoformat(), say=_tell)


def _tell(line: str) -> None:
    sys.stderr.write(f"  {line}\n")


# --- how well each tells real from manipulated -----------------------------------------------------


@dataclass(frozen=True, slots=True)
class Finished:
    """A run that reached its end."""

    study: str
    seed: int
    folder: Path
    results: dict[str, Any]

    @property
    def baseline(self) -> str:
        """The study it is held against: its adapter's baseline, or lora + ours for its two changes."""
        if "," in self.study:
            return self.study.split(",")[0]
        return self.study.removesuffix(" + ours")


def finished(out: Path, seeds: Sequence[int]) -> list[Finished]:
    """The runs in `out` that have results."""
    found = []
    for study in STUDIES:
        for seed in seeds:
            folder = folder_of(out, study, seed)
            if (folder / "results.json").is_file():
                results = json.loads((folder / "results.json").read_text("utf-8"))
                found.append(Finished(study, seed, folder, results))
    return found


def predictions(
    folder: Path,
) -> tuple[Sequence[str], Int[np.ndarray, " v"], Float[np.ndarray, " v"]]:
    """Videos of the test set, their labels and scores."""
    with (folder / "predictions-test.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    labels = np.array([int(line["label"]) for line in lines])
    logits = np.array([float(line["logit"]) for line in lines])
    return metrics.video_scores([line["video"] for line in lines], labels, logits)


def gain(run: Path, over: Path, rng: np.random.Generator) -> tuple[float, float, float]:
    """Video AUC of `run` minus that of `over`, with a 95 % paired bootstrap interval over videos."""
    videos, labels, ours = predictions(run)
    same, _, theirs = predictions(over)
    assert list(videos) == list(same)
    sides = [np.flatnonzero(labels == label) for label in (0, 1)]
    found = []
    for _ in range(ROUNDS):
        drawn = np.concatenate([side[rng.integers(len(side), size=len(side))] for side in sides])
        of = labels[drawn]
        found.append(metrics.auc(of, ours[drawn]) - metrics.auc(of, theirs[drawn]))
    low, high = np.quantile(found, [0.025, 0.975])
    value = metrics.auc(labels, ours) - metrics.auc(labels, theirs)
    return value, float(low), float(high)


def table(runs: Sequence[Finished]) -> str:
    """One row a run, as Markdown."""
    at = {(run.study, run.seed): run for run in runs}
    columns = ["method", "seed", "trained", "video AUC, test", "frame AUC, test", "against", "gain"]
    columns += ["video AUC, validation", "crops/s"]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for run in runs:
        rng = np.random.default_rng(run.seed)
        test, val = run.results["test"], run.results["validation"]
        trained = size(read_header(run.folder / "detector.safetensors").settings).trained
        other = at.get((run.baseline, run.seed))
        against, by = "", ""
        if other is not None and other is not run:
            value, low, high = gain(run.folder, other.folder, rng)
            against, by = run.baseline, f"{value:+.3f} [{low:+.3f}, {high:+.3f}]"
        cells = [run.study, str(run.seed), f"{trained / 1e6:.2f} M", _interval(test["video_auc"])]
        cells += [_interval(test["frame_auc"]), against, by, _interval(val["video_auc"])]
        lines.append(f"| {' | '.join([*cells, f'{_speed(run.folder):.1f}'])} |")
    return "\n".join(lines)


def _interval(told: dict[str, float]) -> str:
    return f"{told['value']:.3f} [{told['low']:.3f}, {told['high']:.3f}]"


def _speed(folder: Path) -> float:
    """Median crops a second of a run's steps, reading and augmenting included."""
    with (folder / "log.csv").open(encoding="utf-8", newline="") as file:
        return median(float(row["images_per_second"]) for row in csv.DictReader(file))


# --- where each looks ------------------------------------------------------------------------------


def answers(detector: Detector, rows: Sequence[CropRow], batch: int = 16) -> Iterator[Answer]:
    """The detector's forward passes over all rows, in their order."""
    for start in range(0, len(rows), batch):
        crops = np.stack([picture(row)[0] for row in rows[start : start + batch]])
        with torch.inference_mode():
            yield detector(torch.from_numpy(crops))


def _loaded(run: Finished) -> Detector:
    known = weights.manifest().bases
    base = weights.base_file(known[read_header(run.folder / "detector.safetensors").base["name"]])
    return checkpoint.load(run.folder / "detector.safetensors", base, torch.bfloat16)[0]


def localisation(run: Finished, val: Sequence[CropRow]) -> dict[str, float]:
    """Pixel AUC against the masks of the held-out pairs, of three maps: what FLCL weighs patches by (its
    prototypes from 8 pairs at a time, as in training), the queries' attention, and [CLS]'s.
    """
    twins = [
        row
        for fake in val
        if fake.label == 1
        for row in val
        if row.source == fake.source and row.frame == fake.frame
    ]
    maps: dict[str, list[Tensor]] = {"fake likelihood": [], "queries": [], "[CLS]": []}
    fakes = [row for row in twins if row.label == 1]
    masks = np.stack([picture(row)[1] for row in fakes])
    labels = torch.tensor([row.label for row in twins])
    done = 0
    for answer in answers(_loaded(run), twins):
        of = labels[done : done + len(answer.logit)]
        done += len(of)
        maps["fake likelihood"].append(fake_likelihood(answer.patches, of).delta)
        if answer.query_attention is not None:
            maps["queries"].append(answer.query_attention[of == 1].mean(1))
        maps["[CLS]"].append(answer.cls_attention[of == 1])
    found = {}
    for name, parts in maps.items():
        if parts:
            values = torch.cat(parts).float()
            grid = math.isqrt(values.shape[1])
            pixels = interpolate(values.view(-1, 1, grid, grid), masks.shape[1:], mode="bilinear")
            some = (
                slice(None),
                slice(None, None, 4),
                slice(None, None, 4),
            )  # a sixteenth is plenty
            found[name] = metrics.auc(
                masks[some].ravel().astype(int), pixels[:, 0].double().numpy()[some].ravel()
            )
    return found


@dataclass(frozen=True, slots=True)
class Looks:
    """Attention on real crops: relative values (1 = evenly spread) and what they come to, in nats."""

    queries: Float[np.ndarray, "n k p"]
    cls: Float[np.ndarray, "n p"]

    @property
    def entropies(self) -> tuple[float, float]:
        """Mean entropies of the queries' and of [CLS]'s attention."""
        return _entropy(self.queries), _entropy(self.cls)

    @property
    def divergence(self) -> float:
        """Mean KL(query || [CLS]): what RAAL makes small."""
        q, c = self.queries, self.cls[:, None]
        return float((q * (np.log(q + 1e-12) - np.log(c + 1e-12))).sum(-1).mean())


def _entropy(attention: Float[np.ndarray, "*n p"]) -> float:
    return float(-(attention * np.log(attention + 1e-12)).sum(-1).mean())


def looks(run: Finished, real: Sequence[CropRow]) -> Looks:
    """Where a detector with queries looks on real crops."""
    found = list(answers(_loaded(run), real))
    queries = [a.query_attention.float().numpy() for a in found if a.query_attention is not None]
    return Looks(np.concatenate(queries), np.concatenate([a.cls_attention.numpy() for a in found]))


def draw(seen: dict[str, Looks], target: Path) -> None:
    """Distributions of attention over the patches of real crops (the paper's supplement, Figure 1b)."""
    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    edges = np.geomspace(1e-3, 1e2, 101)
    first = next(iter(seen.values()))
    lines = {"[CLS] of lora + ours": first.cls} | {
        f"queries of {k}": v.queries for k, v in seen.items()
    }
    for (name, values), colour in zip(
        lines.items(), ("#222222", "#0072B2", "#D55E00"), strict=False
    ):
        counts, _ = np.histogram(values.ravel() * values.shape[-1], edges)
        axes.stairs(counts / values.size, edges, label=name, color=colour, linewidth=1.6)
    axes.set(
        xscale="log", xlabel="attention of a patch, times the number of patches (1 = evenly spread)"
    )
    axes.set(ylabel="share of patches", title=f"Attention on {len(first.cls)} real crops")
    axes.legend(frameon=False)
    with part_file(target) as part:
        figure.savefig(part, format="png")


# --- telling it ------------------------------------------------------------------------------------


def tell(data: Path, test: Path, out: Path, seeds: Sequence[int]) -> str:
    """Everything as Markdown; attention.png is drawn beside it."""
    runs = finished(out, seeds)
    parts = [table(runs)]
    first = [run for run in runs if run.seed == seeds[0]]
    _, val = split([thin(read_crops(data), 8)], 0.2, seeds[0])
    rows = ["| method | fake likelihood | queries | [CLS] |", "|---|---|---|---|"]
    for run in first:
        found = localisation(run, val)
        cells = [
            f"{found[name]:.3f}" if name in found else ""
            for name in ("fake likelihood", "queries", "[CLS]")
        ]
        rows.append(f"| {run.study} | {' | '.join(cells)} |")
    parts.append("\n".join(rows))
    real = thin([row for row in read_crops(test) if row.label == 0], 1)
    seen = {
        run.study: looks(run, real) for run in first if STUDIES[run.study].get("token") != "cls"
    }
    rows = ["| method | entropy of queries | of [CLS] | KL(query, [CLS]) |", "|---|---|---|---|"]
    for study, look in seen.items():
        queries, cls = look.entropies
        rows.append(f"| {study} | {queries:.2f} | {cls:.2f} | {look.divergence:.3f} |")
    parts.append("\n".join(rows))
    draw({study: seen[study] for study in SHOWN if study in seen}, out / "attention.png")
    return "\n\n".join(parts) + "\n"


def main(arguments: list[str] | None = None) -> None:
    """Train what is not trained yet, then tell it."""
    parser = argparse.ArgumentParser(prog="python -m deepscan.compare", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="prepared pairs, with masks")
    parser.add_argument("--test", type=Path, required=True, help="crops to be judged on")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--seeds", default="0", help="as in 0,1,2")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only-tell", action="store_true", help="train nothing")
    asked = parser.parse_args(arguments)
    seeds = [int(seed) for seed in asked.seeds.split(",")]
    if not asked.only_tell:
        run_all(asked.data, asked.test, asked.out, seeds, asked.epochs, asked.device)
    text = tell(asked.data, asked.test, asked.out, seeds)
    with part_file(asked.out / "comparison.md") as part:
        part.write_text(text, "utf-8")
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
