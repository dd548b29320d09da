"""Scores of crops, and what they are worth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from deepscan.judgement import metrics
from deepscan.model.detector import without_detail
from deepscan.shapes import Float, Int
from tools.evidence.geometry import gaussian, patch_shares, plain_view
from tools.evidence.material import Maps, Material, Rows, enlarged
from tools.evidence.recipes import REFERENCE
from tools.evidence.train import Trained, answer

ON_FACE = 0.25  # of a patch that lies on the face by more, it is said that it does
FORGED = 0.5  # likewise of what is manipulated
SIZE = 256  # crops scored at a time


@dataclass(frozen=True, slots=True)
class Scores:
    """What a detector finds in n crops."""

    logit: Float[np.ndarray, " n"]
    copy: Float[np.ndarray, " n"] | None
    """The logits of the crops' copies without detail; None: not asked for."""
    evidence: Float[np.ndarray, "n p"] | None
    """What each patch adds to the logit; None: it has no queries."""
    attention: Float[np.ndarray, "n p"] | None
    """Of the queries, over patches."""

    def kept(self) -> Float[np.ndarray, "2 n"]:
        """Logits and copies' logits, as scores.npz has them; without copies the logits twice."""
        return np.stack([self.logit, self.logit if self.copy is None else self.copy])


@torch.no_grad()
def score(
    trained: Trained, material: Material, rows: Rows, *, copies: bool = True, greyed: bool = False
) -> Scores:
    """What the detector finds in the rows' crops; `greyed`: with faces grey, which leaves backgrounds."""
    found: dict[str, list[np.ndarray]] = {}
    for part in torch.from_numpy(rows).to(material.device).split(SIZE):
        crops = material.crops[part].float()
        if greyed:
            face = enlarged(material.face[part])
            soft = gaussian(face, torch.full((len(part),), 6.0, device=material.device))
            crops = crops + soft.clamp_max(0.5) * 2 * (128 - crops)
        images = plain_view(crops, trained.recipe.detector.view).clamp(0, 255)
        answered = answer(trained.detector, images)
        attention = answered.query_attention
        values = {
            "logit": answered.logit,
            "evidence": answered.evidence,
            "attention": None if attention is None else attention.mean(1),
            "copy": answer(trained.detector, without_detail(images)).logit if copies else None,
        }
        for name, value in values.items():
            if value is not None:
                found.setdefault(name, []).append(value.float().cpu().numpy())
    joined = {name: np.concatenate(parts) for name, parts in found.items()}
    return Scores(
        joined["logit"], joined.get("copy"), joined.get("evidence"), joined.get("attention")
    )


def auc(labels: Int[np.ndarray, " n"], scores: Float[np.ndarray, " n"]) -> float:
    """metrics.auc; nan where a class is missing."""
    return metrics.auc(labels, scores) if 0 < labels.sum() < len(labels) else float("nan")


def video_auc(material: Material, rows: Rows, logits: Float[np.ndarray, " n"]) -> float:
    """AUC of videos, whose score is the mean of their crops' logits."""
    _, labels, scores = _videos(material, rows, logits)
    return auc(labels, scores)


def _videos(
    material: Material, rows: Rows, logits: Float[np.ndarray, " n"]
) -> tuple[np.ndarray, Int[np.ndarray, " v"], Float[np.ndarray, " v"]]:
    """Of each video its kind, its label and its score."""
    pairs = zip(material.source[rows], material.video[rows], strict=True)
    names = [f"{source}|{video}" for source, video in pairs]
    videos, labels, scores = metrics.video_scores(names, material.label[rows], logits)
    kind = dict(zip(names, material.kind[rows], strict=True))
    return np.array([kind[video] for video in videos]), labels, scores


def judged(material: Material, rows: Rows, found: Scores, margin: float) -> dict[str, Any]:
    """What a detector's scores of these rows are worth, by the names of results.jsonl.

    AUCs are of videos: `auc`, and `auc_ref` with REFERENCE of the copies' logits taken off; `_kinds` has each
    kind against all real ones, with its number of videos. For the rest see `_of_maps`.
    """
    said: dict[str, Any] = {}
    logits = {"auc": found.logit}
    if found.copy is not None:
        logits["auc_ref"] = found.logit - REFERENCE * found.copy
    for name, values in logits.items():
        kinds, labels, scores = _videos(material, rows, values)
        said[name] = round(auc(labels, scores), 4)
        if name == "auc":
            said["videos"] = [int((labels == 0).sum()), int(labels.sum())]
        said[f"{name}_kinds"] = {}
        for kind in np.unique(kinds[labels == 1]):
            own = kinds == kind
            among = (labels == 0) | own
            value = round(auc(labels[among], scores[among]), 3)
            said[f"{name}_kinds"][str(kind)] = [value, int(own.sum())]
    return said | _of_maps(material, rows, found, margin)


def _of_maps(material: Material, rows: Rows, found: Scores, margin: float) -> dict[str, Any]:
    """Where the maps lie.

    `peak_fake`: the share of manipulated crops whose strongest patch lies on the face; `peak_real`: that of
    real ones with a positive patch. `positive_on_face`: the share of positive evidence there. `pixel_auc`: of
    the evidence against masks, all patches at once; `pixel_auc_each`: its mean over crops.
    """
    evidence, attention = found.evidence, found.attention
    if evidence is None or attention is None:
        return {}

    def mean(values: np.ndarray) -> float:
        return round(float(values.mean()), 4)

    places = torch.from_numpy(rows).to(material.device)
    face = _shares(material.face, places, margin) > ON_FACE
    fake = material.label[rows] == 1
    every = np.arange(len(rows))
    peak = face[every, evidence.argmax(1)]
    some = ~fake & (evidence.max(1) > 0)
    positive = np.clip(evidence, 0, None)
    on_face = (positive * face)[fake].sum() / max(1e-9, positive[fake].sum())
    said = {
        "peak_fake": mean(peak[fake]),
        "peak_real": mean(peak[some]) if some.any() else None,
        "positive_on_face": round(float(on_face), 4),
        "attention_peak_fake": mean(face[every, attention.argmax(1)][fake]),
        "attention_on_face": mean((attention * face).sum(1)[fake]),
    }
    known = material.known[places].cpu().numpy() & fake
    if known.any():
        forged = (_shares(material.truth, places, margin)[known] > FORGED).astype(int)
        own = evidence[known]
        each = [auc(mask, values) for mask, values in zip(forged, own, strict=True)]
        said["pixel_auc"] = round(auc(forged.ravel(), own.ravel()), 4)
        said["pixel_auc_each"] = round(float(np.nanmean(each)), 4)
    return said


def _shares(maps: Maps, rows: Int[torch.Tensor, " n"], margin: float) -> Float[np.ndarray, "n p"]:
    """How much of each patch that the detector sees these maps cover."""
    found = [plain_view(enlarged(maps[part]), margin) for part in rows.split(SIZE)]
    return patch_shares(torch.cat(found))[:, 0].cpu().numpy()
