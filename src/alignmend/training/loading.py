"""Models and tokenizers from a folder, quietly, and with as many threads as they can use."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from alignmend.errors import missing_extra

try:
    from transformers.utils import logging
except ImportError as error:
    raise missing_extra("transformers", "train") from error


def has_gpu() -> bool:
    """Whether there is a device to train on beside the processor."""
    return torch.cuda.is_available() or torch.backends.mps.is_available()


@contextmanager
def quiet() -> Iterator[None]:
    """No bars and no remarks of the library: progress is the caller's to show."""
    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of one library about another
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
