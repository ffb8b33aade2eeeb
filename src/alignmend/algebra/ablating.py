"""A direction that nothing writes along: which tensors write into the residual stream, and on which side."""

from __future__ import annotations

from alignmend.algebra.names import input_embedding, is_input_first, writes_to_stream
from alignmend.algebra.nodes import Ablated
from alignmend.algebra.problems import Problems
from alignmend.algebra.programs import Along, Program, Read
from alignmend.algebra.simplify import plus
from alignmend.io.folder import CheckpointFolder
from alignmend.io.tensors import TensorEntry


def ablated(
    node: Ablated, entry: TensorEntry, change: Program | None, target: CheckpointFolder, problems: Problems
) -> Program | None:
    """The program of `node` for the target's tensor `entry`; `change` is what the node's own change is there."""
    embedding = entry.name == input_embedding(tuple(target.tensors))
    operand = plus([Read(entry), change])
    if operand is None or not (embedding or writes_to_stream(entry.name)):
        return None
    direction, spared = (
        None if one is None else one.folder.tensors[f"layer.{node.layer}"] for one in (node.direction, node.spared)
    )
    if direction is None or len(entry.shape) > 2:
        problems.add(f"{entry.name} is a stack of experts in {target.location}: nothing can be ablated from it")
        return None
    by_row = not embedding and not is_input_first(entry.name, target.config.get("model_type"))
    for vector in (one for one in (direction, spared) if one is not None):
        if vector.shape != (entry.shape[0 if by_row or len(entry.shape) == 1 else 1],):
            problems.add(
                f"{entry.name} is {list(entry.shape)} in {target.location}, where the direction {vector.path.name} is "
                f"{list(vector.shape)}: was it fitted on another model?"
            )
            return None
    if len(entry.shape) == 1:  # a bias is one column
        return Along(operand, direction, spared, node.strength, True, 1)
    return Along(operand, direction, spared, node.strength, by_row, entry.shape[1])
