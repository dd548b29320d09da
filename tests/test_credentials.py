"""Content Credentials in words; with c2pa-python installed, a signed picture is read for true."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from PIL import Image

from deepscan.credentials import check, read

STORE = {
    "active_manifest": "a",
    "manifests": {"a": {"signature_info": {"issuer": "Camera Maker", "time": "2026-01-01"}}},
}


def test_without_the_package_nothing_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "c2pa", None)
    found = check(tmp_path / "a.mp4")
    assert found.status == "not_checked"
    assert "[c2pa]" in found.detail


def test_an_intact_credential_names_its_signer_and_claims_no_trust() -> None:
    found = read("Valid", STORE)
    assert found.status == "present"
    assert "Camera Maker at 2026-01-01" in found.detail
    assert "trust the signer was not checked" in found.detail


def test_a_broken_credential_says_what_does_not_hold() -> None:
    broken = {**STORE, "validation_status": [{"code": "assertion.dataHash.mismatch"}]}
    found = read("Invalid", broken)
    assert found.status == "invalid"
    assert "assertion.dataHash.mismatch" in found.detail


def test_a_store_without_a_signer_is_told_all_the_same() -> None:
    assert "an unnamed signer" in read(None, {}).detail


def test_a_plain_picture_has_none(tmp_path: Path) -> None:
    pytest.importorskip("c2pa")
    Image.new("RGB", (32, 32)).save(tmp_path / "plain.png")
    assert check(tmp_path / "plain.png").status == "absent"


def test_a_kind_of_file_without_credentials_is_not_checked(tmp_path: Path) -> None:
    pytest.importorskip("c2pa")
    (tmp_path / "a.mkv").write_bytes(b"\x1aE\xdf\xa3" + bytes(60))
    assert check(tmp_path / "a.mkv").status == "not_checked"
