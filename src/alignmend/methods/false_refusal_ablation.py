"""False-refusal ablation: nothing writes along the direction of refusing what only sounds harmful."""

from __future__ import annotations

from alignmend.algebra import relatives
from alignmend.algebra.values import Checkpoint, Scores


def false_refusal_ablation(
    *,
    finetuned: Checkpoint,
    false_refusal: Scores,
    layer: int,
    refusal: Scores | None = None,
    strength: float = 1.0,
) -> Checkpoint:
    """Take a direction of false refusal out of every weight that writes into the residual stream.

    Paper: Wang et al., "Surgical, Cheap, and Flexible: Mitigating False Refusal in Language Models via Single Vector
    Ablation", arXiv 2410.03415
    Equation: W <- W - w w^T W for output projections of attention and MLP and their biases, E <- E - (E w) w^T; w <-
    w - lambda * proj_r(w), over its length, w = mean h(sounds harmful) - mean h(harmless), r = mean h(harmful) - mean
    h(harmless) at one layer; the two vectors and the layer are found beforehand, and not here

    | argument | symbol | meaning |
    | --- | --- | --- |
    | finetuned | W, E | the model that refuses too much, such as a restored one |
    | false_refusal | w | a file of a steering vector, one direction per layer |
    | layer | - | whose direction of the files is taken, counted from 0 |
    | refusal | r | another such file: the direction of true refusal, which is spared; nothing is spared if left out |
    | strength | lambda | how much of w along r is spared: 1 all of it, less is milder |
    """
    return finetuned + relatives.ablate(finetuned, false_refusal, layer=layer, spared=refusal, strength=strength)
