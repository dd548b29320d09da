"""Content Credentials in words; with c2pa-python installed, a signed picture is read for true."""

from __future__ import annotations

import json
import sys
from datetime import datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

from deepscan.media.credentials import check, read

STORE = {
    "active_manifest": "a",
    "manifests": {"a": {"signature_info": {"issuer": "Camera Maker", "time": "2026-01-01"}}},
}


@pytest.mark.parametrize(
    "found_instead", [None, ModuleType("c2pa")], ids=["nothing", "a folder of that name"]
)
def test_without_the_package_nothing_is_checked(
    found_instead: ModuleType | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "c2pa", found_instead)
    found = check(tmp_path / "a.mp4")
    assert found.status == "not_checked"
    assert "[c2pa]" in found.detail


def test_an_intact_credential_names_its_signer_and_claims_no_trust() -> None:
    found = read("Valid", STORE)
    assert found.status == "present"
    assert "Camera Maker at 2026-01-01" in found.detail
    assert "the signer can be trusted was not checked" in found.detail


def test_a_broken_credential_says_what_does_not_hold() -> None:
    broken = {**STORE, "validation_status": [{"code": "assertion.dataHash.mismatch"}]}
    found = read("Invalid", broken)
    assert found.status == "invalid"
    assert "assertion.dataHash.mismatch" in found.detail


def test_a_store_without_a_signer_is_told_all_the_same() -> None:
    assert "an unnamed signer" in read(None, {}).detail


@pytest.fixture
def signed(tmp_path: Path) -> Path:
    """A picture with a credential, signed by a key made here."""
    c2pa = pytest.importorskip("c2pa")
    Image.new("RGB", (64, 64), "red").save(tmp_path / "plain.png")
    chain, key = signing_key()
    made = {"action": "c2pa.created", "digitalSourceType": CAPTURED}
    claim = {
        "claim_generator_info": [{"name": "test", "version": "1"}],
        "assertions": [{"label": "c2pa.actions", "data": {"actions": [made]}}],
    }
    info = c2pa.C2paSignerInfo(alg=b"es256", sign_cert=chain, private_key=key, ta_url=None)
    with (
        c2pa.Signer.from_info(info) as signer,
        c2pa.Builder(json.dumps(claim)) as builder,
        (tmp_path / "plain.png").open("rb") as plain,
        (tmp_path / "signed.png").open("w+b") as file,
    ):
        builder.sign(signer, "image/png", plain, file)
    return tmp_path / "signed.png"


CAPTURED = "http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture"


def signing_key() -> tuple[bytes, bytes]:
    """A certificate for signing under a root of its own, and its private key, as PEM."""
    pytest.importorskip("cryptography")  # comes with c2pa-python
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    def made(own: Any, common: str, issuer_key: Any, root: bool) -> Any:
        name, above = (
            x509.Name(
                [
                    x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "Tests"),
                    x509.NameAttribute(x509.NameOID.COMMON_NAME, cn),
                ]
            )
            for cn in (common, "Root")
        )
        began = datetime(2026, 1, 1)
        usage = x509.KeyUsage(not root, False, False, False, False, root, root, False, False)
        builder = (
            x509.CertificateBuilder(above, name, own.public_key(), 1 if root else 2)
            .not_valid_before(began)
            .not_valid_after(began + timedelta(days=3650))
            .add_extension(x509.BasicConstraints(root, None), True)
            .add_extension(usage, True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(own.public_key()), False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), False
            )
        )
        if not root:
            purpose = x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.EMAIL_PROTECTION])
            builder = builder.add_extension(purpose, False)
        return builder.sign(issuer_key, hashes.SHA256())

    root_key, own = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    chain = made(own, "Test Signer", root_key, False), made(root_key, "Root", root_key, True)
    pem = serialization.Encoding.PEM
    key = own.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return b"".join(certificate.public_bytes(pem) for certificate in chain), key


def test_a_signed_picture_is_present_and_a_changed_one_invalid(signed: Path) -> None:
    found = check(signed)
    assert found.status == "present"
    assert "Test Signer" in found.detail
    content = bytearray(signed.read_bytes())
    content[-30] ^= 1  # in the picture, which the credential's hash covers
    signed.write_bytes(content)
    assert check(signed).status == "invalid"


def test_a_plain_picture_has_none(tmp_path: Path) -> None:
    pytest.importorskip("c2pa")
    Image.new("RGB", (32, 32)).save(tmp_path / "plain.png")
    assert check(tmp_path / "plain.png").status == "absent"


def test_a_kind_of_file_without_credentials_is_not_checked(tmp_path: Path) -> None:
    pytest.importorskip("c2pa")
    (tmp_path / "a.mkv").write_bytes(b"\x1aE\xdf\xa3" + bytes(60))
    assert check(tmp_path / "a.mkv").status == "not_checked"
