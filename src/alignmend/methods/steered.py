"""What a method gives whose second stage acts on activations."""

from __future__ import annotations

from dataclasses import dataclass

from alignmend.activations.safe_align import SafeAlign
from alignmend.algebra.values import Checkpoint


@dataclass(frozen=True)
class Steered:
    """A checkpoint, and how a steering vector is then fitted on it and applied; `None` where only weights change."""

    checkpoint: Checkpoint
    stage: SafeAlign | None
