"""What is wrong with a recipe is said with its line, and nothing in it is ignored."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from alignmend.errors import RecipeError
from alignmend.recipes.lines import MAX_BYTES, parse_yaml, read_yaml
from alignmend.recipes.schema import Recipe, arguments_of, check_recipe, load_recipe

GOOD = """\
method: resta
models:
  finetuned: ./task
  aligned: org/chat
  unaligned: {path: ./bad, revision: null}
parameters:
  coefficient: 0.5
"""


def check(text: str) -> Recipe:
    return check_recipe(parse_yaml(text, "r.yaml"))


def test_a_good_recipe_is_read() -> None:
    recipe = check(GOOD)
    assert recipe.method == "resta"
    assert recipe.models["aligned"].path == "org/chat"  # type: ignore[union-attr]
    assert recipe.parameters == {"coefficient": 0.5}
    assert recipe.output.max_shard_size == "5GB"


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("coefficient:", "coeficient:", r"line 7: unknown key 'parameters\.coeficient': did you mean 'coefficient'\?"),
        ("coefficient:", "coeficient:", r"line 6: parameters\.coefficient is missing"),
        ("finetuned:", "fine_tuned:", r"line 3: unknown key 'models\.fine_tuned': did you mean 'finetuned'\?"),
        ("finetuned: ./task", "", r"models\.finetuned is missing"),
        ("method: resta", "metod: resta", "needs a method, such as  method: resta"),
        ("method: resta", "method: rest", r"line 1: there is no method 'rest': did you mean 'resta'\?"),
        ("method: resta", "method: 3", "needs a method"),
        ("models:", "model:", "line 2: unknown key 'model': did you mean 'models'"),
        ("path: ./bad", "pth: ./bad", r"line 5: unknown key 'models\.unaligned\.pth': did you mean 'path'"),
        ("path: ./bad", "path: ''", r"line 5: models\.unaligned\.path: string should have at least 1 character"),
        ("./task", "[a, b]", r"line 3: models\.finetuned: give one model, a folder or a hub id, not \[\{"),
        ("./task", "7", r"line 3: models\.finetuned: give one model, a folder or a hub id, not 7"),
        ("0.5", "much", r"line 7: parameters\.coefficient: give a finite number, .* not 'much'"),
        ("0.5", "'0.5'", "give a finite number"),
        ("0.5", "yes", "give a finite number, or for a sweep a list of them, not True"),
        ("0.5", ".nan", "give a finite number"),
        ("0.5", "[0.5, .inf]", "give a finite number"),
        ("0.5", "[0.5, true]", "give a finite number"),
        ("0.5", "0.5\n  seed: 1.5", r"line 8: parameters\.seed: input should be a valid integer"),
        ("0.5", "0.5\n  rescale: 1", r"parameters\.rescale: input should be a valid boolean, not 1"),
        ("0.5", "0.5\n  drop: sft", r"input should be 'task', 'safety' or 'both', not 'sft'"),
        ("0.5", "0.5\n  layers: 3", r"parameters\.layers: must be a list, not 3"),
        ("0.5", "0.5\n  names: q_proj", r"parameters\.names: must be a list, not 'q_proj'"),
        ("0.5", "0.5\n  kinds: [attn]", "input should be 'attention', 'mlp'"),
        ("0.5", "0.5\n  layer_coefficients: {first: 1}", r"layer_coefficients\.first: input should be a valid integer"),
        ("0.5", "0.5\noutput: {dtyp: float32}", r"line 8: unknown key 'output\.dtyp': did you mean 'dtype'\?"),
        ("0.5", "0.5\noutput: {dtype: float8}", "'bfloat16', 'float16' or 'float32', not 'float8'"),
        ("0.5", "0.5\noutput: {max_shard_size: big}", "line 8: a size looks like 5GB, 500MB or 2GiB, not 'big'"),
        ("0.5", "0.5\noutput: 5GB", r"line 8: output: must be a mapping"),
        ("0.5", "0.5\noutput:\n  seed: -1", r"line 9: output\.seed: input should be greater than or equal to 0"),
        ("0.5", "0.5\ndata: {pairs: x}", r"unknown key 'data\.pairs': did you mean 'harmful_pairs'"),
        (
            "method: resta",
            'method: resta\n"coefficient[0]": 1',
            r"line 2: unknown key 'coefficient\[0\]'; known here: method",
        ),
        ("0.5", '0.5\n  "a[b]": 1', r"line 8: unknown key 'parameters\.a\[b\]'; known here: coefficient"),
        ("0.5", "0.5\n  float: 1", r"line 8: unknown key 'parameters\.float'"),
        ("0.5", "0.5\n  str: 1", r"line 8: unknown key 'parameters\.str'"),
        ("path: ./bad", '"path[0]": ./bad', r"line 5: unknown key 'models\.unaligned\.path\[0\]': did you mean 'path'"),
        ("./task", "{float: 1}", r"line 3: unknown key 'models\.finetuned\.float'"),
        ("0.5", '0.5\noutput: {dtypes: {"a[b]*": int7}}', r"line 8: output\.dtypes\.a\[b\]\*: input should be"),
        (
            "0.5",
            '0.5\n  layer_coefficients: {"a[1]": 2}',
            r"layer_coefficients\.a\[1\]: input should be a valid integer",
        ),
        ("parameters:\n  coefficient: 0.5", "parameters: [1]", r"line 6: parameters: must be a mapping with keys"),
        ("0.5", "0.5\n  coefficient: 0.6", "line 8: 'coefficient' is given twice"),
        ("0.5", "0.5\nmethod: resta", "line 8: 'method' is given twice"),
        ("0.5", "&a 0.5\n  density: *a", r"line 8: \*a refers to another place"),
        ("0.5", "0.5\n? [a, b]\n: 1", "line 8: a key must be plain text"),
        ("0.5", "0.5\n? {a: b}\n: 1", "line 8: a key must be plain text"),
        ("0.5", "0.5\n1: 2", "must be a mapping with keys such as method"),
        ("0.5", "[0.5", "line 8: .*expected"),
        ("0.5", "!!python/object/apply:os.system ['true']", "could not determine a constructor"),
        ("0.5", "\x07", "is not YAML: .*special characters are not allowed"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(old: str, new: str, problem: str) -> None:
    assert old in GOOD
    with pytest.raises(RecipeError, match=rf"(?s)r\.yaml.*{problem}"):
        check(GOOD.replace(old, new))


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just text", "3", "~"])
def test_only_a_mapping_is_a_recipe(text: str) -> None:
    with pytest.raises(RecipeError, match="must be a mapping"):
        check(text)


@pytest.mark.parametrize("block", ["parameters", "models"])
@pytest.mark.parametrize("value", ["[a]", "text", "7"])
def test_blocks_must_be_mappings(block: str, value: str) -> None:
    blocks = {"models": "{finetuned: a, aligned: b, unaligned: c}", "parameters": "{coefficient: 1}"} | {block: value}
    text = "method: resta\n" + "".join(f"{name}: {content}\n" for name, content in blocks.items())
    with pytest.raises(RecipeError, match=r"needs models|parameters: must be a mapping"):
        check(text)


def test_all_problems_are_listed_at_once() -> None:
    text = GOOD.replace("coefficient:", "coeficient:").replace("aligned: org", "algned: org") + "outptu: {}\n"
    with pytest.raises(RecipeError) as raised:
        check(text)
    for part in ("coeficient", "algned", "outptu", "models.aligned is missing"):
        assert part in str(raised.value)


def test_an_empty_block_is_a_block_left_out() -> None:
    with pytest.raises(RecipeError, match=r"^r\.yaml, line 6: parameters\.coefficient is missing$"):
        check(GOOD.replace("  coefficient: 0.5\n", "") + "output:\ndata:\n")


def test_long_values_are_shortened_in_messages() -> None:
    with pytest.raises(RecipeError) as raised:
        check(GOOD.replace("0.5", "'" + "long " * 10_000 + "'"))
    assert len(str(raised.value)) < 500


def test_numbers_in_scientific_notation_are_numbers() -> None:
    assert check(GOOD.replace("0.5", "5e-1")).parameters == {"coefficient": 0.5}
    assert check(GOOD.replace("0.5", "[1e-3, 1]")).parameters == {"coefficient": [1e-3, 1.0]}


def test_layer_coefficients_keep_their_layers_through_json() -> None:
    recipe = check(GOOD + "  layer_coefficients: {0: 0.5, 11: 2}\n")
    assert arguments_of(recipe)["layer_coefficients"] == {0: 0.5, 11: 2.0}
    again = Recipe.model_validate_json(recipe.model_dump_json())
    assert arguments_of(again)["layer_coefficients"] == {0: 0.5, 11: 2.0}
    copied = check(GOOD + "  layer_coefficients: {'0': 0.5, '11': 2}\n")  # as a model card shows it
    assert copied == recipe


def test_a_bomb_of_references_is_refused_at_once() -> None:
    levels = [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 30)]
    begin = time.monotonic()
    with pytest.raises(RecipeError, match=r"r\.yaml, line 2: \*l0 refers to another place"):
        parse_yaml("l0: &l0 [x]\n" + "\n".join(levels), "r.yaml")
    assert time.monotonic() - begin < 5


@pytest.mark.parametrize("text", ["a: &a [*a]", "<<: &a {b: 1}\nc: {<<: *a}"])
def test_references_of_every_kind_are_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="refers to another place"):
        parse_yaml(text, "r.yaml")


@pytest.mark.parametrize("opening", ["[", "{a: ", "- "])
def test_deep_nesting_is_refused(opening: str) -> None:
    with pytest.raises(RecipeError, match=r"r.yaml"):
        parse_yaml("x:\n  " + opening * 50_000, "r.yaml")


def test_files_that_are_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"cannot read the recipe .*No such file"):
        read_yaml(tmp_path / "none.yaml")
    with pytest.raises(RecipeError, match=r"cannot read the recipe .*Is a directory"):
        read_yaml(tmp_path)
    binary = tmp_path / "model.safetensors"
    binary.write_bytes(b"\x80\x00\xff" * 100)
    with pytest.raises(RecipeError, match="not UTF-8 text: is it a recipe"):
        read_yaml(binary)
    huge = tmp_path / "huge.yaml"
    huge.write_bytes(b"a" * (MAX_BYTES + 1))
    with pytest.raises(RecipeError, match="has over 1,000,000 bytes: is it a recipe"):
        read_yaml(huge)


def test_a_device_that_never_ends_is_refused() -> None:
    if not Path("/dev/zero").exists():
        pytest.skip("no /dev/zero")
    with pytest.raises(RecipeError, match="has over"):
        read_yaml(Path("/dev/zero"))


def test_settings_change_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(GOOD)
    recipe, _ = load_recipe(
        tmp_path / "r.yaml",
        [
            "coefficient=[0.1, 0.2]",
            "parameters.density=0.7",
            "models.aligned=./here",
            "models.finetuned.revision=main",
            "output.dtype=float32",
            "layer_coefficients={0: 2}",
        ],
    )
    assert recipe.parameters == {"coefficient": [0.1, 0.2], "density": 0.7, "layer_coefficients": {"0": 2.0}}
    models = {role: (one.path, one.revision) for role, one in recipe.models.items()}  # type: ignore[union-attr]
    assert models == {"finetuned": ("./task", "main"), "aligned": ("./here", None), "unaligned": ("./bad", None)}
    assert recipe.output.dtype == "float32"


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ("coefficient", "--set takes key=value"),
        ("=1", "--set takes key=value"),
        ("coefficient=[1", r"--set coefficient=\[1: the value is not YAML"),
        ("coefficient=a: b", "the value is not YAML"),
        ("coefficient=1\nmethod: x", "gives more than one value"),
        ("coefficient=much", r"^--set coefficient=much: parameters\.coefficient: give a finite number"),
        ("coefficient=", "give a finite number"),
        ("coeficient=1", r"^--set coeficient=1: unknown key 'parameters\.coeficient': did you mean 'coefficient'"),
        ("method.name=x", "method has no keys of its own|needs a method"),
        ("parameters.coefficient.deep=1", "coefficient has no keys of its own"),
        ("models.algned=x", "unknown key 'models.algned': did you mean 'aligned'"),
        ("method=rest", "--set method=rest: there is no method 'rest'"),
    ],
)
def test_settings_that_are_wrong(tmp_path: Path, setting: str, problem: str) -> None:
    (tmp_path / "r.yaml").write_text(GOOD)
    with pytest.raises(RecipeError, match=problem):
        load_recipe(tmp_path / "r.yaml", [setting])
