"""How much of each tensor's intended step survives rounding, gathered while writing."""

from __future__ import annotations

import math
from dataclasses import dataclass

from alignmend.execution.pieces import PieceReport
from alignmend.execution.rounding import Rounding
from alignmend.io.manifest import Patch, TensorRounding
from alignmend.io.manifest import Rounding as RoundingRecord

WARN_ABOVE = 0.25
"""Relative error over all tensors beyond which a summary warns."""
LOST_ABOVE = 0.9
"""Relative error of one tensor beyond which its step counts as lost."""
_WORST = 10


@dataclass(frozen=True)
class TensorStep:
    """One changed tensor. Norms are Frobenius norms."""

    name: str
    dtype: str
    """Of the output."""
    step: float
    """Norm of the intended change."""
    error: float
    """Norm of (realised change - intended change)."""

    @property
    def relative_error(self) -> float | None:
        """Error / step; None where the step is zero."""
        return self.error / self.step if self.step > 0 else None


@dataclass(frozen=True)
class StepTable:
    """Every changed tensor of an output, in writing order."""

    tensors: tuple[TensorStep, ...]
    patches: tuple[Patch, ...] = ()
    """What labelled masks kept."""

    @property
    def relative_error(self) -> float | None:
        """Over all tensors together; None where nothing moved."""
        step = math.fsum(tensor.step**2 for tensor in self.tensors)
        error = math.fsum(tensor.error**2 for tensor in self.tensors)
        return math.sqrt(error / step) if step > 0 else None

    @property
    def lost(self) -> tuple[TensorStep, ...]:
        """Tensors whose step rounding has all but undone."""
        return tuple(tensor for tensor in self.tensors if (tensor.relative_error or 0.0) > LOST_ABOVE)

    def warnings(self) -> tuple[str, ...]:
        """What a person should know, with what helps."""
        found = []
        helps = "write float32 (output dtype float32), or round stochastically (rounding stochastic)"
        if (overall := self.relative_error) is not None and overall > WARN_ABOVE:
            found.append(f"rounding changes the step by {overall:.0%} of its norm: {helps}")
        if self.lost:
            names = ", ".join(tensor.name for tensor in self.lost[:3]) + (", ..." if len(self.lost) > 3 else "")
            found.append(
                f"rounding to {self.lost[0].dtype.lower()} undoes the step of {len(self.lost)} of {len(self.tensors)} "
                f"changed tensors ({names}): {helps} if they matter"
            )
        return tuple(found)

    def rounding(self, mode: Rounding, seed: int) -> RoundingRecord | None:
        """The manifest's block; None where nothing was changed."""
        if not self.tensors:
            return None
        worst = sorted(self.tensors, key=lambda tensor: (-(tensor.relative_error or 0.0), tensor.name))[:_WORST]
        return RoundingRecord(
            dtype=", ".join(sorted({tensor.dtype for tensor in self.tensors})),
            mode=mode,
            seed=seed if mode == "stochastic" else None,
            relative_error=_digits(self.relative_error),
            worst=[TensorRounding(name=tensor.name, relative_error=_digits(tensor.relative_error)) for tensor in worst],
            details={
                "changed_tensors": len(self.tensors),
                "lost_tensors": len(self.lost),
                "step_norm": _digits(math.sqrt(math.fsum(tensor.step**2 for tensor in self.tensors))),
            },
        )


def _digits(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


def tensor_step(name: str, dtype: str, reports: list[PieceReport]) -> TensorStep:
    """The step of a tensor from the reports of its pieces."""
    step = math.fsum(report.step for report in reports)
    error = math.fsum(report.error for report in reports)
    return TensorStep(name, dtype, math.sqrt(step), math.sqrt(error))
