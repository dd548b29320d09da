"""Studies as data: which runs make up each of the paper's tables and figures, and on which sets.

A run is a name and what its settings differ in from the recipe; a study lists rows that are runs, test
sets, and the published figures beside them.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from types import MappingProxyType
from typing import Any

from deepscan.benchmark.datasets import TEN
from deepscan.errors import SettingsError

# The method's 2e-4, but a twentieth of it for full fine-tuning, an order usual for that.
FULL = {"adapter": "full", "lr": 1e-5}
EFFORT = {"adapter": "effort"}
LORA = {"adapter": "lora"}
BASELINE = {"token": "cls"}  # without queries, hence without the two losses

# Weights of Figures 2 and 3; the default stands in the middle.
FLCL_WEIGHTS = (0.035, 0.07, 0.28, 0.56)
RAAL_WEIGHTS = (0.25, 0.5, 2.0, 4.0)

RUNS: dict[str, dict[str, Any]] = {
    "effort": EFFORT | BASELINE,
    "effort+ours": EFFORT,
    "lora": LORA | BASELINE,
    "lora+ours": LORA,
    "full": FULL | BASELINE,
    "full+ours": FULL,
    "effort+ours, avg": EFFORT | {"token": "avg"},
    "effort+ours, weighted-avg": EFFORT | {"token": "weighted-avg"},
    "effort+ours, concat": EFFORT | {"token": "concat"},
    "effort+ours, MACL": EFFORT | {"contrast": "macl"},
    "effort+ours, no FLCL": EFFORT | {"contrast": "none"},
    "effort+ours, no RAAL": EFFORT | {"alignment": "none"},
    "effort+ours, no losses": EFFORT | {"contrast": "none", "alignment": "none"},
    "effort+ours, RAAL by L1": EFFORT | {"alignment": "l1"},
    "effort+ours, RAAL by L2": EFFORT | {"alignment": "l2"},
    "effort+ours, token L2": EFFORT | {"alignment": "token-l2"},
    "lora+ours, MACL": LORA | {"contrast": "macl"},
    "lora+ours, no RAAL": LORA | {"alignment": "none"},
    "lora+ours, no norm": LORA | {"patch_norm": False},  # patches before ln_post
    **{f"effort+ours, FLCL {w:g}": EFFORT | {"flcl": w} for w in FLCL_WEIGHTS},
    **{f"effort+ours, RAAL {w:g}": EFFORT | {"raal": w} for w in RAAL_WEIGHTS},
}
SIX = ("effort", "effort+ours", "lora", "lora+ours", "full", "full+ours")


@dataclass(frozen=True, slots=True)
class Published:
    """A published CSV: the columns that name a row, joined by commas, and each of our rows' name there."""

    file: str
    key: tuple[str, ...]
    rows: Mapping[str, str]

    def figures(self) -> dict[str, dict[str, float]]:
        """{our row: {column: figure}}, of the columns that hold numbers."""
        found = {}
        for line in _read(self.file):
            names = [ours for ours, at in self.rows.items() if at == _key(line, self.key)]
            for name in names:
                found[name] = _numbers(line, self.key)
        return found


@dataclass(frozen=True, slots=True)
class Study:
    """`rows`: what a row is called, and its run. `against`: the row that others are compared with, or their
    own by row. `kind`: "auc", "efficiency", "curve" (rows are weights), "attention" or "maps".
    """

    title: str
    rows: Mapping[str, str]
    sets: tuple[str, ...] = ()
    published: Published | None = None
    against: str | Mapping[str, str] = ""
    kind: str = "auc"

    def other(self, row: str) -> str | None:
        """The row that `row` is compared with."""
        found = self.against if isinstance(self.against, str) else self.against.get(row, "")
        return found if found and found != row else None


def _same(*names: str) -> Mapping[str, str]:
    return MappingProxyType({name: name for name in names})


def _curve(weights: tuple[float, ...], name: str, zero: str, default: float) -> Mapping[str, str]:
    runs = {w: f"effort+ours, {name} {w:g}" for w in weights}
    runs |= {0.0: zero, default: "effort+ours"}
    return MappingProxyType({f"{w:g}": runs[w] for w in sorted(runs)})


STUDIES: dict[str, Study] = {
    "table-1": Study(
        "Table 1: the token that is classified",
        MappingProxyType(
            {"global": "effort+ours"}
            | {token: f"effort+ours, {token}" for token in ("avg", "weighted-avg", "concat")}
        ),
        TEN,
        Published("table1_tokens", ("token",), _same("global", "avg", "weighted-avg", "concat")),
        "global",
    ),
    "table-2": Study(
        "Table 2: FLCL, which sees no masks, and MACL, which does",
        MappingProxyType({"flcl": "effort+ours", "macl": "effort+ours, MACL"}),
        ("cdf2", "fsh", "dfdc"),
        Published("table2_contrastive", ("loss",), _same("flcl", "macl")),
        "flcl",
    ),
    "table-3": Study(
        "Table 3: RAAL's metric",
        MappingProxyType(
            {
                "l1": "effort+ours, RAAL by L1",
                "l2": "effort+ours, RAAL by L2",
                "kl": "effort+ours",
            }
        ),
        ("cdf2", "uniface"),
        Published("table3_raal_metric", ("metric",), _same("l1", "l2", "kl")),
        "kl",
    ),
    "table-4": Study(
        "Table 4: what holds real crops to [CLS]",
        MappingProxyType(
            {
                "none": "effort+ours, no RAAL",
                "token-l2": "effort+ours, token L2",
                "raal": "effort+ours",
            }
        ),
        ("cdf2", "fsh", "dfdc"),
        Published("table4_real_regulariser", ("regulariser",), _same("none", "token-l2", "raal")),
        "raal",
    ),
    "table-5": Study(
        "Table 5: what training costs",
        _same(*SIX),
        published=Published("table5_efficiency", ("method",), _same(*SIX)),
        against="effort",
        kind="efficiency",
    ),
    "components": Study(
        "Ablation of the components",
        MappingProxyType(
            {
                "[CLS]": "effort",
                "+ query": "effort+ours, no losses",
                "+ query + FLCL": "effort+ours, no RAAL",
                "+ query + FLCL + RAAL": "effort+ours",
            }
        ),
        ("cdf1", "fsh", "dfdcp"),
        Published(
            "ablation_components",
            ("query", "flcl", "raal"),
            MappingProxyType(
                {
                    "[CLS]": "0,0,0",
                    "+ query": "1,0,0",
                    "+ query + FLCL": "1,1,0",
                    "+ query + FLCL + RAAL": "1,1,1",
                }
            ),
        ),
        "[CLS]",
    ),
    "cross-manipulation": Study(
        "Across manipulations: DF40's forgeries of FaceForensics++",
        _same("effort", "effort+ours"),
        ("uniface", "e4s", "fsgan", "simswap", "inswap", "blendface", "mobileswap", "facedancer"),
        Published(
            "cross_dataset",
            ("method",),
            MappingProxyType({"effort+ours": "QTFP", "effort": "Effort"}),
        ),
        "effort",
    ),
    "methods": Study(
        "The six methods",
        _same(*SIX),
        TEN,
        Published(
            "cross_dataset",
            ("method",),
            MappingProxyType({"effort+ours": "QTFP", "effort": "Effort"}),
        ),
        MappingProxyType({f"{adapter}+ours": adapter for adapter in ("effort", "lora", "full")}),
    ),
    "variants": Study(
        "MACL, and what leaving RAAL or the final norm out does",
        _same("lora+ours", *(f"lora+ours, {what}" for what in ("MACL", "no RAAL", "no norm"))),
        TEN,
        against="lora+ours",
    ),
    "figure-1": Study(
        "Figure 1: attention on real faces, with and without RAAL",
        MappingProxyType({"with RAAL": "effort+ours", "without RAAL": "effort+ours, no RAAL"}),
        ("cdf2",),
        kind="attention",
    ),
    "figure-2": Study(
        "Figure 2: the weight of FLCL",
        _curve(FLCL_WEIGHTS, "FLCL", "effort+ours, no FLCL", 0.14),
        ("fsh", "wdf", "dfdcp"),
        against="0.14",
        kind="curve",
    ),
    "figure-3": Study(
        "Figure 3: the weight of RAAL",
        _curve(RAAL_WEIGHTS, "RAAL", "effort+ours, no RAAL", 1.0),
        ("fsh", "wdf", "dfdcp"),
        against="1",
        kind="curve",
    ),
    "figure-4": Study("Figure 4: where the six methods look", _same(*SIX), ("cdf2",), kind="maps"),
}


def study(name: str) -> Study:
    """The study of that name.

    Raises:
        SettingsError: there is none.
    """
    if name not in STUDIES:
        raise SettingsError(f"study {name!r} is not one of {', '.join(STUDIES)}")
    return STUDIES[name]


def peers() -> dict[str, dict[str, float]]:
    """Published AUCs of the paper and others by set, by method; and each one's note under peer_notes."""
    return {line["method"]: _numbers(line, ("method",)) for line in _read("cross_dataset")}


def peer_notes() -> dict[str, str]:
    """What differs about each published figure, in a few words: training data and source."""
    return {
        line["method"]: ", ".join(word for word in (line["train"], line["note"]) if word)
        for line in _read("cross_dataset")
    }


def _read(name: str) -> list[dict[str, str]]:
    text = (files("deepscan.benchmark") / "published" / f"{name}.csv").read_text("utf-8")
    return list(csv.DictReader(text.splitlines()))


def _key(line: Mapping[str, str], columns: tuple[str, ...]) -> str:
    return ",".join(line[column] for column in columns)


def _numbers(line: Mapping[str, str], without: tuple[str, ...]) -> dict[str, float]:
    found = {}
    for column, text in line.items():
        if column not in without and text.replace(".", "", 1).isdigit():
            found[column] = float(text)
    return found
