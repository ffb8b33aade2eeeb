"""Help in colour, where the terminal takes it and nobody has asked for none."""

from __future__ import annotations

import os
import re
from typing import TextIO

_HEADING = re.compile(r"^(usage:|[a-z][a-z ]*:)(?=$| )", re.MULTILINE)
_OPTION = re.compile(r"(?<![\w-])(--?[a-zA-Z][\w-]*)")
_COMMAND = re.compile(r"^(    )([a-z]+)(?=  |$)", re.MULTILINE)


def wants_colour(stream: TextIO) -> bool:
    """Whether `stream` is a terminal that shows colours; NO_COLOR, FORCE_COLOR and TERM=dumb are heeded."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def coloured(text: str) -> str:
    """Headings bold, options and commands in cyan."""
    text = _OPTION.sub("\x1b[36m\\1\x1b[0m", text)
    text = _COMMAND.sub("\\1\x1b[36m\\2\x1b[0m", text)
    return _HEADING.sub("\x1b[1m\\1\x1b[0m", text)
