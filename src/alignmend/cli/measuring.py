"""What an export of a steering vector changes, measured while it is written."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignmend.errors import ParameterError

if TYPE_CHECKING:
    from alignmend.activations.effect import Fidelity, Served
    from alignmend.activations.steering import Steering
    from alignmend.activations.vector import SteeringVector


@dataclass
class Measuring:
    """Compares with the hooked model in the form that was asked for; `found` is the last comparison."""

    model: str
    device: str | None
    asked: tuple[SteeringVector, Steering]
    prompts: Sequence[str]
    found: Fidelity | None = None

    @classmethod
    def of(cls, arguments: argparse.Namespace, vector: SteeringVector) -> Measuring:
        """As the options of the command say."""
        return cls(str(arguments.model), arguments.device, (vector, asked_form(arguments)), _prompts(arguments))

    def of_vector(self, written: SteeringVector) -> Fidelity:
        """`written` is added to every activation as it is."""
        model, tokenizer = self._load(self.model)
        return self._compare(model, tokenizer, (model, lambda: written.steer(model, _additive(1.0))))

    def of_folder(self, folder: Path) -> Fidelity:
        """The checkpoint in `folder` answers without hooks."""
        model, tokenizer = self._load(self.model)
        return self._compare(model, tokenizer, (self._load(folder)[0], nullcontext))

    def _compare(self, model: Any, tokenizer: Any, served: Served) -> Fidelity:
        from alignmend.activations.effect import fidelity

        self.found = fidelity(model, tokenizer, self.asked, served, self.prompts)
        return self.found

    def _load(self, path: str | Path) -> tuple[Any, Any]:
        from alignmend.evaluation.devices import load_model

        return load_model(path, self.device)


def _additive(coefficient: float) -> Steering:
    from alignmend.activations.steering import Steering

    return Steering(coefficient, preserve_norm=False, strength="raw")


def asked_form(arguments: argparse.Namespace) -> Steering:
    """The form that the export is, or stands in for: as options say, or as the vector's own file does."""
    from alignmend.activations.steering import Steering

    if not arguments.approximate and (arguments.gate or arguments.free_norm):
        raise ParameterError(
            "--gate and --free-norm speak of the form to stand in for, which is not exact: they need --approximate"
        )
    if arguments.coefficient is None:
        return _own_form(arguments)
    if arguments.approximate:
        return Steering(arguments.coefficient, preserve_norm=not arguments.free_norm, gate=arguments.gate)
    return _additive(arguments.coefficient)


def _own_form(arguments: argparse.Namespace) -> Steering:
    from alignmend.activations.attached import how_applied

    how, path = how_applied(arguments.vector), arguments.vector
    if how is None:
        raise ParameterError(f"{path} does not say how strongly it is applied", advice="give --coefficient C")
    if arguments.gate or arguments.free_norm:
        raise ParameterError(
            f"{path} says how it is applied", advice="give --gate and --free-norm with a --coefficient only"
        )
    if how.additive and arguments.approximate:
        raise ParameterError(
            f"{path} is added as it is, which the format says exactly", advice="leave --approximate out"
        )
    if not how.additive and not arguments.approximate:
        raise ParameterError(
            f"{path} acts by each activation's norm, which a vector that is only added cannot: --approximate stands in "
            "for it and tells the difference"
        )
    return how


def _prompts(arguments: argparse.Namespace) -> Sequence[str]:
    from alignmend.activations.effect import NEUTRAL
    from alignmend.evaluation.suites.loading import load_suite

    if arguments.prompts is None:
        return NEUTRAL
    suite = load_suite(arguments.prompts, data_dir=arguments.data_dir, limit=arguments.limit)
    return [prompt.text for prompt in suite.prompts]
