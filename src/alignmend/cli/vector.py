"""`alignmend vector`: steering vectors from contrast pairs, and out of them what others can serve."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignmend.cli.measuring import Measuring, asked_form
from alignmend.cli.options import Subparsers, add_json, command
from alignmend.errors import OutputError, ParameterError

if TYPE_CHECKING:
    from alignmend.activations.pairs import ContrastPair
    from alignmend.activations.vector import SteeringVector


def add_to(subparsers: Subparsers) -> None:
    """Add the command and its parts."""
    parser = command(
        subparsers,
        "vector",
        _no_part,
        summary="Fit a steering vector, look at it, and export it",
        detail="A vector points from unsafe to safe answers, one direction per layer; evaluate --vector applies it.",
    )
    parts = parser.add_subparsers(dest="part", metavar="PART")
    _fit(parts)
    _show(parts)
    _export(parts)
    _bake(parts)


def _no_part(arguments: argparse.Namespace) -> int:
    raise ParameterError("vector fit, show, export or bake? alignmend vector --help tells")


def _fit(parts: Subparsers) -> None:
    parser = command(parts, "fit", _run_fit, summary="Fit a vector to contrast pairs")
    parser.add_argument("--model", required=True, metavar="M", help="folder or hub id")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--pairs", type=Path, metavar="FILE", help="JSONL with prompt, safe and unsafe")
    source.add_argument(
        "--prompts",
        metavar="S",
        help="suite or file of requests: shipped refusals are the safe side, the model's own answers the other",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="safetensors file to write")
    parser.add_argument(
        "--estimator", default="mean_difference", help="mean_difference, principal or mean_plus_principal"
    )
    parser.add_argument(
        "--last", type=int, default=4, metavar="N", help="tokens at the end of an answer to average over"
    )
    parser.add_argument("--site", default="block_output", help="block_output or mlp_output")
    parser.add_argument("--layers", metavar="A-B,C", help="such as 4-12 or 3,5,7 (default: all)")
    parser.add_argument("--layer-path", metavar="PATH", help="where the layers are, if they are not found")
    parser.add_argument("--text", default="chat", help="chat, raw or released-code: how prompt and answer are put")
    parser.add_argument("--unit", action="store_true", help="scale every layer's direction to length 1")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="folder with local copies of known suites")
    parser.add_argument("--limit", type=int, default=30, metavar="N", help="requests of --prompts to use (default: 30)")
    parser.add_argument("--batch-size", type=int, default=16, metavar="N", help="texts at once (default: 16)")
    parser.add_argument("--device", help="such as cpu or cuda:0")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE")
    add_json(parser)


def _show(parts: Subparsers) -> None:
    parser = command(parts, "show", _run_show, summary="Show what a vector is and where it came from")
    parser.add_argument("vector", type=Path, metavar="FILE")
    add_json(parser)


def _export(parts: Subparsers) -> None:
    parser = command(
        parts,
        "export",
        _run_export,
        summary="Write a control vector for llama.cpp",
        detail="llama.cpp adds it to block outputs as it is; norms are not preserved there.",
    )
    _add_additive(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.gguf", help="file to write")
    parser.add_argument("--model-hint", default="", metavar="NAME", help="architecture to note in the file")
    parser.add_argument("--model", metavar="M", help="folder or hub id: measure what the file's form changes in it")


def _bake(parts: Subparsers) -> None:
    parser = command(
        parts,
        "bake",
        _run_bake,
        summary="Write a vector into a checkpoint as biases of its MLPs",
        detail="Llama architecture; plain transformers and vLLM then steer by themselves, at every token.",
    )
    _add_additive(parser)
    parser.add_argument("--model", required=True, metavar="M", help="folder or hub id of the checkpoint")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument("--no-check", action="store_true", help="do not load the models and compare their logits")


def _add_additive(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("vector", type=Path, metavar="FILE")
    parser.add_argument(
        "--coefficient",
        type=float,
        metavar="C",
        help="factor of the vector as it is (default: of one that belongs to a checkpoint, as its file says)",
    )
    parser.add_argument(
        "--approximate",
        action="store_true",
        help="stand in for the relative form: each direction gets C x the mean activation norm of its layer",
    )
    parser.add_argument("--gate", action="store_true", help="with --approximate: stand in for the gated form")
    parser.add_argument(
        "--free-norm", action="store_true", help="with --approximate: stand in for the form that keeps no norms"
    )
    parser.add_argument(
        "--prompts", metavar="S", help="suite or file to measure on (default: a dozen shipped neutral prompts)"
    )
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="folder with local copies of known suites")
    parser.add_argument("--limit", type=int, default=64, metavar="N", help="prompts of --prompts to use (default: 64)")
    parser.add_argument("--device", help="to measure on, such as cpu or cuda:0")
    parser.add_argument("--overwrite", action="store_true", help="replace what is there")
    add_json(parser)


def _run_fit(arguments: argparse.Namespace) -> int:
    from alignmend.activations.vector import SteeringVector
    from alignmend.evaluation.devices import load_model

    if arguments.out.exists() and not arguments.overwrite:
        raise OutputError(f"{arguments.out} exists", advice="choose another name, or --overwrite")
    layers = _layers(arguments.layers)
    model, tokenizer = load_model(arguments.model, arguments.device)
    pairs = _pairs(arguments, model, tokenizer)
    vector = SteeringVector.fit(
        model,
        tokenizer,
        pairs,
        estimator=arguments.estimator,
        last=arguments.last,
        site=arguments.site,
        layers=layers,
        layer_path=arguments.layer_path,
        text=arguments.text,
        unit=arguments.unit,
        batch_size=arguments.batch_size,
    )
    vector.save(arguments.out, overwrite=arguments.overwrite)
    print(json.dumps(_document(vector)) if arguments.json else _text(vector, str(arguments.out)))
    return 0


def _pairs(arguments: argparse.Namespace, model: Any, tokenizer: Any) -> tuple[ContrastPair, ...]:
    from alignmend.activations.pairs import pairs_from_prompts, read_pairs

    if arguments.pairs is not None:
        return read_pairs(arguments.pairs)
    from alignmend.evaluation.generation import TransformersBackend
    from alignmend.evaluation.suites import load_suite

    suite = load_suite(arguments.prompts, data_dir=arguments.data_dir, limit=arguments.limit)
    backend = TransformersBackend(model, tokenizer, name=str(arguments.model), max_new_tokens=64)
    answers = [generation.response for generation in backend.generate(suite.prompts)]
    said = [(prompt.text, answer) for prompt, answer in zip(suite.prompts, answers, strict=True) if answer.strip()]
    if not said:
        raise ParameterError(f"the model answered none of the requests of {arguments.prompts}", advice="give --pairs")
    return pairs_from_prompts([prompt for prompt, _ in said], [answer for _, answer in said])


def _layers(text: str | None) -> list[int] | None:
    """`4-12` and `3,5,7`, ends included."""
    if text is None:
        return None
    layers: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ParameterError(f"--layers are numbers and ranges such as 4-12 or 3,5,7, not {text!r}")
        layers += range(int(first), int(last or first) + 1)
    return layers


def _run_show(arguments: argparse.Namespace) -> int:
    from alignmend.activations.attached import describe, how_applied
    from alignmend.activations.vector import SteeringVector

    vector = SteeringVector.load(arguments.vector)
    how = how_applied(arguments.vector)
    applied = None if how is None else describe(vector, how)
    if arguments.json:
        print(json.dumps({**_document(vector), "applied": applied}))
    else:
        print("\n".join([_text(vector, str(arguments.vector)), *([f"  applied as {applied}"] if applied else [])]))
    return 0


def _run_export(arguments: argparse.Namespace) -> int:
    from alignmend.activations.gguf import export_gguf
    from alignmend.activations.vector import SteeringVector

    if arguments.approximate and arguments.model is None:
        raise ParameterError("--approximate needs --model M: the difference from the form asked for is measured in it")
    vector, form = SteeringVector.load(arguments.vector), asked_form(arguments)
    measuring = None if arguments.model is None else Measuring.of(arguments, vector)
    notes = export_gguf(
        vector,
        arguments.out,
        coefficient=form.coefficient,
        model_hint=arguments.model_hint,
        approximate=arguments.approximate,
        strength=form.strength,
        overwrite=arguments.overwrite,
        measure=None if measuring is None else measuring.of_vector,
    )
    _tell(arguments, "written and read back", notes, measuring)
    return 0


def _run_bake(arguments: argparse.Namespace) -> int:
    from alignmend.activations.bake import bake
    from alignmend.activations.vector import SteeringVector

    vector, form = SteeringVector.load(arguments.vector), asked_form(arguments)
    measuring = None if arguments.no_check else Measuring.of(arguments, vector)
    notes = bake(
        vector,
        arguments.model,
        arguments.out,
        coefficient=form.coefficient,
        approximate=arguments.approximate,
        strength=form.strength,
        overwrite=arguments.overwrite,
        measure=None if measuring is None else measuring.of_folder,
    )
    _tell(arguments, f"{arguments.model} with biases", notes, measuring)
    return 0


def _tell(arguments: argparse.Namespace, what: str, notes: Sequence[str], measuring: Measuring | None) -> None:
    found = None if measuring is None else measuring.found
    if arguments.json:
        told = {"out": str(arguments.out), "approximate": arguments.approximate, "notes": list(notes)}
        print(json.dumps({**told, "measured": None if found is None else asdict(found)}))
    else:
        print("\n".join([f"{arguments.out}: {what}", *(f"  note  {note}" for note in notes)]))


def _document(vector: SteeringVector) -> dict[str, Any]:
    norms = {str(layer): norm for layer, norm in vector.norms.items()}
    return {"sha256": vector.content_hash, "site": vector.site, "norms": norms, "about": dict(vector.about)}


def _text(vector: SteeringVector, name: str) -> str:
    lines = [f"{name}: {len(vector.layers)} layers at {vector.site}, {vector.about.get('pairs', '?')} pairs"]
    lines.append("  layer   norm  of activation  explained  pair cosine  next layer")
    lines += map(_line, vector.about.get("diagnostics", ()))
    return "\n".join([*lines, *(f"  WARNING  {warning}" for warning in vector.about.get("warnings", ()))])


def _line(one: Mapping[str, Any]) -> str:
    cosines = f"{_number(one['pair_cosine']):>12} {_number(one['next_cosine']):>11}"
    lengths = f"{one['norm']:>6.2f} {one['relative_norm']:>14.2f} {one['explained_variance']:>10.2f}"
    return f"  {one['layer']:>5} {lengths} {cosines}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
