"""README.md and docs/ against the program: links, paths, command lines, options, numbers."""

import contextlib
import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import click
import pytest
import yaml

from cli import main
from tests.studies import readme_figure
from tests.support import ROOT

README = ROOT / "README.md"
PAGES = (README, *sorted((ROOT / "docs").glob("*.md")))
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return FENCE.sub("", page.read_text("utf-8"))


def spans(page: Path) -> list[str]:
    """What a page sets as inline code, line breaks as spaces."""
    lines = [line for line in prose(page).splitlines() if not line.startswith("    ")]
    return [span.replace("\n", " ") for span in re.findall(r"`([^`]+)`", "\n".join(lines))]


def commands(page: Path) -> Iterator[list[str]]:
    """The words of every command line that a page shows, one for each program that it calls."""
    text = page.read_text("utf-8").replace("\\\n", " ")
    blocks = [line.strip() for line in text.splitlines() if line.startswith("    ")]
    for line in (*blocks, *spans(page)):
        for part in line.split(" && "):
            if re.match(r"(python|torchrun|tox|pip) ", part):
                yield shlex.split(part)


def anchors(page: Path) -> set[str]:
    """GitHub's names of a page's headings."""
    titles = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def parsed(words: list[str]) -> None:
    """Raises click's UsageError where click does not take ``words``, what follows ``cli.py``."""
    command: click.Command = main
    parent = click.Context(main)
    while isinstance(command, click.Group):
        name, *words = words
        inner = command.get_command(parent, name)
        if inner is None:
            raise click.UsageError(f"no command {name}")
        command = inner
    with contextlib.suppress(click.exceptions.Exit):  # --help
        command.make_context(command.name, list(words), parent)


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(file), f"{page.name}: {target}"


@each_page
def test_paths_of_the_checkout_exist(page: Path) -> None:
    folders = "benchmark|common|datasets|docs|findings|models|tasks|tests"
    for span in spans(page):
        for path in re.findall(rf"(?<![\w/.])(?:{folders})/[\w./-]+", span):
            assert (ROOT / path).exists(), f"{page.name}: {path}"


@each_page
def test_command_lines_parse(page: Path) -> None:
    for words in commands(page):
        line = " ".join(words)
        if "cli.py" in words:
            try:
                parsed(words[words.index("cli.py") + 1 :])
            except click.UsageError as error:
                # in the text a command may be named alone
                if not (isinstance(error, click.MissingParameter) and line in spans(page)):
                    pytest.fail(f"{page.name}: {line}: {error.format_message()}")
        elif words[:2] == ["python", "-m"] and words[2].startswith("tests."):
            assert importlib.util.find_spec(words[2]), f"{page.name}: {line}"
        elif words[:3] == ["python", "-m", "pytest"]:
            files = [word for word in words if word.endswith(".py")]
            assert files
            assert all((ROOT / file).is_file() for file in files), f"{page.name}: {line}"


@each_page
def test_options_in_the_text_exist(page: Path) -> None:
    """``--option`` alone is one of some command or script, `COMMAND --option` of that command."""
    known = {name: options(command) for name, command in main.commands.items()}
    scripts = (path.read_text("utf-8") for path in (ROOT / "tests").rglob("*.py"))
    of_scripts = re.findall(r"add_argument\(\s*\"(--[\w-]+)\"", "".join(scripts))
    everywhere = set(of_scripts).union(*known.values())
    for span in spans(page):
        words = span.split()
        names = {word.split("=")[0] for word in words if re.fullmatch(r"--[a-z][\w-]*(=.*)?", word)}
        if words[0] in known or words[0].startswith("--"):
            unknown = names - known.get(words[0], everywhere)
            assert not unknown, f"{page.name}: {span}"


def options(command: click.Command) -> set[str]:
    """The options of a command and of those in it."""
    found = {name for param in command.params for name in (*param.opts, *param.secondary_opts)}
    if isinstance(command, click.Group):
        found = found.union(*map(options, command.commands.values()))
    return found | {"--help"}


def test_a_wrong_option_and_a_wrong_command_are_seen() -> None:
    with pytest.raises(click.UsageError, match="--tsk"):
        parsed(["run", "--tsk", "depth"])
    with pytest.raises(click.UsageError, match="no command"):
        parsed(["data", "chek"])


# --- the README --------------------------------------------------------------------------------


def test_the_readme_stays_short() -> None:
    assert len(README.read_text("utf-8").split()) <= 900
    rows = re.findall(r"^\|.*\|$", prose(README), re.MULTILINE)
    assert rows
    assert max(row.count("|") - 1 for row in rows) <= 6


def test_the_readme_leads_to_every_page() -> None:
    linked = set(re.findall(r"\]\(docs/([\w-]+\.md)\)", README.read_text("utf-8")))
    assert linked == {page.name for page in PAGES if page != README}


@pytest.fixture(scope="module")
def boards():
    from benchmark.leaderboard.boards import boards
    from benchmark.results.store import read_all

    # BSDS500 has two boards by processor: the README shows the first, which has every decoder
    return {board.title: board for board in reversed(list(boards(read_all(ROOT / "results"))))}


def test_the_figure_draws_the_boards_numbers(boards) -> None:
    board = boards[readme_figure.BOARD]
    points = readme_figure.points(board)
    rows = {row.label: row for row in board.rows if row.rank is not None}
    assert {point.label for point in points} == set(rows)
    ax = readme_figure.draw(board).axes[1]
    drawn = {tuple(line.get_xydata()[0]) for line in ax.lines if line.get_marker() in "Dos"}
    main = board.columns[0]
    assert drawn == {(row.latency_ms, row.metrics[main]) for row in rows.values()}
    bars = [bar.get_segments()[0] for bar in ax.collections if len(bar.get_segments()) == 1]
    ends = {tuple(round(float(y), 9) for y in bar[:, 1]) for bar in bars}
    assert ends == {tuple(round(y, 9) for y in row.interval) for row in rows.values()}


def test_the_committed_figure_is_of_the_committed_results(boards) -> None:
    svg = ElementTree.parse(ROOT / "docs" / "front.svg")
    (text,) = svg.iter("{http://purl.org/dc/elements/1.1/}description")
    assert text.text == readme_figure.description(boards[readme_figure.BOARD])


def test_the_table_of_the_readme_shows_the_committed_results(boards) -> None:
    titles = ("segmentation on camvid", "depth on seven-scenes", "edges on bsds500")
    rows = {}
    for title in titles:
        board = boards[title]
        rows[title] = {
            "searched wiring" if row.label.startswith("found-") else row.label: row
            for row in board.rows
            if row.rank is not None
        }
    shown = re.findall(r"^\| (`?[\w -]+`?) \| ([\d*].*) \|$", prose(README), re.MULTILINE)
    assert len(shown) == len(rows[titles[0]])
    for name, cells in shown:
        of = [rows[title][name.strip("`")] for title in titles]
        scores = [
            f"{row.metrics[boards[t].columns[0]]:.3f}" for row, t in zip(of, titles, strict=True)
        ]
        weights = f"{of[0].params['decoder'] / 1e6:.2f} M" if of[0].params["decoder"] else "0"
        assert cells.replace("*", "").split(" | ") == [*scores, f"{of[0].latency_ms:.1f}", weights]


def test_the_citation_has_the_version_of_the_project() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    assert f'version = "{citation["version"]}"' in project.splitlines()
    assert citation["license"] == "MIT"
    (paper,) = citation["references"]
    assert paper["title"] in " ".join(README.read_text("utf-8").split())
