"""The house's rules: which way imports go, who may print, what is public, what is never in a file."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

import alignmend

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "alignmend"
MODULES = sorted(SOURCE.rglob("*.py"))

LAYERS = (
    {"__main__"},
    {"cli", "testing"},
    {"api"},
    {"restore", "chat_families", "auditing"},
    {"recipes"},
    {"methods"},
    {"report"},
    {"evaluation", "organisms"},
    {"activations", "training", "editing", "conversion"},
    {"anatomy"},
    {"execution"},
    {"algebra"},
    {"io"},
    {"plugins"},
    {"errors", "nearest", "docstrings"},
)
"""From the top; a part imports itself and what is below it, never its siblings."""
SIBLINGS = {"nearest": {"errors"}}
"""Allowed in spite of that."""
STRANGERS = {"activations", "training", "editing", "evaluation"}
"""These never import each other: they meet through files."""


def part_of(module: Path) -> str:
    return module.relative_to(SOURCE).parts[0].removesuffix(".py")


def level(part: str) -> int:
    found = [number for number, layer in enumerate(LAYERS) if part in layer]
    assert found, f"{part} is in no layer: add it to LAYERS and to ARCHITECTURE.md"
    return found[0]


def imported(module: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of everything that a module imports, wherever in it."""
    package = ["alignmend", *module.relative_to(SOURCE).with_suffix("").parts]
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: -node.level]) if node.level else ""
            origin = ".".join(part for part in (base, node.module) if part)
            yield from ((node.lineno, f"{origin}.{name.name}") for name in node.names)


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_imports_go_down_only(module: Path) -> None:
    if module == SOURCE / "__init__.py":
        return  # the public names come from everywhere
    here = part_of(module)
    for line, name in imported(module):
        if name.split(".")[0] != "alignmend":
            continue
        there = [*name.split("."), ""][1]
        assert not {here, there} <= STRANGERS or here == there, f"{module}:{line} imports {name}: they are strangers"
        upward = there not in ("", here) and level(there) <= level(here)
        assert not upward or there in SIBLINGS.get(here, ()), f"{module}:{line} imports {name}: {here} is not above"


@pytest.mark.parametrize("part", ["report", "cli", "errors", "nearest", "recipes"])
def test_light_parts_import_no_torch_at_their_top(part: str) -> None:
    """The report anywhere; the others not outside functions."""
    modules = [module for module in MODULES if part_of(module) == part]
    for module in modules:
        nodes = ast.walk(ast.parse(module.read_text())) if part == "report" else ast.parse(module.read_text()).body
        for node in nodes:
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [name.name for name in node.names] if isinstance(node, ast.Import) else []
            assert not any(name.split(".")[0] in {"torch", "transformers"} for name in names), module


def calls(module: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func)


@pytest.mark.parametrize(
    "module",
    [one for one in MODULES if part_of(one) not in ("cli", "__main__")],
    ids=lambda path: path.relative_to(SOURCE).as_posix(),
)
def test_only_the_command_line_prints_or_exits(module: Path) -> None:
    forbidden = {"print", "exit", "quit", "sys.exit", "os._exit", "sys.stdout.write", "sys.stderr.write", "input"}
    assert not forbidden & set(calls(module))
    assert "SystemExit" not in module.read_text()


def test_ruff_watches_over_printing_too() -> None:
    settings = (ROOT / "pyproject.toml").read_text()
    assert '"T20"' in settings.split("ignore =")[0]
    assert '"src/alignmend/cli/**" = ["T20"]' in settings


EDGE = SOURCE / "cli" / "guard.py"
"""Turns what nobody foresaw into a message and a file with its traceback."""


@pytest.mark.parametrize(
    "module", [one for one in MODULES if one != EDGE], ids=lambda path: path.relative_to(SOURCE).as_posix()
)
def test_no_error_is_swallowed_and_nothing_is_left_to_do(module: Path) -> None:
    text = module.read_text()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ExceptHandler):
            broad = node.type is None or ast.unparse(node.type) in ("Exception", "BaseException")
            raises = any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
            assert not broad or raises, f"{module}:{node.lineno} catches everything and goes on"
    assert not re.search(r"\b(TODO|FIXME|XXX)\b", text)


def test_the_package_says_that_it_is_typed() -> None:
    assert (SOURCE / "py.typed").exists()


def tracked() -> list[Path]:
    """Files under version control; of an unpacked archive, the project's own folders."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode == 0:
        return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]
    folders = [ROOT / name for name in ("src", "tests", "docs", "studies", "benchmarks")]
    return [
        path for folder in folders for path in folder.rglob("*") if path.is_file() and "__pycache__" not in str(path)
    ]


def test_no_file_names_a_machine() -> None:
    machine = re.compile(
        rb"(?<![\w.~])/(?:work|home(?!/someone)|root|Users|tmp/pytest)[/\w-]*|C:\\\\Users", re.IGNORECASE
    )
    texts = [path for path in tracked() if path != Path(__file__) and b"\0" not in path.read_bytes()[:8192]]
    found = {
        f"{path.relative_to(ROOT)}: {match.group().decode()}"
        for path in texts
        for match in machine.finditer(path.read_bytes())
    }
    assert not found


def test_the_licence_is_apache_2_everywhere() -> None:
    licence = (ROOT / "LICENSE").read_text()
    assert "Apache License" in licence and "Version 2.0, January 2004" in licence
    assert metadata.metadata("alignmend")["License-Expression"] == "Apache-2.0"


@pytest.mark.parametrize("name", alignmend.__all__)
def test_every_public_name_resolves_and_is_documented(name: str) -> None:
    found = getattr(alignmend, name)
    assert len(inspect.getdoc(found) or "") > 10
    assert name in dir(alignmend)


def test_public_names_are_sorted_and_strangers_are_told() -> None:
    assert sorted(alignmend.__all__) == sorted(set(alignmend.__all__))
    with pytest.raises(AttributeError, match="module 'alignmend' has no attribute 'restta'"):
        _ = alignmend.restta


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_every_module_and_public_function_has_a_docstring(module: Path) -> None:
    tree = ast.parse(module.read_text())
    assert ast.get_docstring(tree), module
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{module}: {node.name}"


def test_every_error_is_in_the_one_tree() -> None:
    errors = importlib.import_module("alignmend.errors")
    for module in MODULES:
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.ClassDef) and any("Error" in ast.unparse(base) for base in node.bases):
                assert module.name == "errors.py", f"{module} defines {node.name}"
    raised = [value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, Exception)]
    assert all(issubclass(value, errors.AlignmendError) for value in raised)


HEAVY = ("torch", "transformers", "peft", "numpy", "safetensors", "pydantic", "huggingface_hub")


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = f"import alignmend, sys; print([name for name in {HEAVY!r} if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
