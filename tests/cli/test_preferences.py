"""Which source of a setting wins: defaults < deepscan.toml < user file < environment < flags."""

from __future__ import annotations

import json
import re
import tomllib
from fractions import Fraction
from pathlib import Path

import pytest

from deepscan.cli import run
from deepscan.cli.preferences import MEANING, defaults, example, gather
from deepscan.config import Settings, data_root, user_file
from deepscan.errors import SettingsError


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, and a user without settings."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("DEEPSCAN_DATA", raising=False)
    folder = tmp_path / "case"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def project_says(here: Path, text: str) -> None:
    (here / "deepscan.toml").write_text(text, "utf-8")


def user_says(text: str) -> None:
    user_file().parent.mkdir(parents=True, exist_ok=True)
    user_file().write_text(text, "utf-8")


def test_without_a_word_the_defaults_hold(here: Path) -> None:
    preferences = gather()
    assert preferences.settings == Settings()
    assert set(preferences.origins().values()) == {"default"}
    assert preferences.origins().keys() == Settings().origins().keys()


def test_each_overrules_the_one_before(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project_says(here, "[sampling]\nframes = 1\n[faces]\nmin_size = 61\n")
    assert gather().settings.sampling.frames == 1
    user_says("[sampling]\nframes = 2\n")
    assert gather().settings.sampling.frames == 2
    monkeypatch.setenv("DEEPSCAN_SAMPLING_FRAMES", "3")
    assert gather().settings.sampling.frames == 3
    preferences = gather({"sampling.frames": 4})
    assert preferences.settings.sampling.frames == 4
    assert preferences.settings.faces.min_size == 61  # key by key: nobody else spoke of it
    assert preferences.keys["faces.min_size"].set_by == str(here / "deepscan.toml")
    assert preferences.origins()["sampling.frames"] == "flag"
    assert preferences.origins()["faces.min_size"] == "file"


def test_the_rule_says_seconds_too(here: Path) -> None:
    project_says(here, '[sampling]\nrule = "every:0.5"\n')
    preferences = gather()
    assert preferences.settings.sampling.seconds == Fraction(1, 2)
    assert (
        preferences.origins()["sampling.seconds"]
        == preferences.origins()["sampling.rule"]
        == "file"
    )


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("DEEPSCAN_SCORING_DEVICE", "cuda:1", "cuda:1"),
        ("DEEPSCAN_SCORING_OFFLINE", "yes", True),
        ("DEEPSCAN_HEATMAPS_DRAW", "0", False),
        ("DEEPSCAN_FACES_MIN_CONFIDENCE", "0.5", 0.5),
        ("DEEPSCAN_SCORING_BATCH", "4", 4),
    ],
)
def test_variables_are_read_as_their_keys_type(
    here: Path, monkeypatch: pytest.MonkeyPatch, variable: str, text: str, value: object
) -> None:
    monkeypatch.setenv(variable, text)
    (preferences,) = (one for one in gather().keys.values() if one.origin == "environment")
    assert (preferences.value, preferences.place) == (value, variable)


def test_a_checkpoint_beside_the_file_is_found_from_anywhere(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project_says(here, '[scoring]\nweights = "mine.safetensors"\n')
    (here / "mine.safetensors").touch()
    (here / "inner").mkdir()
    monkeypatch.chdir(here / "inner")
    assert gather().settings.scoring.weights == str(here / "mine.safetensors")


def test_a_detector_that_a_folder_chooses_is_said(here: Path) -> None:
    """A folder of evidence may hold a deepscan.toml, and with it a detector that sees nothing."""
    assert gather().foreign_detector() == ""
    project_says(here, '[scoring]\nweights = "mine.safetensors"\n')
    assert gather().foreign_detector() == (
        f"note: {here / 'deepscan.toml'} chooses the detector, mine.safetensors; --weights chooses another"
    )
    assert gather({"scoring.weights": "default"}).foreign_detector() == ""


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[scoring]\ndevise = 'cpu'\n", r"\[scoring\]: unknown key devise; did you mean device\?"),
        ("[scorings]\n", "unknown key scorings; did you mean scoring"),
        ("[sampling]\nseconds = 2\n", r"\[sampling\]: unknown key seconds"),
        ("[sampling]\nframes = '8'\n", r"\[sampling\] frames: '8' is not a whole number"),
        ("[scoring]\noffline = 1\n", "offline: 1 is not true or false"),
        ("[sampling]\nframes = true\n", "frames: True is not a whole number"),
        ("[scoring]\ndevice = 'tpu'\n", r"not one of auto, cpu, .* \(set by .*deepscan\.toml\)"),
    ],
)
def test_files_are_strict(here: Path, text: str, says: str) -> None:
    project_says(here, text)
    with pytest.raises(SettingsError, match=says):
        gather()


@pytest.mark.parametrize(
    ("variable", "text", "says"),
    [
        ("DEEPSCAN_SCORING_DEVISE", "cpu", "did you mean DEEPSCAN_SCORING_DEVICE?"),
        ("DEEPSCAN_CASHE", "/tmp", "did you mean DEEPSCAN_CACHE?"),
        (
            "DEEPSCAN_SAMPLING_FRAMES",
            "many",
            "DEEPSCAN_SAMPLING_FRAMES: 'many' is not a whole number",
        ),
        ("DEEPSCAN_SCORING_OFFLINE", "maybe", "'maybe' is not true or false"),
    ],
)
def test_the_environment_is_strict(
    here: Path, monkeypatch: pytest.MonkeyPatch, variable: str, text: str, says: str
) -> None:
    monkeypatch.setenv(variable, text)
    with pytest.raises(SettingsError, match=re.escape(says)):
        gather()


def test_every_key_is_explained_and_the_example_says_what_holds_anyway(here: Path) -> None:
    assert MEANING.keys() == defaults().keys()
    uncommented = re.sub(r"^# (\w+ = )", r"\1", example(), flags=re.MULTILINE)
    tables = tomllib.loads(uncommented)
    assert tables.pop("data") == {"root": "/data"}
    said = {f"{stage}.{key}": v for stage, table in tables.items() for key, v in table.items()}
    assert said == {key: value for key, value in defaults().items() if value is not None}
    project_says(here, example())
    assert gather().settings == Settings()


def test_the_users_data_root_counts_before_the_projects(here: Path, tmp_path: Path) -> None:
    for name in ("mine", "ours"):
        (tmp_path / name).mkdir()
    project_says(here, '[data]\nroot = "../ours"\n')
    assert data_root(None).resolve() == tmp_path / "ours"
    user_says(f'[data]\nroot = "{tmp_path / "mine"}"\n')
    assert data_root(None) == tmp_path / "mine"


# --- on the command line ---------------------------------------------------------------------------


def test_show_names_who_told_what(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DEEPSCAN_SCORING_DEVICE", "cpu")
    user_says("[heatmaps]\ndraw = true\n")
    assert run(["config", "show"]) == 0
    captured = capsys.readouterr()
    rows = dict(line.split(maxsplit=1) for line in captured.out.splitlines())
    assert rows["scoring.device"].split() == ["cpu", "DEEPSCAN_SCORING_DEVICE"]
    assert rows["heatmaps.draw"].split() == ["true", str(user_file())]
    assert rows["sampling.frames"].split() == ["32", "default"]
    assert "none here or above" in captured.err
    assert run(["config", "show", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {"key": "scoring.device", "value": "cpu", "origin": "environment"}.items() <= next(
        row for row in document["settings"] if row["key"] == "scoring.device"
    ).items()
    assert document["files"] == [str(user_file())]


def test_init_writes_once(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "init"]) == 0
    assert (here / "deepscan.toml").read_text("utf-8") == example()
    assert run(["config", "init"]) == 1
    assert "--force overwrites it" in capsys.readouterr().err
    assert run(["config", "init", "--force"]) == 0
    assert run(["config", "init", "--user"]) == 0
    assert user_file().is_file()


def test_detect_does_as_told_and_reports_by_whom(
    here: Path,
    sample: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    project_says(here, "[sampling]\nframes = 3\n[scoring]\noffline = true\n")
    monkeypatch.setenv("DEEPSCAN_SCORING_PRECISION", "float32")
    assert run(["detect", str(sample), "--frames", "2", "--json", "--quiet"]) == 0
    preferences = json.loads(capsys.readouterr().out)["run"]
    assert preferences["settings"]["sampling"]["frames"] == 2
    assert preferences["settings"]["scoring"]["offline"] is True
    assert preferences["settings"]["scoring"]["precision"] == "float32"
    by = {key: origin for key, origin in preferences["origins"].items() if origin != "default"}
    assert by == {
        "sampling.frames": "flag",
        "scoring.offline": "file",
        "scoring.precision": "environment",
    }


def test_a_mistake_in_a_file_is_one_line_and_exit_code_2(
    here: Path, sample: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project_says(here, "[sampling]\nframe = 3\n")
    assert run(["detect", str(sample)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "did you mean frames?" in line


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_file_may_be_saved_as_windows_does(here: Path, encoding: str) -> None:
    (here / "deepscan.toml").write_text("[sampling]\r\nframes = 2\r\n", encoding)
    assert gather().settings.sampling.frames == 2


def test_a_file_in_another_encoding_is_told_so(here: Path) -> None:
    (here / "deepscan.toml").write_bytes(b"# \xfcber\n[sampling]\nframes = 2\n")
    with pytest.raises(SettingsError, match=r"not UTF-8 \(at byte 2\); save it as UTF-8"):
        gather()
