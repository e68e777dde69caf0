"""The README and `docs/`: every block runs, every command, option and link exists, what is made from the code is so."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml

from docs.reference import pages
from flows.command.cli import main
from pipeline.requests.recipe import parse_recipe
from pipeline.storage.store import open_store, write
from tests.documents import PAGES, Block, blocks, commands, make_photos, make_sets, run_blocks
from tests.flows.serving import Served, free_port, serving
from tests.processes import ROOT

BLOCKS = [block for page in PAGES for block in blocks(page)]
RUN = [page for page in PAGES if any(b.language in ("sh", "python") and b.not_run is None for b in blocks(page))]
#: options that pages name and that are others' commands'
OTHERS = {"--again", "--build-arg", "--json", "--nthreads", "--resources"}
#: how many blocks of the README belong to the first steps: two commands, which are not run here, and three that are
FIRST = 4


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def text_of(page: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"(?ms)^```.*?^```$", "", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """Names that headings of a page are linked by."""
    headings = re.findall(r"(?m)^#+ (.*)$", text_of(page))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def options_of(command: click.Command) -> set[str]:
    context = click.Context(command)
    return {name for option in command.get_params(context) for name in (*option.opts, *option.secondary_opts)}


@pytest.mark.parametrize("name", pages())
def test_what_is_made_from_the_code_is_so(name: str) -> None:
    made, there = pages()[name], (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert made == there, "out of date: python -m docs.reference"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if "://" not in target:
            path, _, anchor = target.partition("#")
            there = (page.parent / path).resolve() if path else page
            assert there.exists(), target
            assert not anchor or anchor in anchors(there), target


def test_the_index_names_every_page() -> None:
    index = (ROOT / "docs/README.md").read_text()
    readme = (ROOT / "README.md").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "README.md" or f"({page.name})" in index
    assert len(readme.splitlines()) <= 150


@pytest.mark.parametrize("room", ["flows", "pipeline", "models", "examples"])
def test_what_messages_say_to_install_is_a_package_of_an_index(room: str) -> None:
    """One that pyproject.toml knows; Darkroom itself is on no index."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [line for name, lines in project["optional-dependencies"].items() if name != "dev" for line in lines]
    known = {re.split(r"[^\w-]", line)[0] for line in extras}
    told = [found for path in (ROOT / room).rglob("*.py") for found in re.findall(r"pip install(.*)", path.read_text())]
    assert told
    for words in told:
        names = re.match(r"( [\w-]+)+", words)
        assert names, words
        assert set(names[0].split()) <= known, words


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_blocks_are_well_formed(block: Block) -> None:
    assert block.not_run is None or len(block.not_run) > 10
    if block.language == "sh":
        subprocess.run(["bash", "-n", "-c", block.text], check=True)
        for words in commands(block):
            check_command(words)
    elif block.language == "python":
        ast.parse(block.text)
    elif block.language == "yaml":
        content = yaml.safe_load(block.text)
        if "branches" in content:
            parse_recipe(content, str(block))


def check_command(words: list[str]) -> None:
    """A command of ours has what it is given; an extra that is installed exists."""
    for extras in re.findall(r"\[([\w,]+)\]", " ".join(words[:3])) if words[:2] == ["pip", "install"] else []:
        there = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        assert set(extras.split(",")) <= set(there)
    if words[0] == "darkroom" or "--no-python" in words:
        name, *arguments = words[words.index("darkroom") + 1 :]
        main.commands[name].make_context(name, arguments)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_and_options_in_the_text_exist(page: Path) -> None:
    known = set[str]().union(*map(options_of, main.commands.values())) | OTHERS
    for span in re.findall(r"`([^`\n]+)`", text_of(page)):
        words = span.split()
        options = {re.split(r"[=|]", word)[0] for word in words if re.match(r"--\w", word)}
        if words[0] == "darkroom" and len(words) > 1 and words[1] in main.commands:
            assert options <= options_of(main.commands[words[1]]) | {"--help"}, span
        elif words[0] == "darkroom" and len(words) > 1:
            assert words[1] in ("COMMAND",), span
        elif words[:2] == ["python", "-m"] and words[2] != "build":
            place = ROOT / words[2].replace(".", "/")
            module = place / "__main__.py" if place.is_dir() else place.with_suffix(".py")
            assert module.exists(), span
            assert all(option in module.read_text() + MEASURING for option in options - {"--help"}), span
        elif words[0].startswith("--"):
            assert options <= known, span


def test_the_step_of_the_page_for_python_is_the_one_that_is_tested() -> None:
    shown = {block.file: block.text for block in blocks(ROOT / "docs/python.md")}
    assert shown["darkroom_posterise.py"] == (ROOT / "tests/plugin_package/darkroom_posterise.py").read_text()


def test_hooks_before_a_commit_run_what_make_lint_runs() -> None:
    made = subprocess.run(
        ["make", "--no-print-directory", "--dry-run", "lint"], capture_output=True, text=True, cwd=ROOT, check=True
    )
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    hooks = local["hooks"]
    assert [hook["entry"] for hook in hooks] == made.stdout.splitlines()[-len(hooks) :]
    assert len(hooks) == made.stdout.count(".venv/bin/ruff") + made.stdout.count(".venv/bin/mypy")
    assert {(local["repo"], hook["language"], hook["pass_filenames"]) for hook in hooks} == {("local", "system", False)}


MEASURING = (ROOT / "tests/benchmarks/measuring.py").read_text()


def test_make_knows_the_two_commands() -> None:
    """That they do what they say is for CI, which runs them."""
    for make, *words in commands(blocks(ROOT / "README.md")[0]):
        done = subprocess.run([make, "--dry-run", *words], capture_output=True, text=True, cwd=ROOT, check=True)
        assert {"demo": "darkroom demo", "test": "-m pytest"}[words[0]] in done.stdout


def test_the_first_steps(tmp_path: Path) -> None:
    """What a newcomer types first, as it stands: a command under Prefect, a recipe in Python, a query."""
    make_photos(tmp_path)
    chosen = blocks(ROOT / "README.md")[:FIRST]
    assert [block.language for block in chosen] == ["sh", "sh", "python", "python"]
    assert [block.not_run is None for block in chosen] == [False, True, True, True]
    run_blocks(chosen, tmp_path)
    assert len(list((tmp_path / "out/runs").glob("*/_SUCCESS"))) == 1


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server and a worker that has the folder `served` beside its database for its own."""
    folder = tmp_path_factory.mktemp("served")
    with serving(folder / "home", folder, free_port()) as server:
        yield server


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("page", RUN, ids=name_of)
def test_every_block_of_a_page_runs(
    page: Path, served: Served, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In order, in one folder; `operating.md` in that of the worker, for which its relative paths are."""
    folder = served.log.parent.parent if page.name == "operating.md" else tmp_path
    make_sets(folder)
    for below in ("2024", "scans"):
        store = open_store(f"s3://{bucket}/archive/{below}")
        write(store, "cat.png", (folder / "photos/animals/cat.png").read_bytes())
    monkeypatch.setenv("PREFECT_API_URL", served.api)
    address = served.api.removeprefix("http://").removesuffix("/api")
    run_blocks(blocks(page), folder, **{"s3://": f"s3://{bucket}/", "127.0.0.1:4200": address})
