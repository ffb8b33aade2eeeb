"""What other installed packages add: named by entry points, loaded when it is first asked for."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from importlib.metadata import EntryPoint, entry_points

from alignmend.errors import RecipeError


def installed(group: str, taken: Collection[str] = ()) -> Mapping[str, EntryPoint]:
    """Entry points of the group by name, sorted, not loaded; none can take a name that is `taken`.

    In another package's `pyproject.toml`: `[project.entry-points."alignmend.methods"]`, then lines
    `name = "module:function"`.
    """
    found = {point.name: point for point in entry_points(group=group) if point.name not in taken}
    return dict(sorted(found.items()))


def load(point: EntryPoint, what: str) -> object:
    """What it names; raises `RecipeError` that says which installed thing cannot be loaded."""
    try:
        return point.load()
    except Exception as error:
        where = f"{point.name!r} ({point.value})"
        raise RecipeError(
            f"the installed {what} {where} cannot be loaded: {error};", advice="update or remove it"
        ) from error
