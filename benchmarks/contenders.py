"""Who takes part: each contender is one command, the files it reads and the folder it writes."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.recipes import COEFFICIENT, alignmend_recipes, mergekit_recipes
from benchmarks.synthetic import ADAPTER, Family

SCRIPTS = Path(__file__).parent / "scripts"
TRIO = ("finetuned", "aligned", "unaligned")
TITLES = {
    "floor": "floor: cat two inputs, cp the third",
    "cp": "cp of the target",
    "import-torch": "import torch",
    "alignmend-resta": "alignmend: RESTA",
    "alignmend-resta-density": "alignmend: RESTA, density 0.7",
    "alignmend-trim": "alignmend: trim 10 %, model-wide",
    "alignmend-trim-sparse": "alignmend: trim 10 %, model-wide, delta mostly zeros",
    "alignmend-hdr": "alignmend: harm direction removal, density 0.1, model-wide",
    "alignmend-adapter": "alignmend: adapter merge",
    "load-add-save": "transformers: load, add, save",
    "peft-merge": "PEFT merge_and_unload",
    "mergekit-linear": "mergekit linear (= RESTA)",
    "mergekit-task-arithmetic": "mergekit task_arithmetic (= RESTA)",
    "mergekit-dare-linear": "mergekit dare_linear (= RESTA, density 0.7)",
    "mergekit-ties": "mergekit ties, density 0.1 per tensor (nearest to a trim)",
}
READS = {
    "resta": TRIO,
    "resta-density": TRIO,
    "trim": TRIO,
    "trim-sparse": ("finetuned", "aligned", "sparse"),
    "hdr": TRIO,
    "adapter": ("aligned", ADAPTER),
}


@dataclass(frozen=True)
class Contender:
    """One command of the comparison; `output` is removed before and after each run."""

    name: str
    command: tuple[str, ...]
    roles: tuple[str, ...] = ()
    output: Path | None = None

    @property
    def title(self) -> str:
        plain = self.name.removesuffix("-hashed")
        return TITLES[plain] + (", hashed" if plain != self.name else "")


def contenders(family: Family, mergekit: Path | None, coefficient: float = COEFFICIENT) -> list[Contender]:
    """All contenders, cheapest first; `mergekit` is its program, or None where it is not available."""
    scripts = _scripts(family, coefficient)
    return [
        *_floors(family),
        *_alignmend(family, coefficient),
        *scripts,
        *_mergekit(family, mergekit, coefficient),
    ]


def _output(family: Family) -> Path:
    return family.folder / "output"


def _floors(family: Family) -> Iterator[Contender]:
    others = shlex.join(str(path) for path in family.files("aligned", "unaligned"))
    output = _output(family)

    def copy(role: str) -> str:
        return f"cp -r {shlex.quote(str(family.path(role)))} {shlex.quote(str(output))}"

    yield Contender("floor", ("sh", "-c", f"cat {others} >/dev/null && {copy('finetuned')}"), TRIO, output)
    yield Contender("cp", ("sh", "-c", copy("aligned")), ("aligned",), output)
    yield Contender("import-torch", (sys.executable, "-c", "import torch"))


def _alignmend(family: Family, coefficient: float) -> Iterator[Contender]:
    program = str(Path(sys.executable).with_name("alignmend"))
    output = _output(family)
    for name, recipe in alignmend_recipes(family, coefficient).items():
        path = _write_recipe(family, f"alignmend-{name}", recipe)
        command = (program, "apply", str(path), "--out", str(output))
        yield Contender(f"alignmend-{name}", (*command, "--no-hash"), READS[name], output)
        yield Contender(f"alignmend-{name}-hashed", command, READS[name], output)


def _scripts(family: Family, coefficient: float) -> Iterator[Contender]:
    output = _output(family)
    trio = (str(family.path(role)) for role in TRIO)
    script = str(SCRIPTS / "load_add_save.py")
    yield Contender("load-add-save", (sys.executable, script, *trio, str(coefficient), str(output)), TRIO, output)
    script = str(SCRIPTS / "peft_merge.py")
    roles = ("aligned", ADAPTER)
    pair = (str(family.path(role)) for role in roles)
    yield Contender("peft-merge", (sys.executable, script, *pair, str(output)), roles, output)


def _mergekit(family: Family, program: Path | None, coefficient: float) -> Iterator[Contender]:
    for name, recipe in mergekit_recipes(family, coefficient).items():
        path = _write_recipe(family, name, recipe)
        command = (str(program) if program else "mergekit-yaml", str(path), str(_output(family)), "--quiet")
        yield Contender(name, command, TRIO, _output(family))


def _write_recipe(family: Family, name: str, recipe: object) -> Path:
    """JSON is YAML."""
    path = family.folder / "recipes" / f"{name}.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(recipe, indent=2) + "\n")
    return path
