"""Rank ideas by heads alone, many at once on one frozen tower: python -m tools.evidence.heads PACK BASE OUT

What reads a tower costs next to nothing beside it. So all trials, each without each pair of folds, learn from
the same batches, which the tower sees once; a trial takes no part in crops of its left-out folds, and may
weigh kinds of crops as it likes. Each is then judged by its folds: plain, with a copy taken off, as a film of
CRF 35. What trains deeper may rank otherwise: this is for the choice of what to train deeper.

OUT receives a table named for the list of trials, a row of each trial, fold and seed, to which other seeds
add theirs. With --table its means are printed, and nothing is trained.
"""

from __future__ import annotations

import argparse
import copy
import csv
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from deepscan.model import checkpoint
from deepscan.model.detector import Detector, without_detail
from deepscan.model.tower import Tokens
from deepscan.shapes import Bool, Float
from tools.evidence import evaluation, folds, material, registers, trials
from tools.evidence.codecs import compressed
from tools.evidence.decoders import Decoders
from tools.evidence.evaluation import Scores
from tools.evidence.geometry import plain_view
from tools.evidence.material import Material, Rows
from tools.evidence.sampling import Batch, Sampler, batch
from tools.evidence.train import (
    Learning,
    Setup,
    autocast,
    build,
    losses,
    some_patches,
    some_views,
)
from tools.evidence.trials import Trial

OF_VIDEO, MOST = 2, 300  # crops of a video and of a fold that judge
CRF = 35
LONGEST = 8  # the layer of ViT-B/16 after which outliers are at their longest
COLUMNS = ("seed", "trial", "fold", "auc", "auc_ref", "auc_film", "pixel_auc", "peak_fake", "steps")
MEASURES = COLUMNS[3:8]


@dataclass(frozen=True, slots=True)
class Head:
    """A trial without the folds of a run, and its training."""

    trial: Trial
    run: str
    detector: Detector
    learning: Learning


@dataclass(frozen=True, slots=True)
class Frozen:
    """The tower that all heads read, without and with a spare token; of each the readers' start."""

    detector: Detector
    neurons: dict[int, Tensor]
    readers: list[nn.ModuleList]

    @classmethod
    def of(cls, detector: Detector, crops: Material, spare: bool, say: material.Say) -> Frozen:
        """A detector's tower, `spare`: with a spare token for what `crops` show of outliers, too."""
        if not spare:
            return cls(detector, {}, [detector.readers])
        images = some_views(crops) / 255
        tower = detector.tower
        with autocast(crops.device), torch.no_grad():
            seen = ((images - detector.mean) / detector.std).to(tower.dtype)
            neurons = registers.makers(tower, seen, min(LONGEST, len(tower.visual.blocks())))
            other = copy.deepcopy(detector, {id(tower): tower})
            found = [detector.tokens(images)]
            with registers.spare_token(tower, neurons):
                found.append(registers.without_spare(detector.tokens(images)))
            other.standardise(found[1])
        say(f"neurons by layer: { {layer + 1: len(own) for layer, own in neurons.items()} }")
        for name, tokens in zip(("as it is", "with a spare token"), found, strict=True):
            shares = [registers.outliers(state).float().mean() for state in tokens.states]
            say(f"{name}: outliers after layers read {[round(float(s), 4) for s in shares]}")
        return cls(detector, neurons, [detector.readers, other.readers])

    @torch.no_grad()
    def tokens(self, images: Float[Tensor, "b 3 224 224"], keep: Any = None) -> list[Tokens]:
        """What the tower makes of views, RGB in 0..255, in float32, without and with a spare token."""
        with autocast(images.device):
            found = [self.detector.tokens(images / 255, keep)]
            if self.neurons:
                with registers.spare_token(self.detector.tower, self.neurons):
                    spared = self.detector.tokens(images / 255, keep)
                found.append(registers.without_spare(spared))
        return [replace(one, states=tuple(s.float() for s in one.states)) for one in found]


def main(arguments: list[str] | None = None) -> None:
    """Train all heads with one seed and judge them, or print the table of what is there."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pack", type=Path)
    parser.add_argument("base", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--copies", type=int, default=1000, help="real crops to have redrawn")
    parser.add_argument("--decoders", type=Path, default=Path("../shared/tools/decoders.py"))
    parser.add_argument("--trials", choices=trials.LISTS, default="changes")
    parser.add_argument("--table", action="store_true")
    asked = parser.parse_args(arguments)
    results = asked.out / f"{asked.trials}.csv"
    if asked.table:
        with results.open(newline="", encoding="utf-8") as file:
            sys.stdout.writelines(f"{line}\n" for line in table(list(csv.DictReader(file))))
        return
    asked.out.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kept = asked.out / f"redrawn-{asked.copies}.npz"
    decoders = Decoders(asked.decoders, device)
    crops = material.load(asked.pack, device, decoders, say, copies=asked.copies, kept=kept)
    setup = Setup(crops, checkpoint.read_base(asked.base))
    heads, tower = taught(
        setup, [replaced(trial, asked) for trial in trials.LISTS[asked.trials]()], say
    )
    new = not results.exists()
    with results.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if new:
            writer.writeheader()
        for row in judged(heads, tower, crops):
            writer.writerow(row | {"seed": asked.seed, "steps": asked.steps})
            file.flush()


def say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def replaced(trial: Trial, asked: argparse.Namespace) -> Trial:
    """The trial with the seed and the steps that were asked for."""
    return replace(trial, recipe=replace(trial.recipe, seed=asked.seed, steps=asked.steps))


def taught(setup: Setup, chosen: Sequence[Trial], say: material.Say) -> tuple[list[Head], Frozen]:
    """All trials without each run's folds, and their tower.

    The first one's depth, layers, steps, batch and patches are all trials'.
    """
    recipe, crops = chosen[0].recipe, setup.material
    torch.manual_seed(recipe.seed)
    tower = Frozen.of(build(recipe, setup), crops, any(trial.spare for trial in chosen), say)
    alike = [(trial, _start(trial, tower, setup)) for trial in chosen]
    heads = [_head(trial, run, start) for run in folds.RUNS for trial, start in alike]
    outside = {run: _left_out(crops, run) for run in folds.RUNS}
    sampler = Sampler(crops, np.ones(len(crops), bool), recipe, recipe.seed)
    start, half = time.time(), recipe.batch // 4
    for step in range(recipe.steps):
        with torch.no_grad():
            plain, film = (
                batch(crops, sampler.draw(half), replace(recipe, film=share))
                for share in (0.0, 1.0)
            )
        shown = joined(plain, film)
        filmed = torch.arange(len(shown.labels), device=crops.device) >= len(plain.labels)
        looked_at = some_patches(recipe.patches, crops.device)
        tokens = tower.tokens(shown.images, looked_at)
        seen, group = shown.by(looked_at), crops.group[shown.rows[:, 0].cpu().numpy()]
        values = dict[str, list[float]]()
        for head in heads:
            weight = head.trial.weights(seen, filmed, outside[head.run][shown.rows].any(1))
            answer = head.detector.of_tokens(tokens[head.trial.spare], looked_at)
            own = replace(seen, weight=weight, known=head.trial.known(seen, group))
            loss = losses(answer, head.detector, head.trial.recipe, own)[0]
            head.learning.step(loss, step)
            values.setdefault(head.trial.name, []).append(float(loss.detach()))
        if step % max(1, recipe.steps // 12) == 0 or step == recipe.steps - 1:
            means = {name: round(float(np.mean(value)), 3) for name, value in values.items()}
            say(f"{step} {time.time() - start:.0f} s {means}")
    for head in heads:
        head.learning.end()
    return heads, tower


def _left_out(crops: Material, run: str) -> Bool[Tensor, " n"]:
    every = [folds.of_fold(crops, fold) for fold in folds.RUNS[run]]
    return torch.from_numpy(np.any(every, 0)).to(crops.device)


def _start(trial: Trial, tower: Frozen, setup: Setup) -> Detector:
    """A trial's head on the tower, whose layers it reads at one scale."""
    detector = build(replace(trial.recipe, standard=False), setup)
    detector.tower = tower.detector.tower
    if trial.recipe.standard:
        detector.readers.load_state_dict(tower.readers[trial.spare].state_dict())
    return detector


def _head(trial: Trial, run: str, start: Detector) -> Head:
    detector = copy.deepcopy(start, {id(start.tower): start.tower})
    return Head(trial, run, detector, Learning(trial.recipe, detector))


def joined(one: Batch, other: Batch) -> Batch:
    """One after the other."""
    names = Batch.__dataclass_fields__
    return Batch(**{n: torch.cat([getattr(one, n), getattr(other, n)]) for n in names})


@torch.no_grad()
def judged(heads: Sequence[Head], tower: Frozen, crops: Material) -> Iterator[dict[str, Any]]:
    """Of each head and each fold that it did not see, a row of the table."""
    view = heads[0].trial.recipe.detector.view
    for run, names in folds.RUNS.items():
        own = [head for head in heads if head.run == run]
        for fold in names:
            rows = few_of_each(crops, folds.judged(crops, fold))
            answers = _answers(own, tower, crops, rows, view)
            for head, found in zip(own, answers, strict=True):
                scores = Scores(
                    found["plain"], found["copy"], found.get("evidence"), found.get("attention")
                )
                said = evaluation.judged(crops, rows, scores, view)
                said["auc_film"] = round(evaluation.video_auc(crops, rows, found["film"]), 4)
                named = {"trial": head.trial.name, "fold": fold}
                yield named | {name: said.get(name) for name in MEASURES}
            say(f"judged by {fold}: {len(rows)} crops")


def few_of_each(crops: Material, rows: Rows) -> Rows:
    """The first OF_VIDEO of these rows of each video, or MOST of those, always the same ones."""
    met = dict[tuple[str, str, int], int]()
    kept = []
    for row in rows:
        video = crops.source[row], crops.video[row], int(crops.label[row])
        met[video] = met.get(video, 0) + 1
        if met[video] <= OF_VIDEO:
            kept.append(row)
    if len(kept) > MOST:
        kept = np.sort(np.random.default_rng(2).permutation(kept)[:MOST]).tolist()
    return np.array(kept)


def _answers(
    heads: Sequence[Head], tower: Frozen, crops: Material, rows: Rows, view: float
) -> list[dict[str, np.ndarray]]:
    """Each head's logits of crops, of their copies and of what a film keeps of them, and its maps."""
    found: list[dict[str, list[np.ndarray]]] = [{} for _ in heads]
    for part in torch.from_numpy(rows).to(crops.device).split(64):
        whole = crops.crops[part].float()
        every = torch.ones(len(part), dtype=torch.bool, device=crops.device)
        quality = torch.full((len(part),), CRF - 3.0, device=crops.device)  # a key frame's QP
        film = compressed(whole, every, quality, quality).clamp(0, 255)
        plain = plain_view(whole, view).clamp(0, 255)
        seen = {
            "plain": plain,
            "copy": without_detail(plain),
            "film": plain_view(film, view).clamp(0, 255),
        }
        for name, images in seen.items():
            tokens = tower.tokens(images)
            for head, of_head in zip(heads, found, strict=True):
                answer = head.detector.of_tokens(tokens[head.trial.spare])
                values = {name: answer.logit}
                if name == "plain" and answer.evidence is not None:
                    assert answer.query_attention is not None
                    values["evidence"] = answer.evidence
                    values["attention"] = answer.query_attention.mean(1)
                for key, value in values.items():
                    of_head.setdefault(key, []).append(value.float().cpu().numpy())
    return [{name: np.concatenate(parts) for name, parts in one.items()} for one in found]


def table(rows: Sequence[dict[str, str]]) -> list[str]:
    """A Markdown table: of each trial the means over folds and seeds, and the least and the most over seeds.

    A gain is the mean difference from the first trial's `auc_ref` of the same fold and seed, with that mean's
    standard error over folds and seeds.
    """
    names = list(dict.fromkeys(row["trial"] for row in rows))
    usual = {(r["fold"], r["seed"]): float(r["auc_ref"]) for r in rows if r["trial"] == names[0]}
    lines = [
        "| trial | mean | copies | [over seeds] | gain | as films | pixel | peak |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name in names:
        own = [row for row in rows if row["trial"] == name]
        seeds = sorted({row["seed"] for row in own})
        by_seed = [_mean([r for r in own if r["seed"] == seed], "auc_ref") for seed in seeds]
        gains = [float(row["auc_ref"]) - usual[row["fold"], row["seed"]] for row in own]
        error = np.std(gains, ddof=1) / len(gains) ** 0.5 if len(gains) > 1 else 0.0
        lines.append(
            f"| {name} | {_mean(own, 'auc'):.3f} | {np.mean(by_seed):.3f} |"
            f" [{min(by_seed):.3f}, {max(by_seed):.3f}] | {np.mean(gains):+.3f} ± {error:.3f} |"
            f" {_mean(own, 'auc_film'):.3f} | {_shown(own, 'pixel_auc')} | {_shown(own, 'peak_fake')} |"
        )
    return lines


def _mean(rows: Sequence[dict[str, str]], measure: str) -> float:
    values = [float(row[measure]) for row in rows if row[measure] not in ("", "nan")]
    return float(np.mean(values)) if values else float("nan")


def _shown(rows: Sequence[dict[str, str]], measure: str) -> str:
    value = _mean(rows, measure)
    return "" if np.isnan(value) else f"{value:.3f}"


if __name__ == "__main__":
    main()
