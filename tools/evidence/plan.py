"""The experiments: python -m tools.evidence.plan PHASE PACK BASE OUT --seconds N

PHASE `default` trains what is shipped: its recipe without each pair of folds, for the calibration, and on all
but the held fifths. It goes on where it was broken off, training by training.

PHASE `one` tries recipes, in the order of `stages`, on two pairs of folds until the clock ends it, and trains
the best on all but the held fifths. `two` narrows the crop, trains the better margin on all but the held
fifths, and then judges what it may owe its scores to. OUT receives results.jsonl, scores.npz (logits of every
fold) and the final detector. BASE is the int8 base of deepscan's weights cache.
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
from safetensors.torch import save_file

from deepscan.files import part_file
from tools.evidence import model as M
from tools.evidence import train as T
from tools.evidence.decoders import Decoders

START = time.time()

# Folds of methods/: names that source pages begin with. The two folds of a run are left out together.
METHODS = {
    "M1": ("cxcx1996", "e4s2022", "celebv-text", "ashawkey", "cyberhost"),
    "M2": ("harlanhong", "rizkiarm", "jnjaby", "williamyang1991/VToonify"),
    "M3": ("cnnlstm", "neeek2303", "FuxiVirtualHuman", "FeiiYin", "stitch-time"),
    "M4": (
        "deepbrainai",
        "hunyuanvideo",
        "omnihuman",
        "antonibigata",
        "Dorniwang",
        "MooreThreads",
        "williamyang1991/Rerender",
        "williamyang1991/StyleGANEX",
        "yerfor",
        "wangzhiyaoo",
        "facebookresearch",
    ),
    "M5": (
        "lixinyyang",
        "X-LANCE",
        "loopyavatar",
        "tanshuai0219",
        "ali-vilab",
        "Zejun-Yang",
        "StelaBou",
        "ajay-sainy",
        "bytedance",
        "yiranran",
    ),
}
RUNS = {"R1": ("pairs", "M2"), "R2": ("ffpp", "M1"), "R3": ("dfdc", "M3"), "R4": ("M4", "M5")}
H = M.HeadCfg
BASE = T.Cfg(heads=(H(prior="learn"),))


def fold_rows(mat: T.Material, name: str) -> np.ndarray:
    """Rows judged in a fold; of dfdc 400 of each class."""
    if name in T.SETS:
        rows = np.flatnonzero(mat.group == name)
    else:
        rows = np.flatnonzero(np.array([s.startswith(METHODS[name]) for s in mat.source]))
    if name == "dfdc":
        rng = np.random.default_rng(1)
        fakes, reals = rows[mat.label[rows] == 1], rows[mat.label[rows] == 0]
        rows = np.sort(np.concatenate([rng.permutation(fakes)[:400], rng.permutation(reals)[:400]]))
    return rows


def stages() -> list[T.Cfg]:
    """Recipes in the order in which they are tried."""
    f = replace(
        BASE,
        name="frozen",
        tower=M.TowerCfg("none", depth=12),
        steps=150,
        heads=(
            H(),
            H(prior="learn"),
            H(prior="learn", standard=False),
            H(prior="fixed"),
            H(patch="reading"),
            H(patch="none"),
            H(prior="learn", patch="none"),
            H(token="mean", patch="reading"),
            H(token="cls"),
            H(token="avg", prior="learn"),
            H(prior="learn", layers=(12,)),
            H(prior="learn", layers=(6,)),
            H(prior="learn", layers=(8,)),
            H(prior="learn", layers=(10,)),
            H(prior="learn", layers=(4, 6, 8, 10)),
            H(prior="learn", layers=(6, 8, 10, 12)),
            H(prior="learn", queries=1),
            H(prior="learn", heads=12),
            H(prior="learn", patch_weight=0.3),
            H(prior="learn", patch_weight=3.0),
            H(prior="learn", assumed=0.0, mil=0.3),
            H(flcl=0.14, raal=1.0, patch="none", layers=(12,)),
        ),
    )
    b = BASE
    w = lambda name, **k: replace(b, name=name, **k)
    one = lambda **k: (H(**{"prior": "learn"} | k),)
    tower = lambda *a, **k: M.TowerCfg(*a, **k)
    return [
        f,
        w("norm"),
        w("norm-cls", heads=one(token="cls")),
        w("lora", tower=tower("lora")),
        w("norm-nopatch", heads=one(patch="none")),
        w("norm-tight", margin=0.72),
        w("both", tower=tower("both")),
        w("norm-noredraw", kinds=(0.75, 0.25, 0.0, 0.0)),
        w("norm-12", tower=tower("norm", depth=12), heads=one(layers=(12,))),
        w("norm-pseudo25", pseudo=0.25),
        w("norm-noprior", heads=one(prior="none")),
        w("norm-long", steps=360),
        w("norm-last5", tower=tower("norm", adapted=5)),
        w("norm-reading", heads=one(patch="reading")),
        w("norm-pseudo75", pseudo=0.75),
        w("norm-registers", tower=tower("norm", registers=4), heads=one(prior="none")),
        w("norm-fast", lr_norm=2e-3, lr_head=2e-3),
        w("norm-mild", strength=0.6),
        w("norm-mean", heads=one(token="mean", patch="reading")),
        w("lora-last5", tower=tower("lora", adapted=5)),
        w("norm-fixed", heads=one(prior="fixed")),
        w("norm-8", tower=tower("norm", depth=8), heads=one(layers=(4, 6, 8))),
        w("norm-film", film=0.6),
        w("norm-mil", heads=one(assumed=0.0, mil=0.3)),
        w("norm-flcl", heads=one(flcl=0.14)),
    ]


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

    def keep(self, name: str, array: np.ndarray) -> None:
        self.scores[name] = array

    def save(self) -> None:
        with part_file(self.out / "scores.npz") as part, part.open("wb") as file:
            np.savez_compressed(file, **self.scores)


def leave_out(
    cfg: T.Cfg,
    base: T.Base,
    mat: T.Material,
    half: torch.dtype,
    log: Log,
    end: float,
    runs: Mapping[str, Sequence[str]] = RUNS,
    blank: Sequence[str] = ("R2",),
) -> list[dict[str, Any]] | None:
    """One recipe over the folds of `runs`: means by head, or None where the clock ended it.

    In the runs of `blank` faces are greyed over as well: a score that stays speaks of the background.
    """
    table: list[dict[str, Any]] = [{} for _ in cfg.heads]
    speed = []
    for run, folds in runs.items():
        if time.time() > end - 12:
            log.say(f"{cfg.name}: no time left for {run}")
            return None
        rows = {f: fold_rows(mat, f) for f in folds}
        keep = np.ones(len(mat.rows), bool)
        for name in folds:
            keep &= ~(
                (mat.group == name)
                if name in T.SETS
                else np.array([s.startswith(METHODS[name]) for s in mat.source])
            )
        tower, heads, how = T.train(cfg, base, mat, keep, half, log.say, end)
        speed.append(how["crops_per_s"])
        log.write(event="trained", recipe=cfg.name, seed=cfg.seed, run=run, **how)
        t = time.time()
        for fold, which in rows.items():
            if not len(which):
                continue
            found = T.score(cfg, tower, heads, mat, which, reference=len(cfg.heads) == 1)
            bare = (
                T.score(cfg, tower, heads, mat, which, reference=False, blank=True)
                if run in blank and len(cfg.heads) == 1
                else None
            )
            for i, got in enumerate(found):
                said = T.judged(mat, which, got, cfg.margin)
                if bare is not None:
                    _, v, first = T.by_video(mat, which, bare[i]["logit"])
                    said["auc_background"] = round(T.auc(mat.label[first], v), 4)
                table[i][fold] = said
                log.write(event="fold", recipe=cfg.name, head=i, seed=cfg.seed, fold=fold, **said)
                log.keep(
                    f"{cfg.name}/{cfg.seed}/{i}/{fold}",
                    np.stack(
                        [got["logit"], got["copy"] if got["copy"] is not None else got["logit"]]
                    ).astype(np.float32),
                )
                log.scores.setdefault(f"rows/{fold}", which.astype(np.int32))
        scored = time.time() - t
    means = []
    for i, (head, row) in enumerate(zip(cfg.heads, table, strict=False)):
        avg = lambda key, row=row: round(
            float(np.nanmean([s[key] for s in row.values() if s.get(key) is not None] or [np.nan])),
            4,
        )
        kinds: dict[str, list[float]] = {}
        for s in row.values():
            for k, (a, _c) in s.get("auc_kinds", {}).items():
                kinds.setdefault(k, []).append(a)
        said = {
            k: avg(k)
            for k in (
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
        }
        said["kinds"] = {k: round(float(np.mean(v)), 3) for k, v in kinds.items()}
        said["folds"] = {k: s["auc"] for k, s in row.items()}
        default = H()
        differs = {k: v for k, v in asdict(head).items() if v != getattr(default, k)}
        log.write(
            event="recipe",
            recipe=cfg.name,
            head=i,
            seed=cfg.seed,
            how=differs,
            speed=speed,
            scoring=round(scored, 1),
            **said,
        )
        log.say(
            f"{cfg.name} s{cfg.seed} {differs} {said['auc']} ref {said['auc_ref']} "
            f"px {said['pixel_auc']} peak {said['peak_fake']}/{said['peak_real']} "
            f"att {said['attention_peak_fake']} bg {said['auc_background']} "
            f"{said['kinds']} {said['folds']} {speed}"
        )
        means.append(said)
    log.save()
    return means


def final(
    cfg: T.Cfg,
    base: T.Base,
    mat: T.Material,
    half: torch.dtype,
    log: Log,
    end: float,
) -> None:
    """All but the held fifths; judged on them, and kept."""
    keep = mat.fold != 0
    tower, heads, how = T.train(cfg, base, mat, keep, half, log.say, end)
    state = {f"tower.{k}": v.detach().cpu() for k, v in tower.state_dict().items()}
    state |= {f"head.{k}": v.detach().cpu() for k, v in heads[0].state_dict().items()}
    save_file(
        {k: v.contiguous().half() if v.dim() > 1 else v.contiguous() for k, v in state.items()},
        log.out / f"{cfg.name}-{cfg.seed}.safetensors",
        {"cfg": json.dumps(asdict(cfg))},
    )
    log.write(event="final", recipe=cfg.name, seed=cfg.seed, **how)
    for group in ("pairs", "ffpp", "dfdc", "methods"):
        which = np.flatnonzero((mat.group == group) & (mat.fold == 0))
        if len(which):
            got = T.score(cfg, tower, heads, mat, which)[0]
            said = T.judged(mat, which, got, cfg.margin)
            log.write(event="held", recipe=cfg.name, seed=cfg.seed, group=group, **said)
            log.say(f"final {cfg.name} s{cfg.seed} {group}: {said}")
            log.keep(f"held/{cfg.name}/{cfg.seed}/{group}", np.stack([got["logit"], got["copy"]]))
            log.scores[f"rows/held/{group}"] = which.astype(np.int32)
    log.save()


def attempt(
    cfg: T.Cfg,
    base: T.Base,
    mat: T.Material,
    half: torch.dtype,
    log: Log,
    end: float,
    runs: Mapping[str, Sequence[str]],
) -> list[dict[str, Any]] | None:
    """`leave_out`, or None and a word in the log where it fails: others may not."""
    try:
        return leave_out(cfg, base, mat, half, log, end, runs=runs)
    except Exception:
        log.say(f"{cfg.name}: {traceback.format_exc()[-800:]}")
        return None


def phase_one(
    base: T.Base, mat: T.Material, half: torch.dtype, log: Log, end: float, only: Sequence[str] = ()
) -> None:
    """All recipes, or those named, while time lasts; the best one's detector after 300 steps."""
    reserve = 30
    best: tuple[float, T.Cfg] | None = None
    for cfg in stages():
        if only and cfg.name not in only:
            continue
        if time.time() > end - reserve - 20:
            break
        two = {k: RUNS[k] for k in ("R2", "R4")}
        means = attempt(cfg, base, mat, half, log, end - reserve, two)
        single = len(cfg.heads) == 1 and cfg.heads[0].token == "global"
        if means and single and (best is None or means[0]["auc"] > best[0]):
            best = means[0]["auc"], cfg
    if best:
        final(replace(best[1], steps=300), base, mat, half, log, end)


def phase_two(base: T.Base, mat: T.Material, half: torch.dtype, log: Log, end: float) -> None:
    """LoRA on narrower crops, the final detector of the better margin, and its controls."""
    lora = next(cfg for cfg in stages() if cfg.name == "lora")
    tight = [replace(lora, name=f"lora-{int(m * 100)}", margin=m) for m in (0.72, 0.6)]
    two = {k: RUNS[k] for k in ("R2", "R4")}
    rest = {k: RUNS[k] for k in ("R1", "R3")}
    means = [attempt(cfg, base, mat, half, log, end, two) for cfg in tight]
    value = [(m[0]["auc_ref"] + m[0]["auc"]) if m else 0.0 for m in means]
    best = tight[value.index(max(value))]
    log.say(f"best of margins: {best.name} {value}")
    final(replace(best, name=f"{best.name}-final", steps=1300), base, mat, half, log, end)
    (head,) = best.heads
    for end_of_name, runs, changes in (
        ("long", two, {"steps": 360}),
        ("cls", two, {"heads": (replace(head, token="cls"),)}),
        ("nopatch", two, {"heads": (replace(head, patch="none"),)}),
        ("rest", rest, {}),
        ("seed1", two, {"seed": 1}),
    ):
        named: dict[str, Any] = {"name": f"{best.name}-{end_of_name}", **changes}
        attempt(replace(best, **named), base, mat, half, log, end, runs)


def phase_default(base: T.Base, mat: T.Material, half: torch.dtype, log: Log, end: float) -> None:
    """The shipped recipe: left out, two folds at a time, and the final detector."""
    lora = next(cfg for cfg in stages() if cfg.name == "lora")
    recipe = replace(lora, name="lora-60", margin=0.6)
    for run, folds in RUNS.items():
        if not all(f"{recipe.name}/0/0/{fold}" in log.scores for fold in folds):
            leave_out(recipe, base, mat, half, log, end, {run: folds})
    if not (log.out / f"{recipe.name}-final-0.safetensors").exists():
        final(replace(recipe, name=f"{recipe.name}-final", steps=1300), base, mat, half, log, end)


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
    dev = torch.device("cuda" if cuda else "cpu")
    half = torch.bfloat16 if cuda else torch.float32
    if cuda:
        torch.set_float32_matmul_precision("highest")
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = True
        log.say(torch.cuda.get_device_name())
    end = START + asked.seconds
    base = M.load_base(asked.base, dev, half)
    mat = T.Material(asked.pack, dev, Decoders(asked.decoders, dev), log.say)
    T.measure(base, mat, half)
    if asked.phase == "default":
        phase_default(base, mat, half, log, end)
    elif asked.phase == "one":
        phase_one(base, mat, half, log, end, [name for name in asked.only.split(",") if name])
    else:
        phase_two(base, mat, half, log, end)
    log.save()
    log.say("done")


if __name__ == "__main__":
    main()
