"""What a stranger's weights or vector change in the answers to benign prompts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from alignmend.auditing.subject import kind_at

if TYPE_CHECKING:
    from alignmend.activations.effect import Divergence

COEFFICIENT = 0.1
"""Of a steering vector whose file does not say how it is applied; relative."""


def benign_change(
    subject: str | Path,
    parent: str | Path,
    *,
    prompts: Sequence[str] | None = None,
    coefficient: float | None = None,
    device: str | None = None,
) -> Divergence:
    """KL of the parent with `subject` from the parent alone, after and within benign `prompts` (default: a dozen).

    No code of a model's own is run. `coefficient` is that of a steering vector, or the factor of a stored delta.
    """
    from alignmend.activations.effect import NEUTRAL, divergence, effect
    from alignmend.evaluation.devices import load_model

    asked = NEUTRAL if prompts is None else prompts
    model, tokenizer = load_model(parent, device)
    what = kind_at(subject)
    if what == "steering vector":
        from alignmend.activations.attached import how_applied
        from alignmend.activations.steering import Steering
        from alignmend.activations.vector import SteeringVector

        path = Path(subject)
        own = how_applied(path) if coefficient is None else None
        how = own or Steering(COEFFICIENT if coefficient is None else coefficient)
        return effect(model, tokenizer, SteeringVector.load(path), how, asked)
    if what == "delta":
        from alignmend.algebra.opening import open_checkpoint, open_delta
        from alignmend.execution.in_place import InPlace

        start = open_checkpoint(parent)
        moved = start + (1.0 if coefficient is None else coefficient) * open_delta(subject, target=start)
        switch = InPlace(model, start)

        @contextmanager
        def changed() -> Iterator[None]:
            switch.switch(moved)
            try:
                yield
            finally:
                switch.undo()

        return divergence((model, changed), (model, nullcontext), tokenizer, asked)
    other, _ = load_model(subject, device)
    return divergence((other, nullcontext), (model, nullcontext), tokenizer, asked)
