"""The inputs of ../shared/faults, each once wrong; tests of its package make every kind anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import faults


@pytest.mark.shared
@pytest.mark.slow
def test_every_input_gives_what_is_expected(
    shared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs = shared.parent / "faults"
    if not inputs.is_dir():
        pytest.skip("../shared/faults is not here")
    assert faults.main([str(inputs)]) == 0, capsys.readouterr().out


def test_what_differs_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = faults.Case("a", "1 frame", lambda path: "1 frame")
    wrong = faults.Case("b", "1 frame", lambda path: f"none in {path.name}")
    monkeypatch.setattr(faults, "CASES", (right, wrong))
    assert faults.main([str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert "| a | 1 frame | as expected |" in said
    assert "| b | 1 frame | none in b |" in said
    assert said.endswith("1 of 2 as expected\n")
