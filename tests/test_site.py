"""The documentation's site: what its pages show being typed is typed, and what is generated is whole."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import deepscan
from builders import footage, sessions, toy
from deepscan import config
from deepscan.cli import run
from deepscan.model import tower, weights
from deepscan.report import json as report_json
from deepscan.training.settings import TrainSettings

ROOT = sessions.ROOT
DOCS = ROOT / "docs"


# --- sessions --------------------------------------------------------------------------------------


def played(page: str, folder: Path) -> None:
    """Type what a page shows, and compare."""
    session = sessions.steps((DOCS / page).read_text("utf-8"))
    assert session
    for step, came in sessions.play(session, folder):
        assert sessions.same(step.shown, came), (
            f"$ {step.typed}\nshown:\n{step.shown}\ncame:\n{came}"
        )


@pytest.fixture(autouse=True)
def columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


@pytest.mark.slow
def test_the_tutorial_goes_as_it_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    played("tutorial.md", tmp_path)
    (example,) = re.findall(r"```python\n(.*?)```", (DOCS / "tutorial.md").read_text(), re.DOTALL)
    (tmp_path / "run.py").write_text(example)
    with sessions.chdir(tmp_path):
        exec(compile(example, "tutorial.md", "exec"), {})
    assert capsys.readouterr().out.startswith("manipulation_indicated ")


@pytest.mark.slow
@pytest.mark.parametrize("page", ["examiners.md", "journalists.md", "operators.md"])
def test_the_guides_go_as_they_say(page: str, tmp_path: Path) -> None:
    played(page, tmp_path)


@pytest.mark.slow
def test_the_researchers_guide_goes_as_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a few made-up videos in the official layouts, and a tiny tower that learns for one step."""
    page = (DOCS / "researchers.md").read_text("utf-8")
    (settings,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    tiny = "[train]\nbase = 'toy'\nheads = 4\nbatch = 4\nsteps = 1\nworkers = 0\nprecision = 'float32'\n"
    (tmp_path / "deepscan.toml").write_text(settings + tiny, "utf-8")
    faceforensics(tmp_path / "data" / "FaceForensics++")
    celeb_df(tmp_path / "data" / "Celeb-DF-v2")
    real, known = tower.tower_size, weights.catalogue()
    monkeypatch.setattr(tower, "tower_size", real)
    monkeypatch.setattr(weights, "catalogue", weights.catalogue)
    toy.install(tmp_path / "toy")
    both = dataclasses.replace(known, bases={**known.bases, **weights.catalogue().bases})
    monkeypatch.setattr(weights, "catalogue", lambda: both)
    monkeypatch.setattr(tower, "tower_size", lambda n: toy.SIZE if n == "toy" else real(n))
    played("researchers.md", tmp_path)


def faceforensics(root: Path) -> None:
    """Eight people, each real and manipulated by four methods into the next one."""
    root.mkdir(parents=True)
    for split, ids in (("train", range(4)), ("val", range(4, 6)), ("test", range(6, 8))):
        pairs = [[f"{i:03d}", f"{i + 1:03d}"] for i in ids if i % 2 == 0]
        (root / f"{split}.json").write_text(json.dumps(pairs), "utf-8")
        for target, source in (*pairs, *(pair[::-1] for pair in pairs)):
            one = footage.person(int(target))
            footage.film(root / f"original_sequences/youtube/c23/videos/{target}.mp4", one)
            for method in ("Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures"):
                inner = f"manipulated_sequences/{method}/c23/videos/{target}_{source}.mp4"
                footage.film(root / inner, footage.swapped(one))


def celeb_df(root: Path) -> None:
    """Two test videos a class."""
    lines = []
    for i in range(2):
        one = footage.person(10 + i)
        for label, inner, picture in (
            (1, f"Celeb-real/id{i}_0000.mp4", one),
            (0, f"Celeb-synthesis/id{i}_id{1 - i}_0000.mp4", footage.swapped(one)),
        ):
            footage.film(root / inner, picture)
            lines.append(f"{label} {inner}\n")
    (root / "List_of_testing_videos.txt").write_text("".join(lines), "utf-8")


@pytest.mark.parametrize(
    ("shown", "came", "same"),
    [
        ("mean +0.13\n", "mean -1.2\n", True),
        ("mean\n", "means\n", False),
        ("on cpu in bfloat16\n", "on cpu in float32\n", True),
        ("a\n...\nd\n", "a\nb\nc\nd\n", True),
        ("a\n...\nd\n", "a\nb\nc\n", False),
        ("", "error: no such file\n", False),
        (f"same {'ab' * 32}\n", f"same {'cd' * 32}\n", True),
    ],
)
def test_what_counts_as_the_same(shown: str, came: str, same: bool) -> None:
    assert sessions.same(shown, came) == same


def test_every_command_and_option_on_every_page_exists(capsys: pytest.CaptureFixture[str]) -> None:
    """Those shown to be copied (```sh), which need what is not here, or run until they are stopped."""
    typed = []
    for page in DOCS.glob("*.md"):
        for block in re.findall(r"```sh\n(.*?)```", page.read_text("utf-8"), re.DOTALL):
            typed += re.findall(
                r"^(?:deepscan|torchrun .* -m deepscan) ((?:weights )?[a-z]+)(.*?)(?:#|$)",
                block,
                re.MULTILINE,
            )
    assert {command for command, _ in typed} >= {"serve", "train", "calibrate"}
    for command, rest in typed:
        assert run([*command.split(), "--help"]) == 0
        offered = set(re.findall(r"--?[a-z-]+", capsys.readouterr().out))
        assert set(re.findall(r"(?<= )--?[a-z][a-z-]*", rest)) <= offered


# --- the site --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as `make docs` builds it; a warning fails it."""
    folder = tmp_path_factory.mktemp("site")
    recipe = sessions.recipe("docs")[0].replace("build/docs", str(folder))
    built = subprocess.run(
        f"{Path(sys.executable).parent}{os.sep}mkdocs".join(recipe.split("mkdocs")),
        shell=True,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert (built.returncode, built.stdout + built.stderr) == (0, "")
    return folder


@pytest.mark.slow
def test_it_builds_without_a_word(site: Path) -> None:
    names = {path.relative_to(site).as_posix() for path in site.rglob("*.html")}
    assert {"index.html", "tutorial.html", "methods.html", "training-log.html"} <= names
    assert {f"reference/{n}.html" for n in ("commands", "settings", "report", "python")} <= names
    assert "peers" not in {path.name for path in site.iterdir()}
    assert not list(site.glob("*.py"))


@pytest.mark.slow
def test_it_loads_nothing_from_elsewhere(site: Path, chromium: Any) -> None:
    asked: list[str] = []
    view = chromium.new_page(viewport={"width": 390, "height": 844})
    view.on("request", lambda request: asked.append(request.url))
    view.on("pageerror", lambda error: asked.append(f"error: {error}"))
    for path in sorted(site.rglob("*.html")):
        view.goto(path.as_uri())
        wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert view.evaluate(wide) <= 0, path.name
    view.close()
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []


@pytest.fixture(scope="module")
def reference() -> dict[str, str]:
    """The generated pages."""
    spec = importlib.util.spec_from_file_location("reference", DOCS / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    module: ModuleType = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    pages: Callable[[], Any] = module.pages
    return dict(pages())


def test_every_command_has_its_help(reference: dict[str, str]) -> None:
    text = reference["commands"]
    names = re.findall(r"^  ([a-z]+)  ", text.split("## ")[0], re.MULTILINE)
    assert {"detect", "serve", "train", "weights"} <= set(names)
    for name in names:
        assert re.search(rf"^## {name}", text, re.MULTILINE), name
    assert "--fail-on" in text


def test_every_setting_is_listed(reference: dict[str, str]) -> None:
    for record in (config.Sampling, config.Faces, config.Scoring, config.Heatmaps, TrainSettings):
        for field in dataclasses.fields(record):
            assert (
                f"`{field.name}`" in reference["settings"]
                or f"train.{field.name}" in (reference["settings"])
            )


def test_every_field_of_a_report_is_listed(reference: dict[str, str]) -> None:
    def leaves(node: Any) -> set[str]:
        if isinstance(node, list):
            return set().union(*map(leaves, node))
        if not isinstance(node, dict):
            return set()
        own = set(node.get("properties", {}))
        return own.union(*map(leaves, node.values()))

    text = reference["report"]
    for name in leaves(report_json.schema()):
        assert re.search(rf"`(.*\.)?{re.escape(name)}`", text), name


def test_every_public_name_is_told(reference: dict[str, str]) -> None:
    for name in deepscan.__all__:
        assert name == "__version__" or f"## deepscan.{name}\n" in reference["python"]


def test_the_model_card_is_the_shipped_one(reference: dict[str, str]) -> None:
    name = weights.catalogue().default
    card = (ROOT / "weights" / f"{name}.md").read_text("utf-8")
    assert reference[name].splitlines()[0] == card.splitlines()[0]
    assert "](catalogue.toml)" not in reference[name]
