"""Shapes in annotations: checked in tests, and nothing but words in production."""

from __future__ import annotations

import subprocess
import sys

import jaxtyping
import numpy as np
import pytest

from deepscan.judgement.timeline import change
from deepscan.records import Frame


def test_a_wrong_shape_is_refused_here() -> None:
    plain = np.zeros((18, 32))
    assert change(plain, plain) == 0
    with pytest.raises(jaxtyping.TypeCheckError):
        change(plain, np.zeros((18, 31)))
    with pytest.raises(jaxtyping.TypeCheckError):
        Frame(0, 0, np.zeros((4, 4), np.uint8))  # type: ignore[arg-type]


def test_no_decoder_waits_for_them() -> None:
    code = "import sys, deepscan.media.isolation; sys.exit('jaxtyping' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
