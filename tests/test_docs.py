"""What the README shows is what happens."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import deepscan
from builders.language import terms
from deepscan.cli import run
from deepscan.model import weights
from deepscan.records import VerdictName

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    """The README's fenced blocks of one language."""
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands(program: str) -> set[str]:
    """The first words after a program's name, where the README quotes it or shows it to be typed."""
    shown = "".join(blocks("sh"))
    words = r"((?:(?:weights|config) )?[a-z-]+)"
    return {
        *re.findall(rf"`{program} {words}", README),
        *re.findall(rf"^{program} {words}", shown, re.MULTILINE),
    }


def test_every_make_target_named_in_the_readme_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    assert {"demo", "test"} <= commands("make") <= targets


@pytest.mark.parametrize("command", sorted(commands("deepscan")))
def test_every_command_named_in_the_readme_exists(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*command.split(), "--help"]) == 0


def test_every_option_typed_in_the_readme_is_its_commands(
    capsys: pytest.CaptureFixture[str],
) -> None:
    typed = re.findall(
        r"^deepscan ((?:(?:weights|config) )?[a-z]+)(.*?)(?:#|$)",
        "".join(blocks("sh")),
        re.MULTILINE,
    )
    assert {command for command, _ in typed} >= {"detect", "serve", "verify"}
    for command, rest in typed:
        assert run([*command.split(), "--help"]) == 0
        offered = set(re.findall(r"--?[a-z-]+", capsys.readouterr().out))
        assert set(re.findall(r"(?<= )--?[a-z][a-z-]*", rest)) <= offered


def test_every_verdict_is_explained() -> None:
    assert all(f"`{name}`" in README for name in VerdictName)


def test_the_readmes_figures_are_the_model_cards() -> None:
    """Every row of its table by kind stands in the card of the default detector."""
    known = weights.catalogue()
    card = (weights.shipped_folder() / known.detectors[known.default].card).read_text("utf-8")
    shown = [row for row in table(README) if len(row) == 5][1:]
    assert len(shown) == 7
    assert all(row in table(card) for row in shown)


def test_the_journalists_guide_counts_with_the_model_cards_rates() -> None:
    known = weights.catalogue()
    card = (weights.shipped_folder() / known.detectors[known.default].card).read_text("utf-8")
    indicated = {
        row[0]: float(row[3].split()[0]) for row in table(card) if len(row) == 5 and "%" in row[3]
    }
    caught, alarms = indicated["all manipulated"], indicated["real"]
    guide = (ROOT / "docs" / "journalists.md").read_text("utf-8").replace("\n", " ")
    assert (
        f"indicated {caught:.0f} % of the manipulated videos and {alarms:.0f} % of the real ones"
        in guide
    )
    assert "100 of 1,000 clips" in guide
    assert f"flags {caught:.0f} of them, and {9 * alarms:.0f} of the 900 real ones" in guide


def table(text: str) -> list[list[str]]:
    """The cells of the rows of all tables."""
    rows = re.findall(r"^\|(.+)\|$", text, re.MULTILINE)
    cells = [[cell.strip() for cell in row.split("|")] for row in rows]
    return [row for row in cells if not set("".join(row)) <= set("-:")]


def test_the_changelog_knows_this_version() -> None:
    assert f"## {deepscan.__version__}" in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_every_link_of_the_readme_leads_somewhere() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)(#[^)]*)?\)", README)
    assert links
    for target, _ in links:
        assert (ROOT / target).exists(), target


def test_the_style_guides_sentences_use_no_term_of_the_record() -> None:
    text = (ROOT / "docs" / "development.md").read_text("utf-8")
    table = text.split("| before | now |\n|---|---|\n")[1].split("\n\n")[0]
    now = [row.strip("|").split(" | ")[1] for row in table.splitlines()]
    assert len(now) == 20
    assert {sentence: terms(sentence) for sentence in now if terms(sentence)} == {}


def test_the_style_guides_sentences_are_the_programs() -> None:
    """What stands under "now" is in the program's text, but for values such as names and times."""
    text = (ROOT / "docs" / "development.md").read_text("utf-8")
    table = text.split("| before | now |\n|---|---|\n")[1].split("\n\n")[0]
    known = set(printed())
    for row in table.splitlines():
        for sentence in sentences(re.sub(r"file:\S+", "", row.strip("|").split(" | ")[1])):
            assert any(says(words, sentence) for words in known), sentence


def says(words: str, sentence: str) -> bool:
    """Whether a sentence is these words with values for {}; at least a quarter of it must be words."""
    parts = [part for part in map(str.strip, words.split("{}")) if part]
    if 4 * sum(map(len, parts)) < len(sentence):
        return False
    at = 0
    return all((at := sentence.find(part, at) + len(part)) >= len(part) for part in parts)


def printed() -> Iterator[str]:
    """Every sentence in the program's text, with {} for each value."""
    for path in (ROOT / "deepscan").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (str(v.value) if isinstance(v, ast.Constant) else "{}" for v in node.values)
                yield from sentences("".join(parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield from sentences(node.value)
    for path in (ROOT / "deepscan").rglob("*.js"):
        for text in re.findall(r"`([^`]+)`", path.read_text("utf-8")):
            yield from sentences(re.sub(r"\$\{[^}]*\}", "{}", text))


def sentences(text: str) -> Iterator[str]:
    """A text's sentences; what follows a value begins one of its own if it has a capital."""
    yield from filter(None, map(str.strip, re.split(r"(?<=[.?}])\s+(?=[A-Z])", text)))


def test_the_map_names_files_that_exist_and_every_package() -> None:
    text = (ROOT / "docs" / "development.md").read_text("utf-8")
    named = set(re.findall(r"`([\w./-]+/[\w.-]*|[a-z]+\.py)`", text)) - {"build/docs"}
    missing = {n for n in named if not any((ROOT / up / n).exists() for up in ("", "deepscan"))}
    assert missing == set()
    packages = {path.parent.name for path in (ROOT / "deepscan").glob("*/__init__.py")}
    assert {f"{name}/" for name in packages} <= named
