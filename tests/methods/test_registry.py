"""What recipes, help and docs say of a method comes from its one file."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import alignmend.methods
from alignmend.algebra.values import Checkpoint
from alignmend.errors import RecipeError
from alignmend.methods.registry import get_method, method_names, methods, type_name
from alignmend.recipes.lines import parse_yaml
from alignmend.recipes.schema import check_recipe

FILES = sorted(path.stem for path in Path(alignmend.methods.__path__[0]).glob("[!_]*.py"))


def test_every_file_beside_the_registry_is_a_method() -> None:
    assert list(methods()) == [name for name in FILES if name not in ("candidates", "registry", "steered")]


@pytest.mark.parametrize("name", methods())
def test_the_table_of_symbols_is_the_signature(name: str) -> None:
    method = get_method(name)
    rows = re.findall(r"^\| (\w+) \|", inspect.getdoc(method.build) or "", re.MULTILINE)
    assert rows == ["argument", *inspect.signature(method.build).parameters]
    assert list(method.arguments) == rows[1:]
    kinds = {parameter.kind for parameter in inspect.signature(method.build).parameters.values()}
    assert kinds == {inspect.Parameter.KEYWORD_ONLY}


@pytest.mark.parametrize("name", methods())
def test_every_method_says_what_it_is_from_where_and_what_it_computes(name: str) -> None:
    method = get_method(name)
    assert method.summary.endswith(".")
    if method.title:
        assert method.authors and re.fullmatch(r"\d{4}\.\d{5}", method.arxiv)
    else:
        assert method.source == "of this project" and not method.authors and method.record.arxiv is None
    assert "=" in method.equation
    assert "\n" not in method.title + method.equation
    assert method.record.name == name
    for argument in method.arguments.values():
        assert argument.meaning and argument.symbol
        assert "typing" not in type_name(argument.annotation)


def test_a_model_is_told_from_a_number() -> None:
    roles = {name for name, argument in get_method("task_arithmetic").arguments.items() if argument.is_model}
    assert roles == {"base", "finetuned", "target"}
    assert get_method("task_arithmetic").arguments["finetuned"].many


def test_a_misspelled_method_meets_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"no method 'restta': did you mean 'resta'\?"):
        get_method("restta")


NEW = '''
from alignmend.algebra.values import Checkpoint

def sway(*, start: Checkpoint, goal: Checkpoint, share: float = 0.5) -> Checkpoint:
    """Go part of the way.

    Paper: Nobody, "Nothing", arXiv 0000.00000
    Equation: a + s * (b - a)

    | argument | symbol | meaning |
    | --- | --- | --- |
    | start | a | here |
    | goal | b | there |
    | share | s | how far |
    """
    return start + share * (goal - start)
'''


@pytest.fixture
def sway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One new file among the methods."""
    (tmp_path / "sway.py").write_text(NEW)
    monkeypatch.setattr(alignmend.methods, "__path__", [*alignmend.methods.__path__, str(tmp_path)])
    methods.cache_clear()
    yield
    monkeypatch.undo()
    methods.cache_clear()


@pytest.mark.usefixtures("sway")
def test_one_new_file_is_a_new_method() -> None:
    assert "sway" in methods()
    text = "method: sway\nmodels: {start: a, goal: b}\nparameters: {shore: 1}\n"
    with pytest.raises(RecipeError, match=r"line 3: unknown key 'parameters\.shore': did you mean 'share'\?"):
        check_recipe(parse_yaml(text, "r.yaml"))
    recipe = check_recipe(parse_yaml(text.replace("shore", "share"), "r.yaml"))
    assert recipe.parameters == {"share": 1.0}
    assert get_method("sway").arguments["start"].annotation is Checkpoint


def install(folder: Path, points: str, text: str = NEW) -> None:
    """A package with these entry points, as pip would leave it."""
    (folder / "swaying.py").write_text(text)
    information = folder / "swaying-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: swaying\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(f"[alignmend.methods]\n{points}\n")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder whose packages count as installed."""
    monkeypatch.syspath_prepend(tmp_path)
    methods.cache_clear()
    yield tmp_path
    sys.modules.pop("swaying", None)
    methods.cache_clear()


def test_a_method_of_another_package_is_found(installed: Path) -> None:
    install(installed, "sway = swaying:sway")
    assert "sway" in method_names()
    assert get_method("sway").arguments["share"].default == 0.5
    recipe = check_recipe(parse_yaml("method: sway\nmodels: {start: a, goal: b}\n", "r.yaml"))
    assert recipe.method == "sway"


def test_a_method_of_another_package_takes_no_name_of_ours(installed: Path) -> None:
    install(installed, "resta = swaying:sway")
    assert get_method("resta").arxiv == "2402.11746"


@pytest.mark.parametrize(
    ("points", "text", "message"),
    [
        ("sway = swaying:gone", NEW, r"the installed method 'sway' \(swaying:gone\) cannot be loaded: .*gone"),
        ("sway = swaying:sway", "sway = 1\n", r"'sway' \(swaying:sway\) is no function"),
        ("sway = swaying:sway", NEW.replace("Equation:", "Sum:"), r"'sway' cannot be used: .*Equation line"),
        ("sway = swaying:sway", NEW.replace("| share", "| other"), r"'sway' cannot be used: 'share' is in no row"),
    ],
)
def test_a_method_of_another_package_that_does_not_work_is_named(
    installed: Path, points: str, text: str, message: str
) -> None:
    install(installed, points, text)
    with pytest.raises(RecipeError, match=message):
        get_method("sway")
