"""The sampler of a search: what it draws depends on the seed, on what was tried and on the name of a number alone."""

from __future__ import annotations

import warnings
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from optuna.exceptions import ExperimentalWarning
from optuna.samplers import TPESampler

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.study import Study
    from optuna.trial import FrozenTrial


class KeyedSampler(TPESampler):
    """A TPE sampler that draws each number anew from `key` and its name.

    A process may end between two numbers of one candidate: who goes on draws the others as they would have been.
    """

    def __init__(self, key: str, *, startup: int) -> None:
        super().__init__(seed=_seed(key), n_startup_trials=startup, multivariate=True, group=True)
        self._key, self._startup = key, startup

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """By a sampler of the number's own."""
        own = TPESampler(seed=_seed(f"{self._key} {param_name}"), n_startup_trials=self._startup)
        return own.sample_independent(study, trial, param_name, param_distribution)


def keyed_sampler(key: str, *, startup: int) -> KeyedSampler:
    """Without optuna's word that grouped sampling is new."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return KeyedSampler(key, startup=startup)


def _seed(key: str) -> int:
    return int.from_bytes(sha256(key.encode()).digest()[:4], "big")
