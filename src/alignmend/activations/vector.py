"""Steering vectors: one direction per layer, pointing from unsafe to safe, and what they came from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignmend.activations.steering import Steering, Strength, Tokens, install, steering
from alignmend.anatomy.layers import Site, decoder_layers
from alignmend.errors import MismatchError, ParameterError

if TYPE_CHECKING:
    import torch

    from alignmend.activations.estimators import Estimator
    from alignmend.activations.pairs import ContrastPair, TextForm


@dataclass(frozen=True, eq=False)
class SteeringVector:
    """Layer -> direction, float32 on the CPU, shape (hidden size,), at `site`; `about` says where it came from.

    Vectors at one site add, a number scales one.
    """

    directions: Mapping[int, torch.Tensor]
    site: Site = "block_output"
    about: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        widths = {tuple(direction.shape) for direction in self.directions.values()}
        if not self.directions or len(widths) != 1 or len(next(iter(widths))) != 1:
            raise ParameterError(
                f"a steering vector needs one direction per layer, all of one width, not {sorted(widths)}"
            )

    @classmethod
    def fit(
        cls,
        model: Any,
        tokenizer: Any,
        pairs: Sequence[ContrastPair],
        *,
        estimator: Estimator = "mean_difference",
        last: int = 4,
        site: Site = "block_output",
        layers: Iterable[int] | None = None,
        layer_path: str | None = None,
        text: TextForm = "chat",
        unit: bool = False,
        batch_size: int = 16,
    ) -> SteeringVector:
        """The vector from unsafe to safe answers that `pairs` show in `model`; see `activations.fitting.fit`."""
        from alignmend.activations.fitting import fit

        found = fit(
            model,
            tokenizer,
            pairs,
            estimator=estimator,
            last=last,
            site=site,
            layers=layers,
            layer_path=layer_path,
            text=text,
            unit=unit,
            batch_size=batch_size,
        )
        return cls(found.directions, site, found.about)

    def apply(
        self,
        model: Any,
        coefficient: float = 0.1,
        *,
        preserve_norm: bool = True,
        gate: bool = False,
        strength: Strength = "relative",
        tokens: Tokens = "all",
        layer_path: str | None = None,
    ) -> AbstractContextManager[None]:
        """A context in which `model` is steered (`activations.steering.Steering` says how); unchanged afterwards."""
        how = Steering(coefficient, preserve_norm, gate, strength, tokens)
        return self.steer(model, how, layer_path=layer_path)

    def steer(self, model: Any, how: Steering, *, layer_path: str | None = None) -> AbstractContextManager[None]:
        """`apply` with its settings as one value."""
        path = layer_path or self.about.get("layer_path")
        return steering(model, self.directions, decoder_layers(model, path), self.site, how)

    def install(self, model: Any, how: Steering) -> ExitStack:
        """Steer `model` for good, or until the stack that is returned is closed."""
        return install(model, self.directions, decoder_layers(model, self.about.get("layer_path")), self.site, how)

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers it steers, ascending."""
        return tuple(sorted(self.directions))

    @property
    def norms(self) -> dict[int, float]:
        """Length of each layer's direction."""
        return {layer: float(self.directions[layer].norm()) for layer in self.layers}

    @property
    def content_hash(self) -> str:
        """SHA-256 of site, layers and directions, in hex: equal for vectors that steer alike."""
        digest = hashlib.sha256(f"{self.site} {self.layers}".encode())
        for layer in self.layers:
            digest.update(self.directions[layer].float().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def restrict(self, layers: Iterable[int]) -> SteeringVector:
        """Only `layers`, all of which the vector must have."""
        chosen = sorted(set(layers))
        missing = [layer for layer in chosen if layer not in self.directions]
        if missing or not chosen:
            raise ParameterError(f"the vector has layers {list(self.layers)}, not {missing or 'an empty choice'}")
        return replace(self, directions={layer: self.directions[layer] for layer in chosen})

    def unit(self) -> SteeringVector:
        """Every direction scaled to length 1; zero directions stay zero."""
        return self._each(lambda direction: direction / direction.norm().clamp_min(1e-30))

    def random_like(self, seed: int) -> SteeringVector:
        """The control: random directions of the same length at every layer."""
        import torch

        generator = torch.Generator().manual_seed(seed)
        made = {}
        for layer in self.layers:
            noise = torch.randn(self.directions[layer].shape, generator=generator)
            made[layer] = noise * (self.directions[layer].norm() / noise.norm())
        return SteeringVector(made, self.site, {"random_like": dict(self.about), "seed": seed})

    def __mul__(self, factor: float) -> SteeringVector:
        return self._each(lambda direction: direction * float(factor))

    __rmul__ = __mul__

    def __neg__(self) -> SteeringVector:
        return self * -1.0

    def __add__(self, other: SteeringVector) -> SteeringVector:
        if self.site != other.site:
            raise MismatchError(f"vectors at different sites do not add: {self.site} and {other.site}")
        every = sorted({*self.directions, *other.directions})
        about = {"sum_of": [dict(self.about), dict(other.about)]}
        return SteeringVector({layer: self._at(other, layer) for layer in every}, self.site, about)

    def _at(self, other: SteeringVector, layer: int) -> torch.Tensor:
        parts = [each.directions[layer] for each in (self, other) if layer in each.directions]
        if len({part.shape for part in parts}) != 1:
            raise MismatchError(f"the vectors have different widths at layer {layer}: {[len(part) for part in parts]}")
        return parts[0] if len(parts) == 1 else parts[0] + parts[1]

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> SteeringVector:
        return replace(self, directions={layer: change(self.directions[layer]) for layer in self.layers})

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write a safetensors file (`layer.N` and metadata), at once or not at all; `load` is the inverse."""
        from alignmend.activations.files import save_vector

        return save_vector(self, Path(path), overwrite=overwrite)

    @classmethod
    def load(cls, path: str | Path) -> SteeringVector:
        """A vector that `save` wrote; `FileFormatError` says what is wrong with others."""
        from alignmend.activations.files import load_vector

        directions, site, about = load_vector(Path(path))
        return cls(directions, site, about)
