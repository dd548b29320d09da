"""The experiments: python -m tools.evidence.plan PHASE PACK BASE OUT --seconds N

PHASE `default` trains what is shipped: its recipe without each pair of folds, for the calibration, and on all
but the held fifths. It goes on where it was broken off, training by training.

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
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deepscan.files import part_file
from tools.evidence import evaluation, folds, material, recipes
from tools.evidence.decoders import Decoders
from tools.evidence.evaluation import Scores
from tools.evidence.folds import RUNS
from tools.evidence.material import Rows
from tools.evidence.model import load_base
from tools.evidence.recipes import HeadSettings, Recipe
from tools.evidence.train import Setup, Trained, scales, train

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
            np.savez_compressed(file, **self.scores)


def leave_out(
    recipe: Recipe, setup: Setup, log: Log, end: float, runs: Mapping[str, Sequence[str]] = RUNS
) -> list[dict[str, Any]] | None:
    """One recipe over the folds of `runs`: means by head, or None where the clock ended it."""
    found: list[dict[str, dict[str, Any]]] = [{} for _ in recipe.heads]
    speeds = []
    for run, names in runs.items():
        if time.time() > end - LEAST_SECONDS:
            log.say(f"{recipe.name}: no time left for {run}")
            return None
        left_out = [folds.of_fold(setup.material, fold) for fold in names]
        trained = train(recipe, setup, ~np.any(left_out, 0), log.say, end)
        speeds.append(trained.crops_per_s)
        log.write(event="trained", recipe=recipe.name, seed=recipe.seed, run=run, **trained.told())
        for fold in names:
            for i, said in enumerate(_judged_on(fold, trained, setup, log, run in GREYED)):
                found[i][fold] = said
    means = [_told(recipe, i, of_folds, speeds, log) for i, of_folds in enumerate(found)]
    log.save()
    return means


def _judged_on(
    fold: str, trained: Trained, setup: Setup, log: Log, greyed: bool
) -> list[dict[str, Any]]:
    """What each head is worth on a fold; written down, with its scores."""
    recipe, crops = trained.recipe, setup.material
    rows = folds.judged(crops, fold)
    if not len(rows):
        return []
    alone = len(recipe.heads) == 1  # of many heads only the crops themselves are scored
    table = []
    for i, found in enumerate(evaluation.score(trained, crops, rows, copies=alone)):
        said = evaluation.judged(crops, rows, found, recipe.margin)
        if greyed and alone:
            (bare,) = evaluation.score(trained, crops, rows, copies=False, greyed=True)
            value = evaluation.video_auc(crops, rows, bare.logit)
            said["auc_background"] = round(value, 4)
        log.write(event="fold", recipe=recipe.name, head=i, seed=recipe.seed, fold=fold, **said)
        log.keep(f"{recipe.name}/{recipe.seed}/{i}/{fold}", fold, rows, found)
        table.append(said)
    return table


def _told(
    recipe: Recipe, head: int, of_folds: dict[str, dict[str, Any]], speeds: list[int], log: Log
) -> dict[str, Any]:
    """The means over folds of what a head is worth; written down and said."""

    def mean(name: str) -> float:
        known = [value for one in of_folds.values() if (value := one.get(name)) is not None]
        return round(float(np.nanmean(known or [np.nan])), 4)

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
    usual = asdict(HeadSettings())
    how = {k: v for k, v in asdict(recipe.heads[head]).items() if v != usual[k]}
    log.write(
        event="recipe",
        recipe=recipe.name,
        head=head,
        seed=recipe.seed,
        how=how,
        speed=speeds,
        **said,
    )
    log.say(
        f"{recipe.name} s{recipe.seed} {how} {said['auc']} ref {said['auc_ref']} "
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
            found = evaluation.score(trained, crops, rows)[0]
            said = evaluation.judged(crops, rows, found, recipe.margin)
            log.write(event="held", recipe=recipe.name, seed=recipe.seed, group=group, **said)
            log.say(f"final {recipe.name} s{recipe.seed} {group}: {said}")
            log.keep(f"held/{recipe.name}/{recipe.seed}/{group}", f"held/{group}", rows, found)
    log.save()


def attempt(
    recipe: Recipe, setup: Setup, log: Log, end: float, runs: Mapping[str, Sequence[str]]
) -> list[dict[str, Any]] | None:
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
        has_map = len(recipe.heads) == 1 and recipe.heads[0].token == "global"
        if means and has_map and (best is None or means[0]["auc"] > best[0]):
            best = means[0]["auc"], recipe
    if best:
        final(replace(best[1], steps=300), setup, log, end)


def phase_two(setup: Setup, log: Log, end: float) -> None:
    """LoRA on narrower crops, the final detector of the better margin, and its controls."""
    value = {}
    for margin in (0.72, 0.6):
        recipe = replace(recipes.LORA, name=f"lora-{margin * 100:.0f}", margin=margin)
        means = attempt(recipe, setup, log, end, FIRST)
        value[recipe] = means[0]["auc_ref"] + means[0]["auc"] if means else 0.0
    best = max(value, key=lambda recipe: value[recipe])
    log.say(f"best of margins: {best.name} {list(value.values())}")
    final(replace(best, name=f"{best.name}-final", steps=FINAL_STEPS), setup, log, end)
    (head,) = best.heads
    controls: tuple[tuple[str, Mapping[str, Sequence[str]], dict[str, Any]], ...] = (
        ("long", FIRST, {"steps": 360}),
        ("cls", FIRST, {"heads": (replace(head, token="cls"),)}),
        ("nopatch", FIRST, {"heads": (replace(head, patch="none"),)}),
        ("rest", REST, {}),
        ("seed1", FIRST, {"seed": 1}),
    )
    for name, runs, changes in controls:
        attempt(replace(best, name=f"{best.name}-{name}", **changes), setup, log, end, runs)


def phase_default(setup: Setup, log: Log, end: float) -> None:
    """The shipped recipe: left out, two folds at a time, and the final detector."""
    recipe = recipes.DEFAULT
    for run, names in RUNS.items():
        if not all(f"{recipe.name}/0/0/{fold}" in log.scores for fold in names):
            leave_out(recipe, setup, log, end, {run: names})
    last = replace(recipe, name=f"{recipe.name}-final", steps=FINAL_STEPS)
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
    parser.add_argument("--only", default="", help="names of recipes of phase one, with commas")
    parser.add_argument("--decoders", type=Path, default=Path("../shared/tools/decoders.py"))
    asked = parser.parse_args(arguments)
    log = Log(asked.out)
    cuda = torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    half = torch.bfloat16 if cuda else torch.float32
    if cuda:
        torch.set_float32_matmul_precision("highest")
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = True
        log.say(torch.cuda.get_device_name())
    end = START + asked.seconds
    base = load_base(asked.base, device, half)
    crops = material.load(asked.pack, device, Decoders(asked.decoders, device), log.say)
    setup = Setup(crops, base, scales(base, crops, half), half)
    if asked.phase == "default":
        phase_default(setup, log, end)
    elif asked.phase == "one":
        phase_one(setup, log, end, [name for name in asked.only.split(",") if name])
    else:
        phase_two(setup, log, end)
    log.save()
    log.say("done")


if __name__ == "__main__":
    main()
