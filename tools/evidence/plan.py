"""The experiments: python -m tools.evidence.plan PHASE PACK BASE OUT --seconds N

PHASE `default` trains what is shipped: its recipe, or --recipe, without each pair of folds, for the
calibration, and on all but the held fifths. It goes on where it was broken off, training by training.

PHASE `one` tries recipes on two pairs of folds until the clock ends it, and trains the best on all but the
held fifths. `two` narrows the crop, trains the better margin on all but the held fifths, and then judges what
it may owe its scores to. OUT receives results.jsonl, scores.npz (logits of every fold) and the final
detector. BASE is the int8 base of deepscan's weights cache.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deepscan.files import part_file
from deepscan.model import checkpoint
from tools.evidence import evaluation, folds, material, recipes
from tools.evidence.decoders import Decoders
from tools.evidence.evaluation import Scores
from tools.evidence.folds import RUNS
from tools.evidence.material import Rows
from tools.evidence.recipes import Recipe
from tools.evidence.train import Setup, Trained, train

START = time.time()

FIRST = {run: RUNS[run] for run in ("R2", "R4")}  # by which recipes are chosen
REST = {run: RUNS[run] for run in ("R1", "R3")}
GREYED = ("R2",)  # of these runs' folds, crops are also judged with their faces grey
FINAL_STEPS = 1300
FINAL_SECONDS = 30  # kept for the final training of phase one
LEAST_SECONDS = 12  # for the training of a run


class Log:
    """What is found, as it is found."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.scores: dict[str, np.ndarray] = {}
        self.out.mkdir(parents=True, exist_ok=True)
        if (self.out / "scores.npz").exists():
            with np.load(self.out / "scores.npz") as before:
                self.scores |= dict(before)

    def say(self, text: str) -> None:
        sys.stderr.write(f"[{time.time() - START:7.1f}] {text}\n")

    def write(self, **row: object) -> None:
        with (self.out / "results.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, default=str) + "\n")

    def keep(self, name: str, fold: str, rows: Rows, found: Scores) -> None:
        """Remember scores, of a recipe, say, and a fold, and of which rows they are."""
        self.scores[name] = found.kept().astype(np.float32)
        self.scores[f"rows/{fold}"] = rows.astype(np.int32)

    def save(self) -> None:
        with part_file(self.out / "scores.npz") as part, part.open("wb") as file:
            np.savez_compressed(file, **self.scores)  # type: ignore[arg-type]


def leave_out(
    recipe: Recipe, setup: Setup, log: Log, end: float, runs: Mapping[str, Sequence[str]] = RUNS
) -> dict[str, Any] | None:
    """One recipe over the folds of `runs`: its means, or None where the clock ended it."""
    of_folds, speeds = dict[str, dict[str, Any]](), []
    for run, names in runs.items():
        if time.time() > end - LEAST_SECONDS:
            log.say(f"{recipe.name}: no time left for {run}")
            return None
        left_out = [folds.of_fold(setup.material, fold) for fold in names]
        trained = train(recipe, setup, ~np.any(left_out, 0), log.say, end)
        speeds.append(trained.crops_per_s)
        log.write(event="trained", recipe=recipe.name, seed=recipe.seed, run=run, **trained.told())
        for fold in names:
            rows = folds.judged(setup.material, fold)
            if len(rows):
                of_folds[fold] = _judged_on(fold, rows, trained, setup, log, run in GREYED)
    found = _told(recipe, of_folds, speeds, log)
    log.save()
    return found


def _judged_on(
    fold: str, rows: Rows, trained: Trained, setup: Setup, log: Log, greyed: bool
) -> dict[str, Any]:
    """What a detector is worth on a fold; written down, with its scores."""
    recipe, crops = trained.recipe, setup.material
    found = evaluation.score(trained, crops, rows)
    said = evaluation.judged(crops, rows, found, recipe.detector.view)
    if greyed:
        bare = evaluation.score(trained, crops, rows, copies=False, greyed=True)
        said["auc_background"] = round(evaluation.video_auc(crops, rows, bare.logit), 4)
    log.write(event="fold", recipe=recipe.name, seed=recipe.seed, fold=fold, **said)
    log.keep(of_scores(recipe, fold), fold, rows, found)
    return said


def of_scores(recipe: Recipe, fold: str) -> str:
    """The name of a fold's scores in scores.npz; 0 is the head, of which there were several once."""
    return f"{recipe.name}/{recipe.seed}/0/{fold}"


def _told(
    recipe: Recipe, of_folds: dict[str, dict[str, Any]], speeds: list[int], log: Log
) -> dict[str, Any]:
    """The means over folds of what a recipe is worth; written down and said."""

    def mean(name: str) -> float:
        values = [one.get(name) for one in of_folds.values()]
        known = [value for value in values if value is not None and not math.isnan(value)]
        return round(float(np.mean(known)), 4) if known else math.nan

    names = (
        "auc",
        "auc_ref",
        "pixel_auc",
        "peak_fake",
        "peak_real",
        "positive_on_face",
        "attention_peak_fake",
        "attention_on_face",
        "auc_background",
    )
    said: dict[str, Any] = {name: mean(name) for name in names}
    kinds: dict[str, list[float]] = {}
    for of_fold in of_folds.values():
        for kind, (value, _) in of_fold["auc_kinds"].items():
            kinds.setdefault(kind, []).append(value)
    said["kinds"] = {kind: round(float(np.mean(values)), 3) for kind, values in kinds.items()}
    said["folds"] = {fold: of_fold["auc"] for fold, of_fold in of_folds.items()}
    log.write(event="recipe", recipe=recipe.name, seed=recipe.seed, speed=speeds, **said)
    log.say(
        f"{recipe.name} s{recipe.seed} {said['auc']} ref {said['auc_ref']} "
        f"px {said['pixel_auc']} peak {said['peak_fake']}/{said['peak_real']} "
        f"att {said['attention_peak_fake']} bg {said['auc_background']} "
        f"{said['kinds']} {said['folds']} {speeds}"
    )
    return said


def final(recipe: Recipe, setup: Setup, log: Log, end: float) -> None:
    """All but the held fifths; judged on them, and kept."""
    crops = setup.material
    trained = train(recipe, setup, crops.fold != 0, log.say, end)
    trained.save(log.out / f"{recipe.name}-{recipe.seed}.safetensors")
    log.write(event="final", recipe=recipe.name, seed=recipe.seed, **trained.told())
    for group in folds.HELD:
        rows = np.flatnonzero((crops.group == group) & (crops.fold == 0))
        if len(rows):
            found = evaluation.score(trained, crops, rows)
            said = evaluation.judged(crops, rows, found, recipe.detector.view)
            log.write(event="held", recipe=recipe.name, seed=recipe.seed, group=group, **said)
            log.say(f"final {recipe.name} s{recipe.seed} {group}: {said}")
            log.keep(f"held/{recipe.name}/{recipe.seed}/{group}", f"held/{group}", rows, found)
    log.save()


def attempt(
    recipe: Recipe, setup: Setup, log: Log, end: float, runs: Mapping[str, Sequence[str]]
) -> dict[str, Any] | None:
    """`leave_out`, or None and a word in the log where it fails: others may not."""
    try:
        return leave_out(recipe, setup, log, end, runs)
    except Exception:
        log.say(f"{recipe.name}: {traceback.format_exc()[-800:]}")
        return None


def phase_one(setup: Setup, log: Log, end: float, only: Sequence[str] = ()) -> None:
    """All recipes, or those named, while time lasts; the best one's detector after 300 steps."""
    best: tuple[float, Recipe] | None = None
    for recipe in recipes.tried():
        if only and recipe.name not in only:
            continue
        if time.time() > end - FINAL_SECONDS - 20:
            break
        means = attempt(recipe, setup, log, end - FINAL_SECONDS, FIRST)
        if means and recipe.detector.token == "global" and (best is None or means["auc"] > best[0]):
            best = means["auc"], recipe
    if best:
        final(replace(best[1], steps=300), setup, log, end)


def phase_two(setup: Setup, log: Log, end: float) -> None:
    """LoRA on narrower crops, the final detector of the better margin, and its controls."""
    value = {}
    for margin in (0.72, 0.6):
        recipe = recipes.LORA.but(f"lora-{margin * 100:.0f}", detector={"view": margin})
        means = attempt(recipe, setup, log, end, FIRST)
        value[recipe] = means["auc_ref"] + means["auc"] if means else 0.0
    best = max(value, key=lambda recipe: value[recipe])
    log.say(f"best of margins: {best.name} {list(value.values())}")
    final(best.but(f"{best.name}-final", steps=FINAL_STEPS), setup, log, end)
    controls: tuple[tuple[str, Mapping[str, Sequence[str]], dict[str, Any]], ...] = (
        ("long", FIRST, {"steps": 360}),
        ("cls", FIRST, recipes.CLS),
        ("nopatch", FIRST, recipes.NO_PATCH),
        ("rest", REST, {}),
        ("seed1", FIRST, {"seed": 1}),
    )
    for name, runs, changes in controls:
        attempt(best.but(f"{best.name}-{name}", **changes), setup, log, end, runs)


def phase_default(setup: Setup, log: Log, end: float, recipe: Recipe) -> None:
    """A recipe to ship: left out, two folds at a time, and the final detector."""
    for run, names in (FIRST | REST).items():
        if not all(of_scores(recipe, fold) in log.scores for fold in names):
            leave_out(recipe, setup, log, end, {run: names})
    last = recipe.but(f"{recipe.name}-final", steps=FINAL_STEPS)
    if not (log.out / f"{last.name}-0.safetensors").exists():
        final(last, setup, log, end)


def main(arguments: list[str] | None = None) -> None:
    """Run a phase."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("phase", choices=("default", "one", "two"))
    parser.add_argument("pack", type=Path)
    parser.add_argument("base", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "--seconds", type=float, default=math.inf, help="from the start of the program"
    )
    shippable = {one.name: one for one in (recipes.DEFAULT, recipes.SHALLOW)}
    parser.add_argument("--recipe", choices=shippable, default=recipes.DEFAULT.name)
    parser.add_argument("--copies", type=int, default=3000, help="real crops to have redrawn")
    parser.add_argument("--only", default="", help="names of recipes of phase one, with commas")
    parser.add_argument("--decoders", type=Path, default=Path("../shared/tools/decoders.py"))
    asked = parser.parse_args(arguments)
    log = Log(asked.out)
    cuda = torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    if cuda:
        torch.set_float32_matmul_precision("highest")
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = True
        log.say(torch.cuda.get_device_name())
    end = START + asked.seconds
    crops = material.load(
        asked.pack,
        device,
        Decoders(asked.decoders, device),
        log.say,
        copies=asked.copies,
        kept=asked.out / f"redrawn-{asked.copies}.npz",
    )
    setup = Setup(crops, checkpoint.read_base(asked.base))
    if asked.phase == "default":
        phase_default(setup, log, end, shippable[asked.recipe])
    elif asked.phase == "one":
        phase_one(setup, log, end, [name for name in asked.only.split(",") if name])
    else:
        phase_two(setup, log, end)
    log.save()
    log.say("done")


if __name__ == "__main__":
    main()
