"""Restore the safety of a language model after fine-tuning or editing, by arithmetic, and prove it.

Importing this module loads neither torch nor transformers; what needs them loads them when it is first used.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alignmend.activations.attached import attach as attach
    from alignmend.activations.pairs import ContrastPair as ContrastPair
    from alignmend.activations.pairs import read_pairs
    from alignmend.activations.steering import Steering as Steering
    from alignmend.activations.vector import SteeringVector as SteeringVector
    from alignmend.algebra.opening import open_adapter as open_adapter
    from alignmend.algebra.opening import open_checkpoint
    from alignmend.algebra.opening import open_delta as open_delta
    from alignmend.algebra.opening import open_moments as open_moments
    from alignmend.algebra.opening import open_scores as open_scores
    from alignmend.algebra.operations import common_rows as common_rows
    from alignmend.algebra.operations import drop as drop
    from alignmend.algebra.operations import magnitude as magnitude
    from alignmend.algebra.operations import per_layer as per_layer
    from alignmend.algebra.operations import random_mask as random_mask
    from alignmend.algebra.operations import select as select
    from alignmend.algebra.operations import top as top
    from alignmend.algebra.operations import trim as trim
    from alignmend.algebra.operations import weigh as weigh
    from alignmend.algebra.operations import where as where
    from alignmend.algebra.relatives import ablate as ablate
    from alignmend.algebra.relatives import by_similarity as by_similarity
    from alignmend.algebra.relatives import conflict as conflict
    from alignmend.algebra.relatives import heads_mask as heads_mask
    from alignmend.algebra.relatives import indicator as indicator
    from alignmend.algebra.relatives import leading as leading
    from alignmend.algebra.relatives import oppose as oppose
    from alignmend.algebra.relatives import over_share as over_share
    from alignmend.algebra.relatives import positive as positive
    from alignmend.algebra.relatives import project as project
    from alignmend.algebra.relatives import where_similar as where_similar
    from alignmend.algebra.values import Checkpoint as Checkpoint
    from alignmend.algebra.values import Delta as Delta
    from alignmend.algebra.values import Mask as Mask
    from alignmend.algebra.values import Moments as Moments
    from alignmend.algebra.values import Scores as Scores
    from alignmend.api.comparing import compare as compare
    from alignmend.api.evaluating import evaluate as evaluate
    from alignmend.api.gating import gate as gate
    from alignmend.api.judging import judge as judge
    from alignmend.api.reporting import report as report
    from alignmend.api.restoring import restore as restore
    from alignmend.api.training import train as train
    from alignmend.auditing.audit import audit as audit
    from alignmend.editing.locate import locate as locate
    from alignmend.errors import AlignmendError as AlignmendError
    from alignmend.execution.delta_output import save_delta as save_delta
    from alignmend.execution.finding import coefficients as coefficients
    from alignmend.execution.plan import explain as explain
    from alignmend.execution.reduce import cosine as cosine
    from alignmend.execution.reduce import norm as norm
    from alignmend.execution.save import save as save
    from alignmend.io.verify import verify as verify
    from alignmend.methods.antidote import antidote as antidote
    from alignmend.methods.closed_form import closed_form as closed_form
    from alignmend.methods.conflict_mask import conflict_mask as conflict_mask
    from alignmend.methods.false_refusal_ablation import false_refusal_ablation as false_refusal_ablation
    from alignmend.methods.harm_direction_removal import harm_direction_removal as harm_direction_removal
    from alignmend.methods.lata import lata as lata
    from alignmend.methods.low_rank_extrapolation import low_rank_extrapolation as low_rank_extrapolation
    from alignmend.methods.pre_post_merge import pre_post_merge as pre_post_merge
    from alignmend.methods.resta import resta as resta
    from alignmend.methods.resta_weighted import resta_weighted as resta_weighted
    from alignmend.methods.safe_lora import safe_lora as safe_lora
    from alignmend.methods.safe_merge import safe_merge as safe_merge
    from alignmend.methods.safe_patching import safe_patching as safe_patching
    from alignmend.methods.safety_arithmetic import safety_arithmetic as safety_arithmetic
    from alignmend.methods.somf import somf as somf
    from alignmend.methods.soteria import soteria as soteria
    from alignmend.methods.task_arithmetic import task_arithmetic as task_arithmetic
    from alignmend.methods.ties import ties as ties
    from alignmend.restore.loading import load as load
    from alignmend.training.moment_merging import merge_moments as merge_moments
    from alignmend.training.moments import write_moments

    moments = write_moments
    open = open_checkpoint
    read_contrast_pairs = read_pairs

_HOMES = {
    "AlignmendError": "errors",
    "Checkpoint": "algebra.values",
    "ContrastPair": "activations.pairs",
    "Delta": "algebra.values",
    "Mask": "algebra.values",
    "Moments": "algebra.values",
    "Scores": "algebra.values",
    "Steering": "activations.steering",
    "SteeringVector": "activations.vector",
    "ablate": "algebra.relatives",
    "antidote": "methods.antidote",
    "attach": "activations.attached",
    "by_similarity": "algebra.relatives",
    "closed_form": "methods.closed_form",
    "coefficients": "execution.finding",
    "compare": "api.comparing",
    "audit": "auditing.audit",
    "common_rows": "algebra.operations",
    "conflict": "algebra.relatives",
    "conflict_mask": "methods.conflict_mask",
    "cosine": "execution.reduce",
    "drop": "algebra.operations",
    "evaluate": "api.evaluating",
    "explain": "execution.plan",
    "gate": "api.gating",
    "false_refusal_ablation": "methods.false_refusal_ablation",
    "harm_direction_removal": "methods.harm_direction_removal",
    "heads_mask": "algebra.relatives",
    "indicator": "algebra.relatives",
    "lata": "methods.lata",
    "judge": "api.judging",
    "leading": "algebra.relatives",
    "load": "restore.loading",
    "locate": "editing.locate",
    "low_rank_extrapolation": "methods.low_rank_extrapolation",
    "magnitude": "algebra.operations",
    "merge_moments": "training.moment_merging",
    "moments": "training.moments:write_moments",
    "norm": "execution.reduce",
    "open": "algebra.opening:open_checkpoint",
    "open_adapter": "algebra.opening",
    "open_delta": "algebra.opening",
    "open_moments": "algebra.opening",
    "open_scores": "algebra.opening",
    "oppose": "algebra.relatives",
    "over_share": "algebra.relatives",
    "per_layer": "algebra.operations",
    "positive": "algebra.relatives",
    "pre_post_merge": "methods.pre_post_merge",
    "project": "algebra.relatives",
    "random_mask": "algebra.operations",
    "read_contrast_pairs": "activations.pairs:read_pairs",
    "report": "api.reporting",
    "resta": "methods.resta",
    "resta_weighted": "methods.resta_weighted",
    "safe_lora": "methods.safe_lora",
    "safe_merge": "methods.safe_merge",
    "restore": "api.restoring",
    "safe_patching": "methods.safe_patching",
    "safety_arithmetic": "methods.safety_arithmetic",
    "save": "execution.save",
    "save_delta": "execution.delta_output",
    "select": "algebra.operations",
    "somf": "methods.somf",
    "soteria": "methods.soteria",
    "task_arithmetic": "methods.task_arithmetic",
    "ties": "methods.ties",
    "top": "algebra.operations",
    "train": "api.training",
    "trim": "algebra.operations",
    "verify": "io.verify",
    "weigh": "algebra.operations",
    "where": "algebra.operations",
    "where_similar": "algebra.relatives",
}
"""Public name -> module, and the name there where it differs."""

__all__ = [
    "AlignmendError",
    "Checkpoint",
    "ContrastPair",
    "Delta",
    "Mask",
    "Moments",
    "Scores",
    "Steering",
    "SteeringVector",
    "ablate",
    "antidote",
    "attach",
    "audit",
    "by_similarity",
    "closed_form",
    "coefficients",
    "common_rows",
    "compare",
    "conflict",
    "conflict_mask",
    "cosine",
    "drop",
    "evaluate",
    "explain",
    "false_refusal_ablation",
    "gate",
    "harm_direction_removal",
    "heads_mask",
    "indicator",
    "judge",
    "lata",
    "leading",
    "load",
    "locate",
    "low_rank_extrapolation",
    "magnitude",
    "merge_moments",
    "moments",
    "norm",
    "open",
    "open_adapter",
    "open_delta",
    "open_moments",
    "open_scores",
    "oppose",
    "over_share",
    "per_layer",
    "positive",
    "pre_post_merge",
    "project",
    "random_mask",
    "read_contrast_pairs",
    "report",
    "resta",
    "resta_weighted",
    "restore",
    "safe_lora",
    "safe_merge",
    "safe_patching",
    "safety_arithmetic",
    "save",
    "save_delta",
    "select",
    "somf",
    "soteria",
    "task_arithmetic",
    "ties",
    "top",
    "train",
    "trim",
    "verify",
    "weigh",
    "where",
    "where_similar",
]


def __getattr__(name: str) -> object:
    """Load a public name when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module 'alignmend' has no attribute {name!r}")
    module, _, there = _HOMES[name].partition(":")
    found = getattr(importlib.import_module(f"alignmend.{module}"), there or name)
    if f"alignmend.{name}" in sys.modules:  # a subpackage has this name: its modules are found below the function too
        vars(found).update(_modules_below(f"alignmend.{name}."))
    return found


def __dir__() -> list[str]:
    """The public names."""
    return __all__


def _modules_below(package: str) -> dict[str, types.ModuleType]:
    below = {name.removeprefix(package): module for name, module in sys.modules.items() if name.startswith(package)}
    return {name: module for name, module in below.items() if "." not in name}


class _Package(types.ModuleType):
    """The package. A public name stays what it is where a subpackage of the same name is imported.

    An import of `alignmend.restore.request` would set the attribute `restore` of this module to the subpackage.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOMES and isinstance(value, types.ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
