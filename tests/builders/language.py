"""The words that first screens do without: the page's, and the terminal's after `detect`."""

from __future__ import annotations

import re

# They have their place in the record below, where each can be looked up.
TERMS = (
    "logit", "bootstrap", "instant", "cllr", "sigmoid", "softmax", "quantile", "conformal",
    "platt", "auc", "eer", "student's t", "confidence interval", "likelihood ratio", "token", "tensor",
)  # fmt: skip


def terms(text: str) -> list[str]:
    """Which of the terms stand in a text, as whole words or their plurals."""
    return [t for t in TERMS if re.search(rf"\b{re.escape(t)}s?\b", text, re.IGNORECASE)]
