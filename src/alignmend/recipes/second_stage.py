"""The second stage of a recipe: a steering vector, fitted on the weights that the first has written, or given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignmend.errors import FileFormatError, RecipeError
from alignmend.io.identity import sha256_of
from alignmend.io.manifest import Input, InputFile
from alignmend.recipes.build import Built, beside

if TYPE_CHECKING:
    from alignmend.activations.safe_align import SafeAlign
    from alignmend.activations.vector import SteeringVector


_ASKED = 32
"""Prompts on which the effect of a vector is measured."""


@dataclass(frozen=True)
class SecondStage:
    """What has to be done to a folder whose weights are written."""

    stage: SafeAlign
    vector: Path | None
    pairs: Path | None

    @property
    def data(self) -> dict[str, Input]:
        """The file that the result depends on, for the manifest."""
        name, path = ("steering_vector", self.vector) if self.vector is not None else ("contrast_pairs", self.pairs)
        if path is None:
            raise TypeError("path is None")
        content = sha256_of(path)
        file = InputFile(file=path.name, bytes=path.stat().st_size, header_sha256=content, sha256=content)
        return {name: Input(location=str(path), files=[file])}

    def __call__(self, folder: Path) -> Sequence[str]:
        """Write the vector into `folder`, which holds a whole checkpoint; returns notes."""
        from alignmend.activations.attached import check_fits, steering_notes, write_attached

        vector, warnings = self._vector(folder)
        check_fits(vector, folder)
        write_attached(vector, self.stage.steering, folder)
        return (*steering_notes(vector, self.stage.steering), *warnings)

    def _vector(self, folder: Path) -> tuple[SteeringVector, Sequence[str]]:
        from alignmend.activations.pairs import read_pairs
        from alignmend.activations.vector import SteeringVector
        from alignmend.evaluation.devices import load_model
        from alignmend.execution.threads import few_threads

        if self.vector is not None:
            found = SteeringVector.load(self.vector)
            return found.restrict(self.stage.layers) if self.stage.layers else found, ()
        if self.pairs is None:
            raise TypeError("self.pairs is None")
        pairs = read_pairs(self.pairs)
        model, tokenizer = load_model(folder)
        with few_threads(model):
            fitted = self.stage.fit(model, tokenizer, pairs)
            return fitted, self._inert(model, tokenizer, fitted, [pair.prompt for pair in pairs])

    def _inert(self, model: Any, tokenizer: Any, vector: SteeringVector, prompts: Sequence[str]) -> Sequence[str]:
        """A warning where the vector hardly changes what the model says first."""
        from alignmend.activations.effect import effect, inert_warning

        how = self.stage.steering
        if how.tokens == "generated" or how.coefficient == 0:  # the first token is left alone, or everything is
            return ()
        warning = inert_warning(effect(model, tokenizer, vector, how, prompts[:_ASKED]))
        return () if warning is None else (warning,)


def second_stage(built: Built, folder: Path, *, may_fit: bool) -> SecondStage | None:
    """The second stage of `built`, whose recipe lies in `folder`; `None` where its method has none.

    Raises `RecipeError` where neither pairs nor a vector are at hand, or pairs are and a model may not be loaded.
    """
    if built.stage is None:
        return None
    data = built.recipe.data
    vector, pairs = (
        None if name is None else beside(name, folder) for name in (data.steering_vector, data.contrast_pairs)
    )
    if vector is not None and pairs is not None:
        raise RecipeError("data has both steering_vector and contrast_pairs", advice="leave out one of them")
    if vector is None and pairs is None:
        raise RecipeError(
            f"the second stage of {built.method.name} needs data.contrast_pairs (prompt, safe and unsafe on each line) "
            "or a data.steering_vector; with  parameters.steering: false  only the weights change"
        )
    if pairs is not None and not may_fit:
        raise RecipeError(
            "fitting the steering vector of the second stage loads the model",
            advice=(
                "use  alignmend run , or give a fitted one as data.steering_vector, or change the weights "
                "alone by  --set steering=false"
            ),
        )
    for path in (vector, pairs):
        if path is not None and not path.is_file():
            raise FileFormatError(f"{path}: no such file")
    if pairs is not None:
        from alignmend.activations.pairs import read_pairs

        read_pairs(pairs)  # what is wrong with them is to be told before any work
    return SecondStage(built.stage, vector, pairs)
