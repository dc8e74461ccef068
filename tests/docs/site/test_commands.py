"""The reference of commands and presets has every option that the parsers have, and no frames of a terminal."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from docs.site.commands import Option, command_pages, help_of, preset_pages
from docs.site.python import python_pages
from docs.site.sources import reference_paths
from hdgan.commands.main import COMMANDS
from hdgan.config.serialization import to_plain
from hdgan.training import PRESETS


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return dict((*command_pages(), *preset_pages()))


def test_every_command_and_preset_has_a_place(pages: dict[str, str]) -> None:
    assert sorted([*pages, *(path for path, _ in python_pages())]) == sorted(reference_paths())
    for command in COMMANDS:
        assert f"hdgan {command} [-h]" in pages[f"reference/commands/{command.split()[0]}.md"]
    assert {f"reference/presets/{name}.md" for name in PRESETS} <= set(pages)
    assert not re.search(r"[│╭╰─]", "".join(pages.values()))


def test_options_have_values_texts_and_defaults(pages: dict[str, str]) -> None:
    assert "`--k INT`\n:   Number of clusters per class. Default: `10`." in pages["reference/commands/styles.md"]
    assert (
        "`--ema`, `--no-ema`\n:   Use the averaged weights. Default: `True`." in pages["reference/commands/evaluate.md"]
    )
    assert re.search(r"`PATH`\n:   Run folder, .*Hub\. Required\.", pages["reference/commands/generate.md"])


def flat(values: dict[str, object], prefix: str = "--") -> set[str]:
    """The options of a config, but for those whose values are tables by name or unions."""
    return {
        option
        for name, value in values.items()
        for option in (
            flat(value, f"{prefix}{name.replace('_', '-')}.")
            if isinstance(value, dict)
            else {f"{prefix}{name.replace('_', '-')}"}
        )
    }


@pytest.mark.parametrize("name", ["cityscapes-1024p", "crn", "pix2pix"])
def test_the_page_of_a_preset_has_all_its_options(pages: dict[str, str], name: str) -> None:
    shown = set(re.findall(r"(?m)^`(--(?:[\w.-]+))", pages[f"reference/presets/{name}.md"]))
    *_, everything = help_of(["train", name, "--help-all"])
    listed = {option.invocation.split()[0].rstrip(",") for part in everything.sections for option in part.options}
    assert shown == listed - {"-h"}
    config = flat(to_plain(PRESETS[name]()))
    assert {option for option in config if option.startswith(("--stages.", "--optim.", "--log."))} <= shown
    assert len(shown) >= 80


def test_presets_of_a_family_are_found_once_by_the_search(pages: dict[str, str]) -> None:
    hidden = {
        name for name in PRESETS if pages[f"reference/presets/{name}.md"].startswith("---\nsearch:\n  exclude: true")
    }
    assert "pairs-pix2pix" in hidden
    assert not {"demo", "crn", "pix2pix"} & hidden


def test_text_of_a_terminal_becomes_markdown() -> None:
    option = Option("--a, --b", "A->B of [1, 2] *or* --c-d.e; `--f x`. (default: a|b)")
    assert option.markdown() == "`--a`, `--b`\n:   A-&gt;B of \\[1, 2\\] \\*or\\* `--c-d.e`; `--f x`. Default: `a|b`."
    assert replace(option, text="x (required)").markdown() == "`--a`, `--b`\n:   x Required."
    assert replace(option, text="x (default: )").markdown() == "`--a`, `--b`\n:   x"


def test_help_without_options_is_refused() -> None:
    with pytest.raises(ValueError, match="hdgan --help prints no frame with options"):
        help_of(["--help"])
