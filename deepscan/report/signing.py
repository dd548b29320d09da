"""Signs manifest.json with an Ed25519 key (RFC 8032), and checks the signature beside it.

manifest.sig holds the 64 bytes of the signature of manifest.json's own bytes, and keys are PEM files, so that
OpenSSL can check it without deepscan:

    openssl pkeyutl -verify -rawin -pubin -inkey KEY.pub -in manifest.json -sigfile manifest.sig
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from deepscan.errors import DataError, OutputError, SettingsError
from deepscan.report import provenance

PEM = serialization.Encoding.PEM
MOST_BYTES = 10_000  # of a key's file; one has 120


def make_keys(path: Path) -> Path:
    """Write a new private key to `path`, readable only by its owner, and the public key beside it as .pub.

    Raises:
        OutputError: one of them exists already, or cannot be written.
    """
    public = path.with_name(f"{path.name}.pub")
    key = Ed25519PrivateKey.generate()
    own = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    shared = key.public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    for place, text, mode in ((path, own, 0o600), (public, shared, 0o644)):
        try:
            file = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        except FileExistsError as error:
            raise OutputError(f"{place}: already exists; keys are never overwritten") from error
        except OSError as error:
            raise OutputError(f"{place}: cannot be written: {error.strerror}") from error
        with os.fdopen(file, "wb") as stream:
            stream.write(text)
    return public


def private_key(path: Path) -> Ed25519PrivateKey:
    """Read the private key, which signs.

    Raises:
        SettingsError: it is none.
    """
    with suppress(ValueError, TypeError, UnsupportedAlgorithm):
        key = serialization.load_pem_private_key(_read(path), None)
        if isinstance(key, Ed25519PrivateKey):
            return key
    raise SettingsError(f"{path}: not a private Ed25519 key; `deepscan keygen FILE` makes one")


def public_key(path: Path) -> Ed25519PublicKey:
    """Read the public key, which checks.

    Raises:
        SettingsError: it is none.
    """
    with suppress(ValueError, TypeError, UnsupportedAlgorithm):
        key = serialization.load_pem_public_key(_read(path))
        if isinstance(key, Ed25519PublicKey):
            return key
    raise SettingsError(f"{path}: not a public Ed25519 key; `deepscan keygen FILE` writes FILE.pub")


def fingerprint(key: Ed25519PublicKey) -> str:
    """SHA-256 of the key's 32 bytes, for people to compare."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()


def sign(folder: Path, key: Ed25519PrivateKey) -> None:
    """Sign the manifest of a finished folder."""
    signature = key.sign((folder / provenance.NAME).read_bytes())
    (folder / provenance.SIGNATURE).write_bytes(signature)


def signed(folder: Path) -> bool:
    """Whether there is a file in the place of a signature."""
    return os.path.lexists(folder / provenance.SIGNATURE)


def check(folder: Path, path: Path) -> str:
    """Check the signature with the public key in the file `path`; returns words on whose it is.

    Raises:
        DataError: there is no signature, or it is not this key's signature of this manifest.
        SettingsError: there is no public key in `path`.
    """
    key, place = public_key(path), folder / provenance.SIGNATURE
    if place.is_symlink() or not place.is_file():
        raise DataError(f"{place}: no signature")
    try:
        with place.open("rb") as file:
            key.verify(file.read(65), (folder / provenance.NAME).read_bytes())
    except InvalidSignature as error:
        raise DataError(
            f"{place}: not the signature of this manifest by the key {fingerprint(key)}"
        ) from error
    except OSError as error:
        raise DataError(f"{place}: cannot be read: {error.strerror}") from error
    return f"manifest.json was signed by the key {fingerprint(key)}"


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MOST_BYTES)
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
