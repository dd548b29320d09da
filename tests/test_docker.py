"""The image is made of what is here; where there is Docker it is built and looks at a clip."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "Dockerfile"


def instructions() -> list[list[str]]:
    """The file's instructions, each with its words; continued lines are joined."""
    text = re.sub(r"^#.*\n", "", FILE.read_text("utf-8"), flags=re.MULTILINE)
    return [line.split() for line in re.sub(r"\\\n", " ", text).splitlines() if line.strip()]


def test_every_instruction_is_known() -> None:
    known = {"FROM", "ARG", "ENV", "WORKDIR", "COPY", "RUN", "USER", "VOLUME", "ENTRYPOINT", "CMD"}
    names = [words[0] for words in instructions()]
    assert set(names) <= known
    assert names[:2] == ["ARG", "FROM"]  # the base image is an argument


def test_what_is_copied_is_here_and_not_ignored() -> None:
    kept = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[0] == "!"
    }
    for words in instructions():
        if words[0] == "COPY":
            for source in words[1:-1]:
                assert (ROOT / source).exists()
                assert source in kept


def test_it_runs_as_an_ordinary_user() -> None:
    order = [words[0] for words in instructions()]
    (user,) = (words[1] for words in instructions() if words[0] == "USER")
    assert user != "root"
    assert order.index("USER") > max(i for i, name in enumerate(order) if name == "RUN")


@pytest.mark.slow
def test_it_is_built_and_looks_at_a_clip(sample: Path, tmp_path: Path) -> None:
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "info"], capture_output=True).returncode:
        pytest.skip("no Docker that runs here")
    subprocess.run([docker, "build", "-t", "deepscan-test", str(ROOT)], check=True, timeout=3000)
    (out := tmp_path / "out").mkdir(mode=0o777)
    out.chmod(0o777)
    safe = ["--read-only", "--network", "none", "--tmpfs", "/tmp", "--cap-drop", "ALL"]
    volumes = ["-v", f"{sample.parent}:/in:ro", "-v", f"{out}:/out"]
    command = ["detect", f"/in/{sample.name}", "--out", "/out", "--offline", "--frames", "4"]
    run = subprocess.run([docker, "run", "--rm", *safe, *volumes, "deepscan-test", *command])
    assert run.returncode == 0
    assert (out / sample.name / "report.json").is_file()
