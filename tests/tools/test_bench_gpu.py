"""The pure parts of `make bench-gpu`, and that a section that fails does not take the next ones with it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
import torch

from deepscan.files import sha256
from deepscan.media.video import VideoSource
from deepscan.model.header import DetectorSettings
from tools import bench_gpu, bench_networks
from tools.bench_log import Log, times, walls
from tools.bench_networks import random_detector
from tools.bench_videos import copies, steady


def test_what_is_told_is_markdown_and_kept_as_it_comes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = Log(tmp_path / "found.json")
    output.head("way", "crops/s")
    output.row("plain", 2874.6)
    output.row("joined", 0.61234)
    output.keep("rates", [1.5])
    assert json.loads((tmp_path / "found.json").read_text("utf-8")) == {"rates": [1.5]}
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:] == [
        "| way | crops/s |",
        "|--:|--:|",
        "| plain | 2,875 |",
        "| joined | 0.612 |",
    ]


def test_the_steady_rate_leaves_the_start_out() -> None:
    """Two inputs come with the start, after 10 s; then one each half second."""
    assert steady([10.0, 10.0, 10.5, 11.0, 11.5, 12.0], 2) == pytest.approx(2.0)


def test_copies_are_one_clip_in_different_bytes(sample: Path, tmp_path: Path) -> None:
    made = copies(sample, tmp_path, 3)
    assert len({sha256(path) for path in made}) == 3
    assert {VideoSource(path).source.frames for path in made} == {200}


def test_times_are_as_many_as_there_is_time_for() -> None:
    calls: list[int] = []
    assert len(times(lambda: calls.append(0), torch.device("cpu"), 0.0)) == 3
    assert len(walls(lambda: calls.append(0), 2, 0.0)) == 3
    assert len(calls) == 3 + 3 + 2 + 3


def test_a_random_detector_computes_numbers(tiny_tower: str) -> None:
    detector = random_detector(DetectorSettings(tower=tiny_tower, heads=2), torch.device("cpu"))
    assert detector.tower.dtype == torch.bfloat16
    crops = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    with torch.inference_mode():
        assert all(one.isfinite().all() for one in detector.outputs(crops))


def test_the_six_methods_learn_on_whatever_device(tiny_tower: str, tmp_path: Path) -> None:
    asked = argparse.Namespace(device="cpu", tower=tiny_tower, batches=(2,), steps=2)
    log = Log(tmp_path / "found.json")
    bench_networks.training(asked, log)
    assert {len(own) for own, _ in log.found["seconds"].values()} == {2}
    assert len(log.found["seconds"]) == 5  # the sixth is Effort, beside each


def test_a_failing_section_is_told_and_the_next_one_runs(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    clip = tmp_path / "no-video.mp4"
    clip.write_bytes(b"no video")
    out = tmp_path / "out.json"
    options = ["--device", "no-such-device", "--only", "model,decoding", "--clip", str(clip)]
    with pytest.raises(SystemExit, match="not every section"):
        bench_gpu.main([*options, "--seconds", "60", "--out", str(out)])
    assert list(json.loads(out.read_text("utf-8"))) == ["model", "decoding"]
    said = capfd.readouterr()
    assert "model did not come to its end" in said.out
    assert "decoding did not come to its end" in said.out
    assert "no-such-device" in said.err
