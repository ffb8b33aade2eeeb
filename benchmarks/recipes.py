"""The same arithmetic, written for alignmend and for mergekit."""

from __future__ import annotations

from typing import Any

from benchmarks.synthetic import ADAPTER, Family

COEFFICIENT = 0.5
DENSITY = 0.7
TRIM = 0.1
HARM_ROLES = {"target": "finetuned", "aligned": "aligned", "harmful": "unaligned"}
Recipe = dict[str, Any]


def alignmend_recipes(family: Family, coefficient: float) -> dict[str, Recipe]:
    roles = {role: _path(family, role) for role in ("finetuned", "aligned", "unaligned")}
    return {
        "resta": {"method": "resta", "models": roles, "parameters": {"coefficient": coefficient}},
        "resta-density": {
            "method": "resta",
            "models": roles,
            "parameters": {"coefficient": coefficient, "density": DENSITY, "seed": 0},
        },
        "trim": _trim(family, "unaligned", coefficient),
        "trim-sparse": _trim(family, "sparse", coefficient),
        "hdr": _harm_direction_removal(family, coefficient),
        "adapter": _adapter(family),
    }


def _trim(family: Family, harmful: str, coefficient: float) -> Recipe:
    """Harm direction removal: the largest tenth of the harm vector, over the whole model, is subtracted."""
    parameters = {"coefficient": -coefficient, "trim": TRIM, "scope": "model"}
    models = {"base": _path(family, "aligned"), "finetuned": _path(family, harmful)}
    models["target"] = _path(family, "finetuned")
    return {"method": "task_arithmetic", "models": models, "parameters": parameters}


def _harm_direction_removal(family: Family, coefficient: float) -> Recipe:
    """The method by its name: the same sum as `trim`, through the recipe that a user writes."""
    models = {role: _path(family, own) for role, own in HARM_ROLES.items()}
    return {
        "method": "harm_direction_removal",
        "models": models,
        "parameters": {"coefficient": coefficient, "density": TRIM, "scope": "model"},
    }


def _adapter(family: Family) -> Recipe:
    models = {"base": _path(family, "aligned"), "finetuned": _path(family, ADAPTER)}
    return {"method": "task_arithmetic", "models": models, "parameters": {"coefficient": 1.0}}


def _path(family: Family, role: str) -> str:
    return str(family.path(role).resolve())


def mergekit_recipes(family: Family, coefficient: float) -> dict[str, Recipe]:
    """RESTA as `linear` and `task_arithmetic`, RESTA with drop as `dare_linear`; `ties` is nearest to a trim."""
    finetuned, aligned, unaligned = (str(family.path(role).resolve()) for role in ("finetuned", "aligned", "unaligned"))

    def model(path: str, **parameters: float) -> Recipe:
        return {"model": path, "parameters": parameters}

    def merge(method: str, models: list[Recipe], base: str | None = aligned, **parameters: Any) -> Recipe:
        based = {"base_model": base} if base else {}
        return {
            "merge_method": method,
            **based,
            "models": models,
            "parameters": parameters,
            "dtype": "bfloat16",
        }

    pair = [model(finetuned, weight=1.0), model(unaligned, weight=-coefficient)]
    return {
        "mergekit-linear": merge(
            "linear", [pair[0], model(aligned, weight=coefficient), pair[1]], None, normalize=True
        ),
        "mergekit-task-arithmetic": merge("task_arithmetic", pair, normalize=False),
        "mergekit-dare-linear": merge(
            "dare_linear",
            [
                model(finetuned, weight=1.0, density=DENSITY),
                model(unaligned, weight=-coefficient, density=1.0),
            ],
            normalize=False,
        ),
        "mergekit-ties": merge(
            "ties",
            [
                model(finetuned, weight=1.0, density=1.0),
                model(unaligned, weight=-coefficient, density=TRIM),
            ],
            normalize=False,
        ),
    }
