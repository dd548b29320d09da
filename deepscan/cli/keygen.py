"""The command `deepscan keygen`: makes a key that signs results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument


def keygen(
    path: Annotated[Path, Argument(help="The private key's file; its public half gets .pub.")],
) -> None:
    """Make a key that signs results (detect --sign) and its public half that checks them (verify --key).

    Whoever has the private key can sign as you: keep it where only you can read it. Give the public key, or
    its SHA-256, to those who receive results, by another way than the results take.
    """
    from deepscan.report import signing

    public = signing.make_keys(path)
    typer.echo(f"private key: {path}")
    typer.echo(f"public key:  {public}")
    typer.echo(f"its SHA-256: {signing.fingerprint(signing.public_key(public))}")
