"""Turns predictions into tables: which numbers go where, what they are compared with, and the notes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from deepscan.benchmark import evaluation, predictions
from deepscan.benchmark.evaluation import Estimate, Videos, mean
from deepscan.benchmark.predictions import Foreign, Scored
from deepscan.benchmark.studies import Study, peer_notes, peers
from deepscan.benchmark.tables import CAVEAT, Cell, Table, plain_name
from deepscan.errors import DataError

PROTOCOL_WORDS = {
    "deepscan": "deepscan's protocol: a video is its identity, {crops} evenly, mean of logits",
    "deepfakebench": "DeepfakeBench's protocol: videos merged by folder name, first {crops}, mean of"
    " probabilities",
}
INTERVALS = (
    "Brackets: 95 % bootstrap intervals over videos, stratified by class, of gains paired; they"
    " cover the choice of videos, not the training seed."
)

# One detector's answers by set, a Scored for each seed.
Answers = Mapping[str, Sequence[Scored]]


@dataclass(frozen=True, slots=True)
class Rule:
    """How predictions are judged, and the notes for every table."""

    sets: tuple[str, ...]
    protocol: str = "deepscan"
    frames: int = evaluation.FRAMES
    notes: tuple[str, ...] = field(default=())

    def words(self) -> tuple[str, ...]:
        """The notes for a table under this rule."""
        crops = "1 crop" if self.frames == 1 else f"{self.frames} crops"
        return (
            f"Video AUC by {PROTOCOL_WORDS[self.protocol].format(crops=crops)}.",
            INTERVALS,
            *self.notes,
        )


def answers(
    table: pa.Table,
    detector: str,
    sets: Sequence[str],
    seeds: Sequence[int | None] = (None,),
    view: str = predictions.PLAIN,
) -> Answers:
    """A detector's predictions, by set."""
    found: dict[str, list[Scored]] = {}
    for name in sets:
        for seed in seeds:
            one = predictions.scored(table, name, detector, seed, view)
            if one is not None:
                found.setdefault(name, []).append(one)
    return found


def foreign_answers(foreign: Foreign, ours: Answers) -> tuple[Answers, list[str]]:
    """Another tool's predictions on the sets that deepscan was evaluated on, and notes on them.

    Raises:
        DataError: its names fit none of them, or fit several videos.
    """
    found: dict[str, list[Scored]] = {}
    notes = [f"{foreign.note}."]
    for name, of_seeds in ours.items():
        one = predictions.match(foreign, of_seeds[0])
        if one is None:
            continue
        if len(set(one.labels[one.place].tolist())) < 2:
            notes.append(
                f"{foreign.detector}: its predictions on {name} are all of one class; no AUC."
            )
            continue
        found[name] = [one]
    if not found:
        like = {name: of_seeds[0].names[0] for name, of_seeds in ours.items()}
        raise DataError(
            f"{foreign.file}: none of its {len(set(foreign.videos))} videos is of {', '.join(ours)}; they are"
            f" matched by the ends of their paths, as in {'; '.join(like.values())}"
        )
    return found, notes


# --- AUC by set ------------------------------------------------------------------------------------


def auc_table(
    name: str,
    title: str,
    rows: Mapping[str, Answers],
    rule: Rule,
    against: Mapping[str, str | None],
    published: Mapping[str, Mapping[str, float]] | None = None,
    with_peers: bool = False,
) -> Table:
    """Video AUC of each row on each set, on average and pooled, and the gain over another row.

    Averages stand where every set was scored. Published averages are shown where the sets are those they
    were taken over.
    """
    published = published or {}
    judged = {row: videos(found, rule) for row, found in rows.items()}
    columns = [*rule.sets, "avg", "pooled"]
    compared = any(against.get(row) for row in rows)
    listed: list[tuple[str, tuple[Cell | str | None, ...]]] = []
    for row, own in judged.items():
        figures = published.get(row, {})
        estimates = {s: mean([evaluation.auc(v) for v in found]) for s, found in own.items()}
        cells: list[Cell | str | None] = [
            Cell.of(estimates[s], figures.get(s), n=len(own[s][0].names))
            if s in estimates
            else Cell(None, published=figures[s])
            if s in figures
            else None
            for s in rule.sets
        ]
        cells += _overall(own, estimates, rule, figures)
        if compared:
            cells += _gain(own, judged.get(against.get(row) or "", {}), against.get(row), rule)
        listed.append((row, tuple(cells)))
    if compared:
        columns += ["gain, on average", "over"]
    notes = [*rule.words(), *_one_sided(rows, judged, rule)]
    if any(set(rule.sets) & set(figures) for figures in published.values()):
        notes.append(CAVEAT)
    if with_peers:
        theirs = _peer_rows(rule, len(columns))
        listed += theirs
        notes += [f"{peer}: {peer_notes()[peer]}." for peer, _ in theirs]
        notes += [CAVEAT] if theirs else []
    notes += _counted(rows, rule)
    if rule.protocol != "deepscan":
        name, title = f"{name}-{rule.protocol}", f"{title}, by DeepfakeBench's protocol"
    return Table(name, title, tuple(columns), tuple(listed), tuple(dict.fromkeys(notes)))


def study_table(
    name: str, study: Study, table: pa.Table, rule: Rule, seeds: Sequence[int | None]
) -> Table:
    """The table of a study: its rows are runs' names in the predictions."""
    rows = {row: answers(table, run, rule.sets, seeds) for row, run in study.rows.items()}
    against = {row: study.other(row) for row in study.rows}
    published = study.published.figures() if study.published else {}
    return auc_table(name, study.title, rows, rule, against, published)


def videos(found: Answers, rule: Rule) -> dict[str, list[Videos]]:
    """Video scores of each seed, for the sets that have scores of both classes."""
    judged = {
        name: [evaluation.videos(one, rule.protocol, rule.frames) for one in of_seeds]
        for name, of_seeds in found.items()
    }
    return {
        name: own
        for name, own in judged.items()
        if all(len(set(one.labels.tolist())) == 2 for one in own)
    }


def _one_sided(
    rows: Mapping[str, Answers], judged: Mapping[str, Mapping[str, object]], rule: Rule
) -> list[str]:
    """Which sets have no AUC in which rows, and why, as notes."""
    why = (
        "only videos of one class have a face"
        if rule.protocol == "deepscan"
        else "merged by folder names, its videos are all of one class"
    )
    listed: dict[str, list[str]] = {}
    for row, found in rows.items():
        for name in (name for name in found if name not in judged[row]):
            listed.setdefault(name, []).append(row)
    return [f"{name}: {why} ({', '.join(which)}); no AUC." for name, which in listed.items()]


def _overall(
    own: Mapping[str, list[Videos]],
    estimates: Mapping[str, Estimate],
    rule: Rule,
    figures: Mapping[str, float],
) -> list[Cell | str | None]:
    """Average over the sets, and the pooled AUC."""
    if set(own) != set(rule.sets):
        return [None, None]
    same = set(figures) - {"avg"} == set(rule.sets)
    average = Cell.of(mean(list(estimates.values())), figures.get("avg") if same else None)
    seeds = min(len(found) for found in own.values())
    whole = [evaluation.pooled([own[s][i] for s in rule.sets]) for i in range(seeds)]
    return [average, Cell.of(mean(whole))]


def _gain(
    own: Mapping[str, list[Videos]],
    other: Mapping[str, list[Videos]],
    named: str | None,
    rule: Rule,
) -> list[Cell | str | None]:
    """The gain over another row, averaged over the sets and seeds that both have."""
    both = [s for s in rule.sets if s in own and s in other]
    if not named or not both:
        return [None, named]
    gains, videos = [], 0
    for name in both:
        pairs = _of_one_seed(own[name], other[name])
        if not pairs:
            continue
        found = [evaluation.gain(ours, theirs) for ours, theirs in pairs]
        gains.append(mean([estimate for estimate, _ in found]))
        videos += found[0][1]
    if not gains:
        return [None, named]
    return [Cell.of(mean(gains), signed=True, n=videos), named]


def _of_one_seed(own: list[Videos], other: list[Videos]) -> list[tuple[Videos, Videos]]:
    """Both rows' videos of each seed that both have; a detector without seeds is paired with each."""
    by_seed = {one.seed: one for one in other}
    alone = by_seed.get(None)
    if alone is None and [one.seed for one in own] == [None]:
        return [(own[0], one) for one in other]
    pairs = [(one, by_seed.get(one.seed, alone)) for one in own]
    return [(ours, theirs) for ours, theirs in pairs if theirs is not None]


def _peer_rows(rule: Rule, width: int) -> list[tuple[str, tuple[Cell | str | None, ...]]]:
    listed: list[tuple[str, tuple[Cell | str | None, ...]]] = []
    for peer, figures in peers().items():
        shown = [Cell(None, published=figures[s]) if s in figures else None for s in rule.sets]
        if any(shown):
            listed.append((peer, (*shown, *[None] * (width - len(shown)))))
    return listed


def _counted(rows: Mapping[str, Answers], rule: Rule) -> list[str]:
    """Notes on the videos that were not scored, by set."""
    listed: dict[str, str] = {}
    for row, found in rows.items():
        for name, of_seeds in found.items():
            counts = evaluation.counts(of_seeds[0])
            if counts["faceless"] or counts["failed"]:
                both = mean([_with_cropless(one, rule) for one in of_seeds])
                listed.setdefault(
                    name,
                    f"{name}: {counts['scored']} videos scored, {counts['faceless']} without a face,"
                    f" {counts['failed']} failed; the latter are left out above.",
                )
                listed[name] += f" With them counted as logit 0: {row} {both.value:.3f}."
    return list(listed.values())


def _with_cropless(one: Scored, rule: Rule) -> Estimate:
    judged = evaluation.videos(one, rule.protocol, rule.frames)
    return evaluation.auc(evaluation.with_cropless(judged, one, rule.protocol))


# --- all measures, robustness, averaging -----------------------------------------------------------


def measures_table(detector: str, found: Answers, rule: Rule) -> Table:
    """Every measure of one detector, one column per set; the first of several seeds."""
    by_set = {
        name: evaluation.measures(of_seeds[0], rule.frames) for name, of_seeds in found.items()
    }
    names = list(dict.fromkeys(measure for listed in by_set.values() for measure in listed))
    rows: list[tuple[str, tuple[Cell | str | None, ...]]] = []
    for state in ("scored", "faceless", "failed"):
        row = f"videos {'without a face' if state == 'faceless' else state}"
        rows.append((row, tuple(str(evaluation.counts(s[0])[state]) for s in found.values())))
    for measure in names:
        cells = [
            Cell.of(listed[measure]) if measure in listed else None for listed in by_set.values()
        ]
        rows.append((measure, tuple(cells)))
    notes = (
        *rule.words(),
        "Accuracy is at logit 0, probability 0.5; and at the checkpoint's threshold if it has a"
        " calibration. ECE, Brier and Cllr take a video's mean logit for its log odds.",
    )
    return Table(
        f"measures-{plain_name(detector)}",
        f"{detector}: all measures",
        tuple(by_set),
        tuple(rows),
        notes,
    )


def views_table(
    name: str,
    title: str,
    table: pa.Table,
    detector: str,
    views: Sequence[str],
    rule: Rule,
    notes: Sequence[str] = (),
) -> Table:
    """One detector under several views, each compared with the unchanged crops."""
    rows = {
        view or "as they are": answers(table, detector, rule.sets, view=view)
        for view in ("", *views)
    }
    against = dict.fromkeys(rows, "as they are") | {"as they are": None}
    listed = auc_table(f"{name}-{plain_name(detector)}", title, rows, rule, against)
    return Table(listed.name, listed.title, listed.columns, listed.rows, (*listed.notes, *notes))
