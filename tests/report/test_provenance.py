"""manifest.json: what it states, and that no byte of it can change unseen."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from builders.evidence import source
from deepscan.errors import DataError, UnreadableInput
from deepscan.report.provenance import NAME, files, read_manifest, write_manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Results of two files."""
    (tmp_path / "heatmaps").mkdir()
    (tmp_path / "report.json").write_text("{}")
    (tmp_path / "heatmaps" / "a.png").write_bytes(b"picture")
    write_manifest(tmp_path, source())
    return tmp_path


def test_every_output_is_stated_with_hash_and_size(folder: Path) -> None:
    stated = json.loads((folder / NAME).read_text("utf-8"))
    assert stated["outputs"] == {
        "heatmaps/a.png": {"bytes": 7, "sha256": hashlib.sha256(b"picture").hexdigest()},
        "report.json": {"bytes": 2, "sha256": hashlib.sha256(b"{}").hexdigest()},
    }
    assert stated["input"] == {"bytes": 100_000, "sha256": "0" * 64}
    assert stated["tool"].startswith("deepscan-forensics ")
    assert set(files(folder)) == set(stated["outputs"])


def test_folders_of_earlier_versions_can_still_be_checked(tmp_path: Path) -> None:
    # Written by version 0.1, byte for byte: its form and its own digest are what verify reads.
    written = (
        '{\n "input": {\n  "bytes": 100000,\n  "sha256": "' + "0" * 64 + '"\n },\n "outputs": {},\n'
        ' "schema": "deepscan.manifest/1",\n "sha256": "DIGEST",\n "tool": "deepscan-forensics 0.1.0"\n}\n'
    )
    undated = written.replace(' "sha256": "DIGEST",\n', "")
    digest = hashlib.sha256(undated.encode()).hexdigest()
    (tmp_path / NAME).write_text(written.replace("DIGEST", digest), "utf-8")
    assert read_manifest(tmp_path / NAME).tool == "deepscan-forensics 0.1.0"


def test_the_same_results_make_the_same_manifest(folder: Path) -> None:
    before = (folder / NAME).read_bytes()
    write_manifest(folder, source())
    assert (folder / NAME).read_bytes() == before
    write_manifest(folder, replace(source(), bytes=5))
    assert (folder / NAME).read_bytes() != before


def test_any_flipped_byte_of_the_manifest_itself_is_found(folder: Path) -> None:
    path = folder / NAME
    whole = path.read_bytes()
    read_manifest(path)
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(DataError, match="changed"):
            read_manifest(path)


@pytest.mark.parametrize("content", [b"[]", b"{}", b'{"outputs": 3}', b"\xff\xfe"])
def test_what_is_no_manifest_is_refused(folder: Path, content: bytes) -> None:
    (folder / NAME).write_bytes(content)
    with pytest.raises(DataError, match="not a manifest"):
        read_manifest(folder / NAME)


def test_a_manifest_that_is_not_there_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UnreadableInput, match=r"without manifest\.json"):
        read_manifest(tmp_path / NAME)
