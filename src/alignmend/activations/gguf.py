"""Control vectors in GGUF, as llama.cpp reads them.

One tensor `direction.N` per layer, float32. N counts from 1: `direction.N` is added after the block with the
zero-based index N, so the first block (index 0) cannot be steered there.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignmend.activations.steering import Steering, Strength
from alignmend.activations.vector import SteeringVector
from alignmend.errors import FileFormatError, OutputError, ParameterError, missing_extra

if TYPE_CHECKING:
    import numpy as np

    from alignmend.activations.effect import Fidelity

ARCHITECTURE = "controlvector"


def export_gguf(
    vector: SteeringVector,
    path: Path,
    *,
    coefficient: float = 1.0,
    model_hint: str = "",
    approximate: bool = False,
    strength: Strength = "relative",
    overwrite: bool = False,
    measure: Callable[[SteeringVector], Fidelity] | None = None,
) -> tuple[str, ...]:
    """Write `coefficient` times `vector` as a control vector, read it back, and return what a user must know.

    llama.cpp adds the same vector to every activation. Other forms are exported only with `approximate`, as `additive`
    stands in for them; `strength` is that form's. `measure` is given the vector as the file holds it; what it finds is
    written into the file's metadata.
    Raises `ParameterError` for what cannot be said in this format, `OutputError` where `path` exists.
    """
    writer_class, _ = _library()
    if vector.site != "block_output":
        raise ParameterError(f"a control vector acts on block outputs; this one was fitted for {vector.site}")
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists", advice="choose another name, or overwrite it")
    scaled, notes = additive(vector, coefficient, approximate=approximate, strength=strength)
    layers = [layer for layer in scaled.layers if layer > 0]
    if not layers:
        raise ParameterError("a control vector cannot steer layer 0, and the vector has no other layer")
    if 0 in scaled.layers:
        notes = (*notes, "layer 0 is left out: llama.cpp does not steer the first block")
    found = None if measure is None else measure(scaled.restrict(layers))
    notes = notes if found is None else (*notes, *found.notes())
    beside = path.with_name(f".{path.name}.partial")
    writer = writer_class(str(beside), ARCHITECTURE)
    writer.add_string(f"{ARCHITECTURE}.model_hint", model_hint)
    writer.add_uint32(f"{ARCHITECTURE}.layer_count", max(layers) + 1)
    _add_notes(writer, notes, found)
    for layer in layers:
        writer.add_tensor(f"direction.{layer}", scaled.directions[layer].numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    _check(beside, scaled, layers)
    beside.replace(path)
    return notes


def _add_notes(writer: Any, notes: tuple[str, ...], found: Fidelity | None) -> None:
    """Keys of this package, which other readers pass over."""
    if notes:
        writer.add_array("alignmend.notes", list(notes))
    if found is not None:
        writer.add_float32("alignmend.first_token_kl", found.difference.first_token)
        writer.add_float32("alignmend.every_token_kl", found.difference.every_token)
        writer.add_float32("alignmend.effect_first_token_kl", found.effect.first_token)


def read_gguf(path: Path) -> dict[int, np.ndarray]:
    """Layer (zero-based block index) -> direction of a control vector file."""
    _, reader_class = _library()
    try:
        tensors = reader_class(str(path)).tensors
        return {int(str(tensor.name).removeprefix("direction.")): tensor.data.copy() for tensor in tensors}
    except (OSError, ValueError, IndexError) as error:
        raise FileFormatError(f"{path}: not a control vector: {error}") from None


def additive(
    vector: SteeringVector, coefficient: float, *, approximate: bool, strength: Strength = "relative"
) -> tuple[SteeringVector, tuple[str, ...]]:
    """The vector that, added as it is to every activation, stands for `coefficient` of `vector`, and what to know.

    Exact for raw strength without norm preservation and gate. With `approximate`, the stand-in for the others: of the
    relative form |v_l| = coefficient x the mean norm of the activations seen at layer l when the vector was fitted.
    """
    how = Steering(coefficient, preserve_norm=False, strength="raw")
    if not approximate:
        return vector * how.coefficient, ()
    if strength == "raw":
        return vector * how.coefficient, ("an approximation: the norm of the activations is not preserved",)
    norms = vector.about.get("activation_norms")
    if not isinstance(norms, dict) or any(str(layer) not in norms for layer in vector.layers):
        raise ParameterError("an approximation needs the activation norms of the fit, which this vector does not carry")
    directions = {
        layer: direction * (coefficient * float(norms[str(layer)]))
        for layer, direction in vector.unit().directions.items()
    }
    note = "an approximation: the norm of the activations is taken as its mean, and is not preserved"
    return SteeringVector(directions, vector.site, vector.about), (note,)


def _check(path: Path, vector: SteeringVector, layers: list[int]) -> None:
    """What was written is read back before it gets its name."""
    import numpy as np

    found = read_gguf(path)
    if sorted(found) != layers or any(
        not np.array_equal(found[layer], vector.directions[layer].numpy()) for layer in layers
    ):
        path.unlink()
        raise OutputError(f"{path} was not written as meant: reading it back gave other numbers")


def _library() -> tuple[Any, Any]:
    try:
        from gguf import GGUFReader, GGUFWriter
    except ImportError as error:
        raise missing_extra("gguf", "gguf") from error
    return GGUFWriter, GGUFReader
