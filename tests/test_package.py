"""What is built: wheel and sdist hold all that runs, and the wheel runs without the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

import pytest

from deepscan import __version__

ROOT = Path(__file__).resolve().parents[1]


def build(source: Path, out: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(out)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A wheel and an sdist of this checkout."""
    out = tmp_path_factory.mktemp("dist")
    build(ROOT, out)
    (wheel,) = out.glob("*.whl")
    (sdist,) = out.glob("*.tar.gz")
    return wheel, sdist


def test_the_wheel_holds_all_that_the_package_reads(built: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(built[0]) as wheel:
        held = set(wheel.namelist())
    package = {
        p.relative_to(ROOT).as_posix()
        for p in (ROOT / "deepscan").rglob("*")
        if p.is_file() and "__pycache__" not in p.parts
    }
    weights = {f"deepscan/weights/{p.name}" for p in (ROOT / "weights").iterdir()}
    assert package | weights <= held
    extra = {name for name in held - package - weights if ".dist-info/" not in name}
    assert extra == set()


def test_the_wheel_holds_nothing_but_the_program(built: tuple[Path, Path]) -> None:
    """No tools, no tests, no data: code, templates, published figures, weights, the self-test's clip."""
    with zipfile.ZipFile(built[0]) as wheel:
        held = [PurePosixPath(name) for name in wheel.namelist()]
        size = sum(one.file_size for one in wheel.infolist())
    inside = [path for path in held if not path.parts[0].endswith(".dist-info")]
    assert {path.parts[0] for path in inside} == {"deepscan"}
    assert not {"tools", "tests", "shared", "__pycache__"} & {
        p for path in inside for p in path.parts
    }
    code = {".py", ".jinja", ".css", ".js"}
    others: dict[str, set[str]] = {}
    for path in inside:
        if path.suffix not in code:
            others.setdefault(str(path.parent), set()).add(path.name)
    assert others == {
        "deepscan/benchmark/published": {
            path.name for path in (ROOT / "deepscan" / "benchmark" / "published").iterdir()
        },
        "deepscan/report": {"report.schema.json"},
        "deepscan/verification/selftest": {"clip.mp4", "values.json"},
        "deepscan/weights": {
            "b16-evidence.md",
            "b16-evidence.safetensors",
            "b16-lora.md",
            "b16-lora.safetensors",
            "catalogue.toml",
            "recipe.toml",
        },
    }
    assert size < 16 * 2**20


def test_the_sdist_builds_the_same_wheel(built: tuple[Path, Path], tmp_path: Path) -> None:
    wheel, sdist = built
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    build(tmp_path / sdist.name.removesuffix(".tar.gz"), tmp_path / "again")
    (again,) = (tmp_path / "again").glob("*.whl")
    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(again) as other:
        assert {i.filename: i.CRC for i in one.infolist()} == {
            i.filename: i.CRC for i in other.infolist()
        }


@pytest.mark.slow
def test_the_wheel_runs_from_an_empty_folder(built: tuple[Path, Path], tmp_path: Path) -> None:
    """With this environment's packages, but none of the checkout's files; `make smoke` has neither."""
    site, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    with zipfile.ZipFile(built[0]) as wheel:
        wheel.extractall(site)

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=empty,
            env={**os.environ, "PYTHONPATH": str(site)},
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout

    assert run("-c", "import deepscan; print(deepscan.__file__)").startswith(str(site))
    assert run("-m", "deepscan", "--version") == f"deepscan {__version__}\n"
    output = run("-m", "deepscan", "doctor")
    assert "ok       self-test: 6 faces scored" in output
    assert str(site / "deepscan" / "weights") in output
    clip = str(site / "deepscan" / "verification" / "selftest" / "clip.mp4")
    run("-m", "deepscan", "detect", clip, "--frames", "2", "--offline", "--heatmap")
    assert (empty / "deepscan-out" / "clip.mp4" / "report.html").is_file()
