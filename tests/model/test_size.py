"""Counts, held against torch's own counter and against the figures of method.md."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from deepscan.cli import run
from deepscan.model.detector import Detector
from deepscan.model.header import DetectorSettings
from deepscan.model.size import size


@pytest.mark.parametrize("token", ["cls", "global", "concat"])
@pytest.mark.parametrize("tower", ["tiny-vit", "ViT-B-32-quickgelu"])
def test_operations_are_those_torch_counts(tiny_tower: str, tower: str, token: str) -> None:
    """All but LayerNorms, which torch leaves out: five an element, two a layer and two more."""
    settings = DetectorSettings(tower=tower, token=token)
    detector = Detector(settings).eval()
    shape = detector.tower.size
    crop = torch.zeros(1, shape.image_size, shape.image_size, 3, dtype=torch.uint8)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        detector(crop)
    tokens = (shape.image_size // shape.patch_size) ** 2 + 1
    norms = 2 * 5 * tokens * shape.width * (2 * shape.layers + 2)
    assert counter.get_total_flops() == size(settings).flops_complete - norms


def test_both_conventions_at_vit_l_14() -> None:
    """method.md: 2 x 77.83 GMAC as fvcore counts the bare tower, 162.2 complete, 1.1 for the queries."""
    bare = size(DetectorSettings(tower="ViT-L-14-quickgelu", token="cls"))
    assert bare.flops_fvcore / 2e9 == pytest.approx(77.83, abs=0.005)
    assert bare.flops_complete / 1e9 == pytest.approx(162.2, abs=0.05)
    ours = size(DetectorSettings(tower="ViT-L-14-quickgelu"))
    assert ours.flops_queries_written / 1e9 == pytest.approx(1.1, abs=0.02)
    assert ours.flops_complete - bare.flops_complete == ours.flops_queries < 0.055e9


def test_a_copy_to_score_against_doubles_the_operations_and_adds_no_parameter() -> None:
    settings = DetectorSettings(tower="ViT-B-32-quickgelu")
    counts = []
    for one in (settings, replace(settings, reference=0.5)):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            Detector(one).eval()(torch.zeros(1, 224, 224, 3, dtype=torch.uint8))
        counts.append((counter.get_total_flops(), size(one)))
    (alone_by_torch, alone), (beside_by_torch, beside) = counts
    assert beside_by_torch == 2 * alone_by_torch
    assert beside.flops_complete == 2 * alone.flops_complete
    assert beside.trained == alone.trained


def test_the_command_prints_the_papers_figures_beside(capsys: pytest.CaptureFixture[str]) -> None:
    for adapter, count in (("effort", "196,704"), ("lora", "1,769,472"), ("full", "303,966,208")):
        asked = ["model", f"--adapter={adapter}", "--no-query", "--tower=ViT-L-14-quickgelu"]
        assert run(asked) == 0
        output = capsys.readouterr().out
        assert count in output
        assert "155.66  paper 155." in output
        assert ("The paper's count differs" in output) == (adapter == "full")
    assert run(["model", "--adapter=lora", "--tower=ViT-L-14-quickgelu", "--json"]) == 0
    output = json.loads(capsys.readouterr().out)
    assert output["queries"] == 4_198_400 + 4 * 1024
    assert output["trained"] == 1_769_472 + 4_202_496 + 1025
    assert output["published"] == {"trained_millions": 5.97, "gflops": 155.7}


@pytest.mark.parametrize("tower", ["ViT-B-32", "ViT-B-16", "ViT-L-14-336", "ViT-H-14"])
def test_any_plain_vit_is_counted(tower: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["model", f"--tower={tower}"]) == 0
    assert "paper" not in capsys.readouterr().out


def test_an_unknown_tower_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["model", "--tower=ViT-X-99"]) == 2
    assert "ViT-X-99" in capsys.readouterr().err
