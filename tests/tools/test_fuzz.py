"""A little of `make fuzz`, and what it has found so far."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builders import clips
from deepscan.config import load_toml
from deepscan.data.crops import read_crops
from deepscan.data.layouts import read_layout
from deepscan.errors import DataError, DeepscanError, UnreadableInput, WeightsMismatch
from deepscan.media.video import VideoSource
from deepscan.model.header import read_header
from deepscan.report import provenance
from tools import fuzz

BOUNDED = settings(
    max_examples=int(os.environ.get("EXAMPLES", "40")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def safetensors(stated: Any) -> bytes:
    """A checkpoint with this header of ours and one small tensor."""
    tensors = {"head.bias": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
    words = stated if isinstance(stated, str) else json.dumps(stated)
    text = json.dumps({"__metadata__": {"deepscan": words}, **tensors}).encode()
    return struct.pack("<Q", len(text)) + text + bytes(8)


@pytest.mark.slow
def test_mutants_of_clips_have_their_rows_and_nothing_else_happens(tmp_path: Path) -> None:
    assert list(fuzz.fuzz_clips(tmp_path, 16, seed=3)) == []


def test_mutants_of_what_is_read_are_read_or_refused(tmp_path: Path) -> None:
    assert list(fuzz.fuzz_readers(tmp_path, 350, seed=3)) == []


def refused_or_read(path: Path, data: bytes, read: Callable[[Path], object]) -> None:
    path.write_bytes(data)
    with suppress(DeepscanError):
        read(path)


@BOUNDED
@given(stated=JSON)
def test_hypothesis_checkpoint_headers(tmp_path: Path, stated: Any) -> None:
    refused_or_read(tmp_path / "a.safetensors", safetensors(stated), read_header)


@BOUNDED
@given(field=st.sampled_from(["name", "base", "settings", "training", "calibration"]), value=JSON)
def test_hypothesis_fields_of_checkpoint_headers(tmp_path: Path, field: str, value: Any) -> None:
    inner = fuzz.detector_file("default").read_bytes()
    (length,) = struct.unpack("<Q", inner[:8])
    stated = json.loads(json.loads(inner[8 : 8 + length])["__metadata__"]["deepscan"])
    refused_or_read(tmp_path / "a.safetensors", safetensors(stated | {field: value}), read_header)


@BOUNDED
@given(data=st.binary(max_size=400))
def test_hypothesis_bytes_as_checkpoints(tmp_path: Path, data: bytes) -> None:
    refused_or_read(tmp_path / "a.safetensors", data, read_header)


@BOUNDED
@given(stated=JSON)
def test_hypothesis_manifests(tmp_path: Path, stated: Any) -> None:
    data = json.dumps(stated).encode()
    refused_or_read(tmp_path / "manifest.json", data, provenance.read_manifest)


@BOUNDED
@given(labels=JSON)
def test_hypothesis_listings_of_crops(tmp_path: Path, labels: Any) -> None:
    data = json.dumps({"toy": labels}).encode()
    refused_or_read(tmp_path / "toy.json", data, lambda path: read_crops(path.parent))


@BOUNDED
@given(text=st.text())
def test_hypothesis_settings(tmp_path: Path, text: str) -> None:
    refused_or_read(tmp_path / "deepscan.toml", text.encode("utf-8", "replace"), load_toml)


@BOUNDED
@given(cells=st.lists(st.lists(st.text(), min_size=2, max_size=5), max_size=4))
def test_hypothesis_tables(tmp_path: Path, cells: list[list[str]]) -> None:
    text = "path,label,split\n" + "\n".join(",".join(row) for row in cells)
    refused_or_read(tmp_path / "a.csv", text.encode("utf-8", "replace"), read_layout)


# --- found by make fuzz ----------------------------------------------------------------------------


DEEP = '{"a":' * 100_000


def test_found_json_nested_beyond_all_reason(tmp_path: Path) -> None:
    for path, read in (
        (tmp_path / "manifest.json", provenance.read_manifest),
        (tmp_path / "crops" / "toy.json", lambda path: read_crops(path.parent)),
    ):
        path.parent.mkdir(exist_ok=True)
        path.write_text(DEEP)
        with pytest.raises(DataError, match="nested too deeply"):
            read(path)
    path = tmp_path / "a.safetensors"
    path.write_bytes(safetensors(DEEP))
    with pytest.raises(WeightsMismatch, match="nested too deeply"):
        read_header(path)


@pytest.mark.parametrize("box", ["stts"])
def test_found_an_atom_that_counts_more_entries_than_memory_holds(tmp_path: Path, box: str) -> None:
    path = clips.write(tmp_path / "lie.mp4", 5)
    start, _ = clips.boxes(path.read_bytes(), f"moov/trak/mdia/minf/stbl/{box}")
    clips.patch(path, start + 4, struct.pack(">I", 0x7FFFFFFF))
    with pytest.raises(UnreadableInput, match="its header promises more than fits into memory"):
        VideoSource(path)


@pytest.mark.parametrize("labels", [7, 0.5, True, "toy_real", ["toy_real"]])
def test_found_a_listing_whose_labels_are_no_table(tmp_path: Path, labels: Any) -> None:
    (tmp_path / "toy.json").write_text(json.dumps({"toy": labels}))
    with pytest.raises(DataError, match="not a table of labels"):
        read_crops(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"base": {}},
        {"base": 0.5},
        {"base": {"name": "x", "sha256": 5}},
        {"name": None},
        {"training": "much"},
        {"settings": {"tower": ["ViT-B-16-quickgelu"]}},
        {"settings": {"queries": 4.5}},
        {"settings": {"queries": 2**70}},
        {"settings": {"heads": True}},
        {"calibration": 0.5},
        {"calibration": {"rungs": [0.5]}},
    ],
)
def test_found_headers_of_the_wrong_types(tmp_path: Path, change: dict[str, Any]) -> None:
    whole = fuzz.detector_file("default").read_bytes()
    (length,) = struct.unpack("<Q", whole[:8])
    stated = json.loads(json.loads(whole[8 : 8 + length])["__metadata__"]["deepscan"])
    path = tmp_path / "a.safetensors"
    path.write_bytes(safetensors(stated | change))
    with pytest.raises(WeightsMismatch, match="header cannot be read"):
        read_header(path)


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.",  # a pickle that would run a command
        struct.pack("<Q", 2**63) + b"{}",  # a header longer than all disks
        struct.pack("<Q", 10**9) + b"{}",
        struct.pack("<Q", 100)
        + b'{"a": {"dtype": "F32", "shape": [1000000000000], "data_offsets": [0, 4]}}',
        b"",
    ],
    ids=["pickle", "header bomb", "long header", "absurd shape", "empty"],
)
def test_a_hostile_checkpoint_is_refused_for_what_it_is(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(data)
    with pytest.raises(WeightsMismatch, match="not a safetensors file"):
        read_header(path)
