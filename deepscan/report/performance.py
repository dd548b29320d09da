"""Describes how often a detector is right, as its checkpoint states: on named videos, and by kind."""

from __future__ import annotations

from typing import Any

from deepscan.judgement.timeline import LEVEL
from deepscan.judgement.words import percent


def performance(training: dict[str, Any]) -> dict[str, Any] | None:
    """The detector's results on videos that it did not learn from, as its checkpoint states them; or None.

    They come from the test videos if there were any, else from the held-out people that chose its best epoch.
    Checkpoints come from many places, so one may state no results, or in a form that is not understood.
    """
    tested = training.get("test") is not None
    try:
        results = training["results"]["test" if tested else "validation"]
        data = str(training["test"] if tested else f"held-out people of {training['data']}")
        videos = {kind: int(results["videos"][kind]) for kind in ("real", "manipulated")}
        stated = {
            name: {part: float(results[name][part]) for part in ("value", "low", "high")}
            for name in ("video_auc", "eer", "tpr_at_fpr_5")
        }
    except (KeyError, TypeError, ValueError):
        return None
    auc, caught = stated["video_auc"], stated["tpr_at_fpr_5"]
    chosen = "" if tested else ", by which it was selected"
    counts = f"{videos['real']} real and {videos['manipulated']} manipulated videos{chosen}"
    between = f"{percent(auc['low'])} to {percent(auc['high'])}"
    return {
        "data": data,
        "videos": videos,
        **stated,
        "kinds": _kinds(training["results"].get("kinds")),
        "sentence": (
            f"On {data} ({counts}) a manipulated video scored above a real one in {percent(auc['value'])} of"
            f" all pairs ({percent(LEVEL)} interval {between}; {percent(0.5)} is chance); a threshold passed"
            f" by {percent(0.05)} of the real videos caught {percent(caught['value'])} of the manipulated"
            " ones."
        ),
    }


def _kinds(stated: Any) -> list[dict[str, Any]]:
    """The checkpoint's table of results by kind of manipulation, those from unseen sources first."""
    if not isinstance(stated, list):
        return []
    try:
        rows = [
            {
                "kind": str(row["kind"]),
                "data": str(row["data"]),
                "unseen": bool(row["unseen"]),
                "real": int(row["real"]),
                "manipulated": int(row["manipulated"]),
                **{
                    name: float(row[name])
                    for name in ("auc", "low", "high", "indicated", "cleared")
                },
            }
            for row in stated
        ]
    except (KeyError, TypeError, ValueError):
        return []
    return sorted(rows, key=lambda row: not row["unseen"])
