"""Safe-Align, the second stage of Safety Arithmetic, as one value: how its vector is fitted, where and how it acts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from alignmend.activations.steering import Steering

if TYPE_CHECKING:
    from alignmend.activations.estimators import Estimator
    from alignmend.activations.pairs import ContrastPair, TextForm
    from alignmend.activations.vector import SteeringVector
    from alignmend.anatomy.layers import Site


@dataclass(frozen=True)
class SafeAlign:
    """Everything but model and pairs that decides a steering vector and its use (arXiv 2406.11801, eq. 5-10).

    Activations are measured at `measured_at` and steered at `site`, which differ in the released code; `layers` are all
    where empty. The other settings are those of `SteeringVector.fit` and of `Steering`.
    """

    steering: Steering
    estimator: Estimator = "mean_difference"
    last: int = 4
    measured_at: Site = "block_output"
    site: Site = "block_output"
    layers: tuple[int, ...] = ()
    text: TextForm = "chat"
    unit: bool = False

    @property
    def summary(self) -> str:
        """One line for the screen."""
        layers = f"layers {', '.join(map(str, self.layers))}" if self.layers else "all layers"
        strength = f"{self.steering.coefficient:g}, {self.steering.strength}"
        return f"{self.estimator} of the last {self.last} tokens, strength {strength}, at {self.site} of {layers}"

    def fit(self, model: Any, tokenizer: Any, pairs: Sequence[ContrastPair]) -> SteeringVector:
        """The vector of `pairs` in `model`, which is the one that harm direction removal has left."""
        from alignmend.activations.vector import SteeringVector

        vector = SteeringVector.fit(
            model,
            tokenizer,
            pairs,
            estimator=self.estimator,
            last=self.last,
            site=self.measured_at,
            layers=self.layers or None,
            text=self.text,
            unit=self.unit,
        )
        return replace(vector, site=self.site, about={**vector.about, "measured_at": self.measured_at})
