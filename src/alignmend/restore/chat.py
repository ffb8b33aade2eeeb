"""A conversation with one or two models: what was said, how answers are made, what may be taken back."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from alignmend.errors import OutputError, RecipeError
from alignmend.evaluation.sampling import Sampling
from alignmend.io.atomic import replace_bytes
from alignmend.restore.chat_speaker import Answer, Speaker
from alignmend.restore.chat_text import Message

Heard = Callable[[int, str], None]
"""Gets pieces of an answer as they come, with the place of the speaker."""


@dataclass(frozen=True)
class Turn:
    """What was asked, and each speaker's answer in their order."""

    prompt: str
    answers: tuple[Answer, ...]


@dataclass
class Chat:
    """Speakers that are asked the same, each of which remembers its own answers only."""

    speakers: Sequence[Speaker]
    sampling: Sampling = field(default_factory=Sampling)
    system: str | None = None
    turns: list[Turn] = field(default_factory=list)
    saved: set[Path] = field(default_factory=set)

    def ask(self, prompt: str, heard: Heard = lambda place, piece: None) -> Turn:
        """Every speaker's answer, one after another. `AlignmendError` of one leaves the conversation as it was."""
        answers = []
        for place, speaker in enumerate(self.speakers):
            said = [*self.messages(place), {"role": "user", "content": prompt}]
            answers.append(speaker.answer(said, self.sampling, lambda piece, place=place: heard(place, piece)))  # type: ignore[misc]
        turn = Turn(prompt, tuple(answers))
        self.turns.append(turn)
        return turn

    def messages(self, place: int) -> list[Message]:
        """The conversation as the speaker at `place` knows it, system prompt first."""
        return [*self._messages(place)]

    def _messages(self, place: int) -> Iterator[Message]:
        if self.system:
            yield {"role": "system", "content": self.system}
        for turn in self.turns:
            yield {"role": "user", "content": turn.prompt}
            yield {"role": "assistant", "content": turn.answers[place].text}

    def undo(self) -> Turn:
        """Forget the last turn; `RecipeError` where there is none."""
        if not self.turns:
            raise RecipeError("nothing was said yet, so there is nothing to take back")
        return self.turns.pop()

    def set(self, **changes: Any) -> None:
        """Change how tokens are chosen; `ParameterError` leaves it as it was."""
        self.sampling = replace(self.sampling, **changes)

    def steer(self, on: bool) -> None:
        """Apply the speakers' own steering vectors, or leave them out; `RecipeError` where none has one."""
        for speaker in self._steerable():
            speaker.steering = on

    def set_coefficient(self, coefficient: float) -> None:
        """The strength of the speakers' own steering vectors, which are on from then."""
        for speaker in self._steerable():
            speaker.set_coefficient(coefficient)

    def _steerable(self) -> list[Speaker]:
        found = [speaker for speaker in self.speakers if speaker.vector is not None]
        if not found:
            names = " nor ".join(speaker.name for speaker in self.speakers)
            raise RecipeError(f"no steering vector belongs to {names}")
        return found

    def save(self, path: Path) -> int:
        """Write one line of JSON for each speaker: `model` and chat `messages`; the number of turns.

        `OutputError` where the file was there before this conversation.
        """
        if path.exists() and path not in self.saved:
            raise OutputError(f"{path} exists", advice="choose another name")
        lines = [
            json.dumps({"model": speaker.name, "messages": self.messages(place)}, ensure_ascii=False)
            for place, speaker in enumerate(self.speakers)
        ]
        try:
            replace_bytes(path, "".join(f"{line}\n" for line in lines).encode("utf-8", "replace"))
        except OSError as error:
            raise OutputError(f"{path}: {error.strerror or error}") from error
        self.saved.add(path)
        return len(self.turns)
