"""What the documentation names exists: links, images, commands, options, files and modules."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer.main

from moaa.cli import app
from moaa.recipe.load import load_file
from tests.support.paths import ROOT

PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/*.md", "benchmarks/*.md", ".github/*.md", "helm/*/README.md")
    for path in ROOT.glob(pattern)
)
MAIN = typer.main.get_command(app)
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
TOP = [path.name for path in ROOT.iterdir() if not path.name.startswith(".")] + [".github", ".ci"]
PATH = re.compile(rf"^(?:{'|'.join(map(re.escape, TOP))})/[\w./*-]*$")
HISTORY = {"CHANGELOG.md"}
"""Pages that name modules of earlier versions."""


def text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def code(page: str) -> list[str]:
    """What stands between single backticks, outside of blocks."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^ *```.*?^ *```", "", text(page), flags=re.M | re.S))


def commands(page: str) -> list[str]:
    """The lines of the page's bash blocks, comments removed and continued lines joined."""
    blocks = re.findall(r"^ *```bash\n(.*?)^ *```", text(page), re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line for line in (re.sub(r"(^|\s)#.*", "", line).strip() for line in lines) if line]


def anchors(page: str) -> set[str]:
    """The headings of a page, as GitHub and the site address them."""
    headings = re.findall(r"^#+ (.+)$", text(page), re.MULTILINE)
    plain = (re.sub(r"[^\w\s-]", "", heading.lower()) for heading in headings)
    return {heading.strip().replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", PAGES)
def test_relative_links_and_images_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", text(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (ROOT / page).parent / path if path else ROOT / page
        assert found.exists(), f"{page}: {target}"
        if anchor:
            assert anchor in anchors(found.resolve().relative_to(ROOT).as_posix()), target


@pytest.mark.parametrize("page", PAGES)
def test_no_page_holds_the_marks_of_a_merge(page: str) -> None:
    assert not re.search(r"^(<{7}|>{7}) ", text(page), re.MULTILINE)


def invoked(words: list[str]) -> tuple[Any, list[str]]:
    """The command that `words` name, after `moaa`, and the words that remain."""
    command: Any = MAIN
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        assert words[0] in command.commands, f"there is no command `moaa … {words[0]}`"
        command, words = command.commands[words[0]], words[1:]
    return command, words


@pytest.mark.parametrize("page", PAGES)
def test_commands_and_their_options_exist(page: str) -> None:
    lines = commands(page) if page not in HISTORY else []
    for line in lines:
        for part in re.split(r"\||&&|\$\(|;", line):
            found = re.match(r" *(?:[A-Z]+=\S* )*(moaa|make) (.*)", part)
            if not found:
                continue
            words = shlex.split(found[2].replace('"$', "$").replace(')"', ""))
            if found[1] == "make":
                assert {w for w in words if re.fullmatch(r"[a-z][a-z-]*", w)} <= TARGETS, line
                continue
            command, words = invoked(words)
            options = {name for each in command.params for name in each.opts}
            assert {w.split("=")[0] for w in words if w.startswith("--")} <= options, line


@pytest.mark.parametrize("page", PAGES)
def test_commands_in_the_text_exist(page: str) -> None:
    for each in code(page):
        if match := re.match(r"moaa ([a-z-]+(?: [a-z-]+)?)\b", each):
            invoked(match[1].split()[:1] if match[1].split()[0] != "recipe" else match[1].split())
        if match := re.match(r"make ([a-z-]+)\b", each):
            assert match[1] in TARGETS, each


@pytest.mark.parametrize("page", [page for page in PAGES if page not in HISTORY])
def test_files_and_modules_that_are_named_exist(page: str) -> None:
    named = code(page) + [word for line in commands(page) for word in line.split()]
    for each in named:
        if PATH.match(each):
            assert list(ROOT.glob(each.rstrip("/"))), f"{page} names {each}"
    modules = re.findall(r"python -m ((?:moaa|pipelines|tests)[\w.]*)", text(page))
    for each in [name for name in code(page) if re.fullmatch(r"moaa(\.\w+)+", name)] + modules:
        assert importable(each.removesuffix(".py")), f"{page} names {each}"


def importable(name: str) -> bool:
    """Whether `name` is a module, or something in one."""
    try:
        importlib.import_module(name)
        return True
    except ModuleNotFoundError:
        module, _, attribute = name.rpartition(".")
        return bool(module) and hasattr(importlib.import_module(module), attribute)


def strings(source: Path) -> list[str]:
    """The texts in a Python file, with `…` for what is filled in."""
    found = []
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(node.value)
        elif isinstance(node, ast.JoinedStr):
            parts = (n.value if isinstance(n, ast.Constant) else "…" for n in node.values)
            found.append("".join(map(str, parts)))
    return found


def test_the_messages_of_troubleshooting_are_those_of_the_code() -> None:
    sources = [path for top in ("moaa", "pipelines") for path in (ROOT / top).rglob("*.py")]
    known = "\n".join(each for source in sources for each in strings(source))
    shown = [each for each in code("docs/troubleshooting.md") if "…" in each and each != "…"]
    assert len(shown) > 20
    for message in shown:
        for piece in re.split("[…`]", message):
            assert len(piece.strip()) < 4 or piece.strip() in known, f"{message}: {piece!r}"


def test_contributing_shows_the_floors_that_lint_checks() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = next(c["layers"] for c in settings["contracts"] if c["type"] == "layers")
    table = text("CONTRIBUTING.md").partition("| floor |")[2].partition("## House rules")[0]
    shown = [re.findall(r"`([a-z]+)`", row.split("|")[1]) for row in table.splitlines()[2:-1]]
    checked = [re.findall(r"(?:moaa\.)?([a-z]+)", layer) for layer in layers]
    assert [sorted(floor) for floor in shown] == [sorted(floor) for floor in checked]


def test_the_members_of_the_api_page_exist() -> None:
    found = re.findall(r"::: (\S+)\n(?: +options:\n +members: \[(.*)\])?", text("docs/api.md"))
    assert len(found) > 5
    for module, members in found:
        for member in filter(None, members.split(", ")):
            assert hasattr(importlib.import_module(module), member), f"{module}.{member}"


@pytest.mark.parametrize("page", ["docs/api.md", "docs/extending.md", "docs/data-formats.md"])
def test_what_the_examples_import_is_on_the_api_page(page: str) -> None:
    found = re.findall(r"::: (\S+)\n(?: +options:\n +members: \[(.*)\])?", text("docs/api.md"))
    public = {module: set(filter(None, members.split(", "))) for module, members in found}
    names = {name for members in public.values() for name in members}
    for block in re.findall(r"```python.*?\n(.*?)```", text(page), re.DOTALL):
        for node in ast.walk(ast.parse(block)):
            if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("moaa"):
                continue
            for each in node.names:
                shown = public.get(str(node.module))
                assert (
                    f"{node.module}.{each.name}" in public  # a module
                    or (shown is not None and (not shown or each.name in shown))
                    or (node.module == "moaa.chat" and each.name in names)
                ), f"{page}: {node.module}.{each.name}"


def test_the_readme_names_every_page_and_every_folder_of_tests() -> None:
    page = text("README.md")
    assert [each for each in PAGES if each.startswith("docs/") and f"]({each})" not in page] == []
    (row,) = re.findall(r"^\| `tests/` \| (.*) \|$", page, re.MULTILINE)
    folders = {path.name for path in (ROOT / "tests").iterdir() if list(path.glob("test_*.py"))}
    assert [each for each in sorted({*folders, "bench"}) if each not in row] == []


def test_the_readme_installs_engines_that_the_run_leases() -> None:
    lines = commands("README.md")
    (recipe,) = [line.partition("=")[2] for line in lines if line.startswith("DEMO=")]
    assert load_file(ROOT / recipe).recipe.runtime.engines.kind == "kubernetes"
    block = "\n".join(lines[lines.index(f"DEMO={recipe}") :])
    for needed in (
        "create secret generic moaa-s3",
        "--chart platform",
        "helm/moaa-platform -n moaa",
        "helm/moaa-serving -n moaa",
        "moaa run $DEMO --in-cluster",
    ):
        assert needed in block


def test_each_fault_of_the_matrix_names_tests_that_exist() -> None:
    """`file: test`; `test` alone is in the file before it. A file, or a sentence, shows nothing."""
    rows = [
        line.rsplit("|", 2)[1]
        for line in (ROOT / "docs/reliability.md").read_text().splitlines()
        if line.startswith("|") and not line.startswith(("| fault ", "|---"))
    ]
    assert len(rows) > 80
    for cell in rows:
        file: Path | None = None
        assert re.fullmatch(r" (`[^`]+`(, |; )?)+ ", cell), f"more than names of tests: {cell}"
        for each in re.findall(r"`([^`]+)`", cell):
            where, colon, test = each.rpartition(": ")
            if colon:
                paths = (ROOT / "tests/unit" / where, ROOT / where)
                file = next((path for path in paths if path.is_file()), None)
            assert file is not None, each
            assert re.search(rf"def {re.escape(test)}\(", file.read_text()), each
