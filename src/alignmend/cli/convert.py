"""`alignmend convert`: a GGUF model becomes a Hugging Face folder."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from alignmend.cli.options import Subparsers, add_json, command
from alignmend.cli.progress import progress


def add_to(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = command(
        subparsers,
        "convert",
        _run,
        summary="Convert a GGUF model to a Hugging Face folder",
        detail="Weights, tokenizer, chat template and end tokens, read by transformers; every other command then "
        "works on the folder. What quantization has lost stays lost: the checkpoint that a GGUF file was made from is "
        "better where it can be had.",
    )
    parser.add_argument("gguf", type=Path, metavar="GGUF", help="a GGUF file, or the folder that holds one")
    parser.add_argument("out", type=Path, metavar="DIR", help="folder to write; it appears whole or not at all")
    parser.add_argument(
        "--dtype",
        choices=["bfloat16", "float16", "float32"],
        default="bfloat16",
        help="of the weights that are written (default: bfloat16)",
    )
    parser.add_argument(
        "--tokenizer", metavar="T", help="take the tokenizer of this folder or hub id instead of the file's"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace what is in DIR")
    add_json(parser)


def _run(arguments: argparse.Namespace) -> int:
    from alignmend.conversion.gguf import convert_gguf
    from alignmend.io.shards import human_bytes

    with progress() as report:
        made = convert_gguf(
            arguments.gguf,
            arguments.out,
            dtype=arguments.dtype,
            tokenizer=arguments.tokenizer,
            overwrite=arguments.overwrite,
            progress=report,
        )
    if arguments.json:
        print(json.dumps({"out": str(made.path)} | made.manifest.model_dump(mode="json")))
        return 0
    size = sum(output.bytes for output in made.manifest.outputs)
    print(f"{made.path}: {made.manifest.expression}, {made.manifest.parameters['dtype']}")
    print(f"  wrote       {human_bytes(size)} in {len(made.manifest.outputs)} files, manifest and card")
    for note in made.notes:
        print(f"  note        {note}")
    return 0
