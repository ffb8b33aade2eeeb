"""Options for judges that ask a model, shared by commands, and the judges they make."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignmend.errors import RecipeError

if TYPE_CHECKING:
    from alignmend.evaluation.judges import Judge


def add_judge_options(parser: argparse.ArgumentParser, *, endpoint: tuple[str, ...] = ("--judge-endpoint",)) -> None:
    """`--judge`, and what judges that ask a model need; `endpoint` are the names of the option for its address."""
    parser.add_argument(
        "--judge",
        dest="judges",
        default="refusal-phrases",
        metavar="J[,J...]",
        help="one or more judges; the first one's verdicts count (default: refusal-phrases; alignmend list judges)",
    )
    parser.add_argument(
        *endpoint, dest="judge_endpoint", metavar="URL", help="OpenAI-compatible server of judges that ask a model"
    )
    parser.add_argument(
        "--judge-model",
        dest="judge_models",
        action="append",
        default=[],
        metavar="[JUDGE=]M",
        help="model the endpoint serves, or folder or hub id that a judge runs in this process; repeat it with JUDGE= "
        "where several judges need different ones",
    )
    parser.add_argument(
        "--judge-key-variable",
        default="OPENAI_API_KEY",
        metavar="NAME",
        help="environment variable with the endpoint's key (default: OPENAI_API_KEY)",
    )
    parser.add_argument(
        "--judge-reasoning-tags",
        nargs=2,
        action="append",
        default=[],
        metavar=("OPEN", "CLOSE"),
        help="what the judges' model puts around thoughts, where it is none of the usual tags; may be repeated",
    )
    parser.add_argument(
        "--judge-cache",
        type=Path,
        metavar="DIR",
        help="folder for replies already paid for, so that none is asked twice",
    )


def judge_names(arguments: argparse.Namespace) -> list[str]:
    """The names in `--judge`, in order."""
    names = [name.strip() for name in arguments.judges.split(",") if name.strip()]
    if not names:
        raise RecipeError("--judge names no judge; alignmend list judges  shows them")
    return names


def make_judges(
    arguments: argparse.Namespace, *, default_cache: Path | None = None, device: str | None = None
) -> list[Judge]:
    """The judges of `--judge`, each with its options; replies go to `--judge-cache`, else to `default_cache`."""
    from alignmend.api.judges import make_judges as made

    options = judge_keywords(arguments)
    return made(options.pop("judge"), **options | {"cache": arguments.judge_cache or default_cache, "device": device})


def judge_keywords(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the options say, by the keywords of `alignmend.api.judges.make_judges`."""
    names = judge_names(arguments)
    return {
        "judge": names,
        "model": _models(arguments.judge_models, names),
        "endpoint": arguments.judge_endpoint,
        "key_variable": arguments.judge_key_variable,
        "reasoning_tags": arguments.judge_reasoning_tags,
        "cache": arguments.judge_cache,
    }


def _models(given: list[str], names: list[str]) -> dict[str, str]:
    """Judge -> model; under the empty name the model of all others."""
    models: dict[str, str] = {}
    for text in given:
        judge, equals, model = text.partition("=")
        key, value = (judge, model) if equals and judge in names else ("", text)
        if key in models:
            whose = f"judge {key!r}" if key else "all judges"
            raise RecipeError(
                f"--judge-model is given twice for {whose}: {models[key]!r} and {value!r};", advice="use JUDGE=MODEL"
            )
        models[key] = value
    return models
