"""Makes the reference from the code while the site is built, so that it cannot become outdated.

A hook of MkDocs (see mkdocs.yml). Commands come from their --help, settings from their records, report.json
from its schema, Python from the docstrings of public names, the model cards from weights/.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

import deepscan
from deepscan import cli, config
from deepscan.report import json as report_json
from deepscan.training import settings as training

ROOT = Path(__file__).resolve().parents[1]
WIDTH = 88


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages."""
    for name, text in pages():
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    return files


def pages() -> Iterator[tuple[str, str]]:
    """Each page's name and text."""
    yield "commands", commands()
    yield "settings", settings()
    yield "report", report()
    yield "python", python()
    for card in sorted((ROOT / "weights").glob("*.md")):
        yield card.stem, model_card(card)


# --- commands --------------------------------------------------------------------------------------


def commands() -> str:
    """The --help text of every command."""
    root = entered(typer.main.get_command(cli.app), "deepscan")
    parts = ["# Commands\n", "The text of `deepscan COMMAND --help`.\n", fenced(root.get_help())]
    for context in below(root):
        name = context.command_path.removeprefix("deepscan ")
        parts += [f"\n## {name}\n", fenced(context.get_help())]
    return "\n".join(parts)


def entered(command: Any, name: str, parent: Any = None) -> Any:
    """The context of a command called in a terminal of `WIDTH` columns."""
    return command.context_class(
        command, info_name=name, parent=parent, terminal_width=WIDTH, max_content_width=WIDTH,
        help_option_names=["-h", "--help"],
    )  # fmt: skip


def below(context: Any) -> Iterator[Any]:
    """The contexts of all commands that are no groups."""
    for name, inner in getattr(context.command, "commands", {}).items():
        own = entered(inner, name, context)
        if not hasattr(inner, "commands"):
            yield own
        yield from below(own)


def fenced(text: str, language: str = "text") -> str:
    """A block of code."""
    return f"```{language}\n{text.strip()}\n```"


# --- settings --------------------------------------------------------------------------------------


def settings() -> str:
    """Every setting of an analysis and of training, with its default."""
    parts = [
        "# Settings\n",
        "## Of an analysis\n",
        "The fields of `deepscan.Settings`. The flags of `detect` set them, and every report states them "
        "all, with where each was set.\n",
    ]
    for stage in dataclasses.fields(config.Settings):
        record = stage.default_factory
        assert isinstance(record, type)
        parts += [f"\n### {stage.name}\n", inspect.getdoc(record) or "", "", *rows(record)]
    parts += [
        "\n## Of training\n",
        "The names to use in a `--config` file, or under `[train]` in `deepscan.toml`.\n",
        *rows(training.TrainSettings),
    ]
    for field in dataclasses.fields(training.TrainSettings):
        record = field.default_factory
        if dataclasses.is_dataclass(record):
            assert isinstance(record, type)
            parts += [
                f"\n### train.{field.name}\n",
                inspect.getdoc(record) or "",
                "",
                *rows(record),
            ]
    return "\n".join(parts)


def rows(record: type) -> Iterator[str]:
    """A table of a record's fields; what the code says beside a field is its meaning."""
    source = inspect.getsource(record)
    yield "| name | type | default | |"
    yield "|---|---|---|---|"
    for field in dataclasses.fields(record):
        if dataclasses.is_dataclass(field.default_factory):
            continue
        if field.default is not dataclasses.MISSING:
            default = f"`{field.default!r}`"
        elif field.default_factory is not dataclasses.MISSING:
            default = "by the machine"
        else:
            default = "none"
        beside = re.search(rf"^    {field.name}: .*?# (.*)$", source, re.MULTILINE)
        kind = str(field.type).replace("|", "\\|")
        words = escape(beside[1].replace("|", "\\|")) if beside else ""
        yield f"| `{field.name}` | `{kind}` | {default} | {words} |"


def escape(text: str) -> str:
    """Text that Markdown shows as it is."""
    return re.sub(r"([<>*_\[\]])", r"\\\1", text)


# --- report.json -----------------------------------------------------------------------------------


def report() -> str:
    """Every field of the schema, with its values."""
    schema = report_json.schema()
    lines = [
        "# report.json\n",
        f"{schema['description']} This page lists the fields of the schema that every report is checked "
        "against, `deepscan.report/2`. With several inputs, `--json` writes one such document per line.\n",
        "| field | value | |",
        "|---|---|---|",
    ]
    report, error = schema["$defs"]["report"], schema["$defs"]["error"]
    lines += fields(report, schema, "")
    lines += [
        "\n## An input that could not be analysed\n",
        "With `--json` it has its own line, and never a score.\n",
        "| field | value | |",
        "|---|---|---|",
        *fields(error, schema, ""),
    ]
    return "\n".join(lines)


def fields(
    node: dict[str, Any], schema: dict[str, Any], path: str, within: tuple[int, ...] = ()
) -> Iterator[str]:
    """A row for each field under an object, in the schema's order; a report in a report is listed once."""
    within = (*within, id(node.get("properties")))
    for name, inner in node.get("properties", {}).items():
        output = resolved(inner, schema)
        here = f"{path}.{name}".lstrip(".")
        needed = "" if name in node.get("required", ()) else "optional; "
        words = escape(needed + output.get("description", "")).strip("; ")
        yield f"| `{here}` | {value(output, schema)} | {words} |"
        for kind in kinds(output, schema):
            if "properties" in kind and id(kind["properties"]) in within:
                continue
            yield from fields(kind, schema, here, within)
            if "items" in kind:
                item = resolved(kind["items"], schema)
                yield from fields(item, schema, f"{here}[]", within)


def resolved(node: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """The node that a reference leads to, with what stands beside the reference."""
    if "$ref" not in node:
        return node
    rest = {key: inner for key, inner in node.items() if key != "$ref"}
    return {**schema["$defs"][node["$ref"].rpartition("/")[2]], **rest}


def kinds(node: dict[str, Any], schema: dict[str, Any]) -> list[dict[str, Any]]:
    """The forms a value may take."""
    choices = node.get("oneOf", node.get("anyOf"))
    return [resolved(choice, schema) for choice in choices] if choices else [node]


def value(node: dict[str, Any], schema: dict[str, Any]) -> str:
    """What a value may be, in a few words."""
    words = []
    for kind in kinds(node, schema):
        if "const" in kind:
            words.append(f"`{kind['const']}`")
        elif "enum" in kind:
            words.append(", ".join(f"`{choice}`" for choice in kind["enum"]))
        elif isinstance(given := kind.get("type", "any"), list):
            words.append(" or ".join(given))
        else:
            words.append(given)
    return " or ".join(words)


# --- Python ----------------------------------------------------------------------------------------


def python() -> str:
    """Public names, as `deepscan/__init__.py` lists them."""
    parts = [
        "# Python\n",
        "`import deepscan` loads nothing heavy; names load on first use. Everything below is public; the "
        "rest of the package may change.\n",
    ]
    for name in sorted(
        deepscan.__all__, key=lambda name: (name != "scan", name.startswith("_"), name)
    ):
        item = getattr(deepscan, name)
        if isinstance(item, str):
            continue
        parts += [f"\n## deepscan.{name}\n", fenced(signature(name, item), "python"), ""]
        parts += docstring(inspect.getdoc(item) or "")
        if isinstance(item, type):
            output = inspect.getmembers(item, lambda member: isinstance(member, property))
            parts += [
                f"- `{of}` (property): {escape(inspect.getdoc(member) or 'its name')}"
                for of, member in output
            ]
        if isinstance(item, type) and issubclass(item, Exception):
            parts.append("\n" + fenced(inspect.getdoc(inspect.getmodule(item)) or ""))
    return "\n".join(parts)


def signature(name: str, item: Any) -> str:
    """How a name is called, an argument a line where they are many."""
    if dataclasses.is_dataclass(item):
        inner = [
            f"{field.name}: {field.type}"
            + (f" = {field.default!r}" if field.default is not dataclasses.MISSING else "")
            for field in dataclasses.fields(item)
        ]
        return f"{name}(\n" + "".join(f"    {line},\n" for line in inner) + ")"
    if isinstance(item, type):
        return f"class {name}({item.__base__.__name__})"
    output = inspect.signature(item)
    inner = [str(parameter).replace("'", "") for parameter in output.parameters.values()]
    first = next(i for i, p in enumerate(output.parameters.values()) if p.kind is p.KEYWORD_ONLY)
    inner.insert(first, "*")
    returned = str(output.return_annotation).strip("'")
    return f"{name}(\n" + "".join(f"    {line},\n" for line in inner) + f") -> {returned}"


def docstring(text: str) -> Iterator[str]:
    """Google's sections as lists."""
    for line in text.splitlines():
        if re.fullmatch(r"(Args|Raises|Attributes|Returns):", line):
            yield f"\n**{line.rstrip(':')}**\n"
        elif match := re.fullmatch(r"    (\w+): (.*)", line):
            yield f"- `{match[1]}`: {escape(match[2])}"
        else:
            yield escape(line.strip()) if line.startswith("      ") else escape(line)


# --- model cards -----------------------------------------------------------------------------------


def model_card(path: Path) -> str:
    """A card from weights/, with links to pages and pictures of this site, or without them."""
    text = path.read_text("utf-8").replace("../docs/", "../")
    return re.sub(r"\[([^\]]*)\]\((?!https?:|\.\./[\w/-]+\.(?:md|jpg)|#)[^)]*\)", r"\1", text)


def main() -> None:
    """Show all pages, to look at them without building the site."""
    for name, text in pages():
        click.echo(f"===== {name}\n{text}\n")


if __name__ == "__main__":
    main()
