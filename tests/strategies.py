"""Hypothesis strategies: families of tiny checkpoints on disk, and random expressions with what they mean.

Values and coefficients lie on a coarse binary grid, so that float32 arithmetic on them is exact and the one rounding at
the end is the only one: found and expected are then equal bit by bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from hypothesis import strategies as st
from tests import reference
from tests.checkpoints import HEAD, Tensors, llama_shapes, write

import alignmend as am
from alignmend.algebra.names import Kind
from alignmend.algebra.nodes import Scope
from alignmend.algebra.operations import elect

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
SCOPES: tuple[Scope, ...] = ("model", "tensor", "row")
ROLES = ("finetuned", "aligned", "unaligned")
Case: TypeAlias = tuple[am.Delta, reference.Arrays]
"""An expression and what it means."""


@dataclass(frozen=True)
class Family:
    """Three checkpoints of one architecture."""

    tensors: dict[str, Tensors]
    shards: dict[str, int]
    orders: dict[str, list[str]]
    tied: bool

    def open(self, folder: Path) -> dict[str, am.Checkpoint]:
        """Write them below `folder` and open them."""
        return {
            role: am.open(
                write(
                    folder / role,
                    self.tensors[role],
                    shards=self.shards[role],
                    order=self.orders[role],
                    tie_word_embeddings=self.tied,
                )
            )
            for role in self.tensors
        }

    def means(self, role: str) -> reference.Arrays:
        """The weights that arithmetic speaks of: float ones, tied copies once."""
        found = reference.numbers(self.tensors[role])
        return {name: values for name, values in found.items() if not (self.tied and name == HEAD)}


def on_grid(random: np.random.Generator, shape: tuple[int, ...], sparse: bool) -> torch.Tensor:
    """Multiples of 1/32 up to 2 in size; `sparse` ones are mostly zero."""
    values = random.integers(-64, 65, shape) / 32
    if sparse:
        values = values * (random.random(shape) < 0.1)
    return torch.from_numpy(np.asarray(values, dtype=np.float32))


@st.composite
def families(draw: st.DrawFn, dtypes: list[torch.dtype] | None = None) -> Family:
    """Any sharding, order and dtype per role, tied or not, buffers, integers, 3-D experts."""
    random = np.random.default_rng(draw(st.integers(0, 10**6)))
    tied = draw(st.booleans())
    shapes = llama_shapes(layers=draw(st.integers(1, 3)), width=4, vocabulary=6, experts=draw(st.sampled_from([0, 2])))
    if tied and draw(st.booleans()):
        del shapes[HEAD]
    sparse = draw(st.booleans())
    base = {name: on_grid(random, shape, sparse=False) for name, shape in shapes.items()}
    tensors: dict[str, Tensors] = {}
    for role in ROLES:
        dtype = draw(st.sampled_from(dtypes or DTYPES))
        own = {name: (values + on_grid(random, tuple(values.shape), sparse)).to(dtype) for name, values in base.items()}
        if tied and HEAD in own:
            own[HEAD] = own["model.embed_tokens.weight"].clone()
        own["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.rand(2)
        own["model.position_offset"] = torch.arange(3)
        tensors[role] = own
    orders = {role: [str(name) for name in random.permutation(list(tensors[role]))] for role in ROLES}
    return Family(tensors, {role: draw(st.integers(1, 3)) for role in ROLES}, orders, tied)


def expressions(cases: list[Case]) -> st.SearchStrategy[Case]:
    """Deltas built from `cases` by every operation, up to a few deep."""
    return st.recursive(
        st.sampled_from(cases),
        lambda inner: st.one_of(
            st.tuples(inner, inner, st.sampled_from([1.0, -1.0])).map(_sum),
            st.tuples(inner, st.sampled_from([-2.0, -0.5, 0.0, 0.5, 2.0])).map(_scaled),
            st.tuples(inner, st.floats(0, 1), st.sampled_from(SCOPES)).map(_trimmed),
            st.tuples(inner, inner).map(_elected),
            st.tuples(inner, st.sampled_from([0.25, 0.5, 1.0]), st.integers(0, 9), st.booleans()).map(_dropped),
            st.tuples(inner, st.sampled_from(CHOICES)).map(_selected),
            st.tuples(inner, st.sampled_from([-1.0, 0.0, 2.0]), st.sampled_from([0.0, 1.0])).map(_per_layer),
        ),
        max_leaves=3,
    )


def _sum(drawn: tuple[Case, Case, float]) -> Case:
    (left, left_means), (right, right_means), sign = drawn
    if sign > 0:
        return left + right, reference.add(left_means, right_means)
    return left - right, reference.subtract(left_means, right_means)


def _scaled(drawn: tuple[Case, float]) -> Case:
    (delta, means), factor = drawn
    return factor * delta, reference.scale(factor, means)


def _elected(drawn: tuple[Case, Case]) -> Case:
    """Of two at most: their mean is exact."""
    (left, left_means), (right, right_means) = drawn
    return elect([left, right]), reference.elect([left_means, right_means])


def _trimmed(drawn: tuple[Case, float, Scope]) -> Case:
    (delta, means), density, scope = drawn
    if not means:
        return delta, means
    return am.trim(delta, density=density, scope=scope), reference.trim(means, density, scope)


def _dropped(drawn: tuple[Case, float, int, bool]) -> Case:
    (delta, means), density, seed, rescale = drawn
    meant = means if density == 1.0 else reference.drop(means, density, seed, rescale=rescale)
    return am.drop(delta, density=density, seed=seed, rescale=rescale), meant


@dataclass(frozen=True)
class Choice:
    """A selection by name, layer or kind, and the names that it takes, said in other words."""

    names: tuple[str, ...]
    layers: tuple[int, ...]
    kinds: tuple[Kind, ...]
    takes: Callable[[str], bool]


CHOICES = [
    Choice(("*",), (), (), lambda name: True),
    Choice(("*embed*", "*q_proj*"), (), (), lambda name: "embed" in name or "q_proj" in name),
    Choice((), (0,), (), lambda name: ".layers.0." in name),
    Choice((), (), ("norm",), lambda name: "norm" in name),
    Choice((), (0,), ("attention", "mlp"), lambda name: ".layers.0." in name and "norm" not in name),
]


def _selected(drawn: tuple[Case, Choice]) -> Case:
    (delta, means), choice = drawn
    kept = {name: values for name, values in means.items() if choice.takes(name)}
    return am.select(delta, names=choice.names or None, layers=choice.layers or None, kinds=choice.kinds or None), kept


def _per_layer(drawn: tuple[Case, float, float]) -> Case:
    (delta, means), factor, default = drawn
    scaled = {name: values * (factor if ".layers.0." in name else default) for name, values in means.items()}
    return am.per_layer(delta, {0: factor}, default=default), scaled
