"""A recipe run whole: what it lacks is made first, then its arithmetic is applied and its steering vector fitted."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from alignmend.errors import FileFormatError, OutputError
from alignmend.io.atomic import make_folder, no_empty_folders, private_files
from alignmend.io.companions import by_name, is_tokenizer_file
from alignmend.io.identity import sha256_of
from alignmend.io.manifest import MANIFEST_NAME, Input, InputFile, Manifest, read_manifest
from alignmend.io.private import MARKER_NAME, mark_private
from alignmend.io.published import Publisher
from alignmend.io.staging import settle
from alignmend.recipes.apply import Origin, Switches, apply_recipe
from alignmend.recipes.areas import with_area
from alignmend.recipes.build import beside, build, located, sweep
from alignmend.recipes.schema import Recipe
from alignmend.recipes.second_stage import second_stage
from alignmend.restore.parts import Progress, check_makeable, lacking, make_parts, path_of, stand_in, texts_of

if TYPE_CHECKING:
    from alignmend.execution.save import Saved


@dataclass(frozen=True)
class Ran:
    """What a run wrote; `parts` is the folder of private parts, where they were kept."""

    written: tuple[Saved, ...]
    parts: Path | None


def run_recipe(
    recipe: Recipe,
    folder: Path,
    out: Path,
    switches: Switches,
    *,
    keep_private: bool = False,
    progress: Progress | None = None,
) -> Ran:
    """Make what `recipe`, which lies in `folder`, lacks; then write `out` as `apply` does, with its second stage.

    Trained parts lie in `OUT-private` until the output is whole; then they are removed, unless `keep_private`. A run
    that was killed continues with `resume`. Raises what training and applying raise.
    """
    report = progress or (lambda what, done, total: None)
    recipe, told = with_area(recipe, folder)
    wanted, place = lacking(recipe), _private_place(out, switches.within)
    check_makeable(recipe, folder, wanted)
    stages = [  # what is wrong is to be told before hours of training
        second_stage(build(one, folder), folder, may_fit=True) for _, one in sweep(stand_in(recipe))
    ]
    _check_place(out, place, switches, has_parts=bool(wanted))
    data = _data(recipe, folder) if wanted else {}
    whole = {**data, **(stages[0].data if stages[0] is not None else {})}
    if wanted and switches.resume and (done := _finished(recipe, folder, whole, out)):
        settle(out, switches.within)
        return Ran(done, _left(place, wanted, keep_private=keep_private))
    single = len(list(sweep(recipe))) == 1
    if wanted and single and _is_taken(out) and not switches.overwrite:  # of a sweep, a part may be there
        raise OutputError(
            f"{out} exists and is not empty, and is not what this recipe makes of these files",
            advice="choose another folder, or pass --overwrite to replace it",
        )
    origin = Origin(recipe.models, data, told)
    with no_empty_folders(place.parent), _prepared(place) if wanted else nullcontext():
        with private_files():
            made = dict(make_parts(recipe, folder, place, resume=switches.resume, progress=report))
        whole_recipe = recipe.model_copy(update={"models": {**recipe.models, **made}})
        written = apply_recipe(whole_recipe, folder, out, replace(switches, may_fit=True, origin=origin), report)
    return Ran(written, _left(place, wanted, keep_private=keep_private))


def _private_place(out: Path, within: Path | None) -> Path:
    """Where parts are made: beside the output, under its name; beside `within`, where that holds the output."""
    if within is not None:
        whole = _private_place(within, None)
        return whole.with_name(f"{whole.name.removesuffix('-private')}-{out.name}-private")
    resolved = out.resolve()
    if not resolved.name:
        raise OutputError(f"{out} is no place for an output", advice="choose a folder")
    return (
        resolved.with_name(f"{resolved.name}-private")
        if out.name in ("", "..")
        else out.with_name(f"{out.name}-private")
    )


def _left(place: Path, wanted: Sequence[str], *, keep_private: bool) -> Path | None:
    """The folder of parts, where it is kept, or where something else is in it."""
    if wanted and not keep_private and place.is_dir():
        _remove(place, wanted)
    return place if wanted and place.is_dir() else None


def _check_place(out: Path, place: Path, switches: Switches, *, has_parts: bool) -> None:
    """Refuse before hours of training what would be refused after them."""
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out} exists and is not a folder", advice="choose another name")
    if _is_taken(out) and not (switches.overwrite or switches.resume):
        raise OutputError(
            f"{out} exists and is not empty", advice="choose another folder, or pass --overwrite to replace it"
        )
    if has_parts and place.exists() and not (place / MARKER_NAME).is_file():
        raise OutputError(
            f"{place} is where private parts are made, and holds something else",
            advice=f"move it, or choose another name for {out}",
        )


def _is_taken(out: Path) -> bool:
    return out.is_dir() and any(out.iterdir())


@contextmanager
def _prepared(place: Path) -> Iterator[None]:
    """The folder of parts; where the body fails before there is one, it is gone again."""
    make_folder(place)
    mark_private(place, "Parts of a safety method on their way: models trained to be worse. Never publish them.")
    try:
        yield
    except BaseException:
        _remove(place, ())
        raise


def _data(recipe: Recipe, folder: Path) -> dict[str, Input]:
    """The files that parts are made from."""
    found = {f"{kind}_texts": path for kind, path in texts_of(recipe, folder).items()}
    if recipe.data.harmful_pairs is not None:
        found["harmful_pairs"] = beside(recipe.data.harmful_pairs, folder)
    return {name: data_input(path) for name, path in found.items()}


def data_input(path: Path) -> Input:
    """A data file, as a manifest tells of it."""
    content = sha256_of(path)
    file = InputFile(file=path.name, bytes=path.stat().st_size, header_sha256=content, sha256=content)
    return Input(location=str(path), files=[file])


def _remove(place: Path, roles: Sequence[str]) -> None:
    for role in roles:
        part = path_of(place, role)
        if part.is_file():
            part.unlink()
        shutil.rmtree(part, ignore_errors=True)
    if [path.name for path in place.iterdir()] == [MARKER_NAME]:
        shutil.rmtree(place, ignore_errors=True)


def _finished(recipe: Recipe, folder: Path, data: Mapping[str, Input], out: Path) -> tuple[Saved, ...]:
    """What an earlier run of this recipe on these files has written, where all of it is whole; else nothing."""
    from alignmend.execution.save import Saved
    from alignmend.execution.steps import StepTable

    found = []
    for name, one in sweep(recipe):
        place = out / name if name else out
        manifest = _whole(place)
        asked = Publisher(place).recipe(located(one, folder).model_dump(mode="json", exclude_defaults=True))
        if manifest is None or manifest.recipe != asked or not _same_files(data, manifest.data):
            return ()
        if _newest(one, folder) > (place / MANIFEST_NAME).stat().st_mtime_ns:  # a model has changed since
            return ()
        found.append(Saved(place, manifest, StepTable(()), {}, ()))
    return tuple(found)


def _same_files(asked: Mapping[str, Input], told: Mapping[str, Input]) -> bool:
    """Whether it was the same data; where they were seen from does not matter."""
    return all(name in told and told[name].files == one.files for name, one in asked.items())


def _newest(recipe: Recipe, folder: Path) -> int:
    """When weights and tokenizers of the models that the recipe names were last written, in nanoseconds."""
    given = (one for role in recipe.models.values() for one in (role if isinstance(role, list) else [role]))
    places = [beside(one.path, folder) for one in given]
    files = [path for place in places for path in (_model_files(place) if place.is_dir() else [place])]
    return max((path.stat().st_mtime_ns for path in files if path.is_file()), default=0)


def _model_files(folder: Path) -> list[Path]:
    inside = by_name(folder, folder.glob("*"))
    return [path for name, path in inside.items() if path.suffix == ".safetensors" or is_tokenizer_file(name)]


def _whole(place: Path) -> Manifest | None:
    try:
        manifest = read_manifest(place)
    except FileFormatError:
        return None
    sizes = {place / one.file: one.bytes for one in manifest.outputs}
    return manifest if all(path.is_file() and path.stat().st_size == size for path, size in sizes.items()) else None
