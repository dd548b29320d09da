"""Reads an input's C2PA Content Credentials: what its maker signed, if anything. Offline and optional.

A valid credential says who signed which claims about the file, not that the claims are true, and most genuine
videos have none. So the status is reported beside the verdict and never changes it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from deepscan.records import Credentials

# A report must not depend on a network, nor reveal to one which file is examined. deepscan has no list of
# trusted signers either: whom to trust is the reader's decision.
SETTINGS = {"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False, "verify_trust": False}}

LONGEST_NAME = 100  # characters of a signer's name, which is whatever the signer wrote


def check(path: Path) -> Credentials:
    """The status of the credentials in `path`, checked with the optional package c2pa-python."""
    try:
        # By name: a folder that happens to be called c2pa is imported as a package with nothing in it.
        from c2pa import C2paError, Context, Reader
    except ImportError:
        return Credentials(
            "not_checked", "c2pa-python is not installed: pip install deepscan-forensics[c2pa]"
        )
    try:
        with Context.from_dict(SETTINGS) as context, path.open("rb") as file:
            reader = Reader(file, context=context)
            with reader:
                return read(reader.get_validation_state(), json.loads(reader.json()))
    except C2paError.ManifestNotFound:
        return Credentials("absent", "The file carries no Content Credentials.")
    except C2paError.NotSupported as error:
        return Credentials("not_checked", f"c2pa-python does not read this kind of file: {error}")
    except (C2paError.Io, C2paError.RemoteManifest) as error:
        return Credentials("not_checked", f"The Content Credentials could not be reached: {error}")
    except C2paError as error:
        return Credentials("invalid", f"The Content Credentials cannot be read: {error}")


def read(state: str | None, store: dict[str, Any]) -> Credentials:
    """Translate c2pa's validation state and manifest store into `Credentials`."""
    manifest = store.get("manifests", {}).get(store.get("active_manifest"), {})
    signature = manifest.get("signature_info", {})
    signer = signature.get("common_name") or signature.get("issuer") or "an unnamed signer"
    claimed = f"signed by {str(signer)[:LONGEST_NAME]}" + (
        f" at {signature['time']}" if signature.get("time") else ", without a time stamp,"
    )
    if state in ("Valid", "Trusted"):
        return Credentials(
            "present",
            f"Content Credentials {claimed} are valid: the file has not changed since it was signed."
            f" Whether the signer can be trusted was not checked.",
        )
    codes = sorted(
        {
            str(entry.get("code"))
            for entry in store.get("validation_status", [])
            if isinstance(entry, dict)
        }
    )
    return Credentials(
        "invalid",
        f"Content Credentials {claimed} are not valid: {', '.join(codes) or state or 'no reason given'}.",
    )
