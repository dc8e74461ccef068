"""The pages of the reference of the commands and of the presets of a training, read from the help of the programs.

The help is what the parsers print. Here it becomes definition lists, so that a browser can wrap and search it.
"""

from __future__ import annotations

import contextlib
import html
import io
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from hdgan.commands.main import COMMANDS, GROUPS, USAGE, main
from hdgan.training import PRESETS

WIDTH = 110
"""Columns of the terminal for which the help is laid out: tyro puts frames side by side in wider ones."""
_FRAME = re.compile(r"╭─ (.*?) ─*╮\n(.*?)╰─*╯\n?", re.DOTALL)
_RULE = re.compile(r"─+")
_DEFAULT = re.compile(r" ?\(default: (.*)\)$")
_REQUIRED = re.compile(r" ?\(required\)$")


@dataclass
class Option:
    """An option or a positional argument, as the help shows it."""

    invocation: str
    text: str = ""

    def markdown(self) -> str:
        """An item of a definition list."""
        text, default = self.text, ""
        if found := _DEFAULT.search(text):
            text, default = text[: found.start()], found[1]
        elif found := _REQUIRED.search(text):
            text, default = text[: found.start()], "required"
        shown = "" if default in ("", "required") else f"Default: `{default}`."
        shown = "Required." if default == "required" else shown
        spans = ", ".join(f"`{part}`" for part in self.invocation.split(", "))
        return f"{spans}\n:   {' '.join(filter(None, (_escaped(text), shown)))}"


@dataclass
class Section:
    """The options in one frame of the help, with the sentence above them."""

    title: str
    text: str = ""
    options: list[Option] = field(default_factory=list)


@dataclass
class Help:
    """The help of a command."""

    usage: str
    text: str
    sections: list[Section]


def help_of(arguments: Sequence[str]) -> list[Help]:
    """What `hdgan` prints for these arguments, of which the last asks for help.

    Returns:
        One item, and a second one for the whole configuration after `--help-all`.

    Raises:
        ValueError: the help has no frame with options, so this module does not understand it.
    """
    printed = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="\n")  # so that tyro can draw frames
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(WIDTH)
    try:
        with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
            main(arguments)
    finally:
        os.environ.pop("COLUMNS") if before is None else os.environ.update(COLUMNS=before)
    printed.seek(0)
    parts = [f"usage: {part}" for part in printed.read().split("usage: ")[1:]]
    helps = [_parse(re.sub(r"\n\nAll options of the configuration:\s*$", "\n", part)) for part in parts]
    if not helps or not all(part.sections for part in helps):
        raise ValueError(f"hdgan {' '.join(arguments)} prints no frame with options")
    return helps


def _parse(printed: str) -> Help:
    head, *_ = printed.split("╭", 1)
    usage, _, text = head.partition("\n\n")
    sections = [_section(title, body) for title, body in _FRAME.findall(printed)]
    paragraphs = [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]
    return Help(" ".join(usage.removeprefix("usage: ").split()), "\n\n".join(filter(None, paragraphs)), sections)


def _section(title: str, body: str) -> Section:
    lines = [line[2:].removesuffix("│").rstrip() for line in body.splitlines()]
    rules = [number for number, line in enumerate(lines) if _RULE.fullmatch(line)]
    section = Section(title.removesuffix(" options"), " ".join(lines[: rules[0]]) if rules else "")
    for line in lines[rules[0] + 1 if rules else 0 :]:
        if line[:1].strip():
            invocation, _, text = line.partition("  ")
            last = section.options[-1] if section.options else None
            if last is not None and not last.text and last.invocation.endswith(","):
                last.invocation, last.text = f"{last.invocation} {invocation}", text.strip()
            else:
                section.options.append(Option(invocation, text.strip()))
        elif line and section.options:
            section.options[-1].text = f"{section.options[-1].text} {line.strip()}".strip()
    return section


def command_pages() -> Iterator[tuple[str, str]]:
    """Path and Markdown of the pages of all commands."""
    yield "reference/commands/index.md", _overview()
    yield "reference/commands/train.md", _train()
    for name in dict.fromkeys(command.split()[0] for command in COMMANDS):
        members = [command for command in COMMANDS if command.split()[0] == name]
        parts = [f"# hdgan {name}"]
        if name in GROUPS:
            parts.append(_escaped(GROUPS[name]))
        for command in members:
            (shown,) = help_of([*command.split(), "--help"])
            level = 2 if command == name else 3
            parts += ["" if level == 2 else f"## hdgan {command}", _head(shown), *_options(shown, level)]
        yield f"reference/commands/{name}.md", "\n\n".join(filter(None, parts)) + "\n"


def preset_pages() -> Iterator[tuple[str, str]]:
    """Path and Markdown of the pages of all presets, with all options of each."""
    rows = [f"| [`{name}`]({name}.md) | {_escaped(preset.__doc__ or '')} |" for name, preset in PRESETS.items()]
    about = (
        "# Presets\n\nA preset is the configuration of a whole training. `hdgan-train PRESET` starts it, and every "
        "option on the page of a preset changes one of its values. The pages show these values as defaults. "
        "[`hdgan train`](../commands/train.md) lists the short options, which change several values at once.\n\n"
    )
    yield "reference/presets/index.md", about + "\n".join(["| preset | |", "|---|---|", *rows]) + "\n"
    seen: list[set[str]] = []
    for name in PRESETS:
        *_, shown = help_of(["train", name, "--help-all"])
        options = {option.invocation for section in shown.sections for option in section.options}
        parts = [f"# Preset {name}", _head(shown), *_options(shown, 2, "general")]
        if options in seen:  # then the search finds the page of the earlier preset
            parts.insert(0, "---\nsearch:\n  exclude: true\n---")
        seen.append(options)
        yield f"reference/presets/{name}.md", "\n\n".join(filter(None, parts)) + "\n"


def _overview() -> str:
    """The page that lists the commands, from the usage of `hdgan`."""
    lines = re.findall(r"(?m)^  (\w+) +(.*)$", USAGE)
    items = [f"| [`hdgan {name}`]({name}.md) | {_escaped(text)} |" for name, text in lines]
    after = USAGE.rpartition("\n\n")[2]
    return "\n".join(["# Commands", "", "| command | |", "|---|---|", *items, "", _escaped(after), ""])


def _train() -> str:
    """The page of `hdgan train`: the presets, and the options that all of them have."""
    shown, _ = help_of(["train", "demo", "--help-all"])
    presets = (f"- [`{name}`](../presets/{name}.md): {_escaped(PRESETS[name].__doc__ or '')}" for name in PRESETS)
    parts = [
        "# hdgan train",
        "```\nhdgan-train [PRESET] [OPTIONS]\nhdgan-train --resume RUN [OPTIONS]\n```",
        "Train a model. `hdgan train` is the same command as `hdgan-train`. Without a preset it trains the demo, whose "
        "values are the defaults below. These are the most common options. A long option of a "
        "[preset](../presets/index.md) overrides a short one.",
        "## presets",
        "\n".join(presets),
        *_options(shown, 2),
    ]
    return "\n\n".join(parts) + "\n"


def _head(shown: Help) -> str:
    """The usage of a command, and what it is for."""
    return f"```\n{shown.usage}\n```\n\n{_escaped(shown.text)}"


def _options(shown: Help, level: int, first: str = "options") -> list[str]:
    """The options in sections, as blocks of Markdown; the general ones are under the heading `first`."""
    blocks = []
    for section in shown.sections:
        options = [option for option in section.options if option.invocation != "-h, --help"]
        if options:
            title = first if section.title == "options" else section.title
            blocks += [f"{'#' * level} {title}", _escaped(section.text), *(option.markdown() for option in options)]
    return [block for block in blocks if block]


def _escaped(text: str) -> str:
    """Text of a terminal as Markdown: what looks like an option becomes code, nothing else has a meaning."""
    parts = re.split(r"(`[^`]+`)", text)
    return "".join(part if part.startswith("`") else _plain(part) for part in parts)


def _plain(text: str) -> str:
    escaped = re.sub(r"([\\*_\[\]|])", r"\\\1", html.escape(text, quote=False))
    return re.sub(r"(?<![\w-])(--[a-z][\w.\\-]*\w)", lambda found: f"`{found[1]}`".replace("\\", ""), escaped)
