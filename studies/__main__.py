"""`python -m studies [NAME...]`: run studies and write their pages into docs/studies/."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from alignmend.errors import AlignmendError
from studies import comparison, judges, real, resta, safepatching, safety_arithmetic
from studies.real.scale import FULL, QUICK

STUDIES = {
    resta.NAME: resta.run,
    safety_arithmetic.NAME: safety_arithmetic.run,
    safepatching.NAME: safepatching.run,
    comparison.NAME: comparison.run,
}
JUDGES = "judges"
"""Rewrites the tables of docs/judges.md from local copies of labelled answers; only where it is named."""
REAL = {
    real.NAME: real.run,
    f"{real.NAME}-screening": real.run_screening,
    f"{real.NAME}-safety-arithmetic": real.run_safety_arithmetic,
    f"{real.NAME}-safepatching": real.run_safepatching,
}
"""On a pretrained chat model."""
BY_NAME = (JUDGES, *REAL)


def main() -> None:
    """Run the studies named, or all that need nothing but the project."""
    parser = argparse.ArgumentParser(prog="python -m studies", description=__doc__)
    parser.add_argument(
        "names", nargs="*", choices=[*STUDIES, *BY_NAME, []], help="which; all that train organisms if left out"
    )
    parser.add_argument("--seeds", type=int, default=3, help="families to train, seeds 0, 1, ... (default: 3)")
    parser.add_argument("--size", choices=["small", "base"], default="base")
    parser.add_argument("--work", type=Path, default=Path("studies/work"), help="models are kept here and found again")
    parser.add_argument("--pages", type=Path, default=Path("docs/studies"))
    parser.add_argument("--judges-page", type=Path, default=Path("docs/judges.md"))
    _add_real(parser.add_argument_group("real, on a pretrained chat model"))
    arguments = parser.parse_args()
    arguments.pages.mkdir(parents=True, exist_ok=True)
    for name in arguments.names or STUDIES:
        if name == JUDGES:
            judges.write(arguments.judges_page)
            print(f"{JUDGES}: wrote {arguments.judges_page}")
            continue
        page = _real(name, arguments) if name in REAL else _on_organisms(name, arguments)
        path = arguments.pages / f"{name}.md"
        path.write_text(page, encoding="utf-8")
        print(f"{name}: wrote {path}")


def _add_real(group: argparse._ArgumentGroup) -> None:
    how = group.add_mutually_exclusive_group()
    how.add_argument("--quick", dest="scale", action="store_const", const=QUICK, default=QUICK, help="the default")
    how.add_argument("--full", dest="scale", action="store_const", const=FULL, help="everything: many hours")
    group.add_argument(
        "--data-dir", type=Path, default=judges.data_folder(), help="local copies of published sets (or ALIGNMEND_DATA)"
    )
    group.add_argument("--model", type=Path, help="a chat model's folder instead of the one that pip fetches")


def _on_organisms(name: str, arguments: argparse.Namespace) -> str:
    return STUDIES[name](arguments.work, seeds=range(arguments.seeds), size=arguments.size, pages=arguments.pages)


def _real(name: str, arguments: argparse.Namespace) -> str:
    try:
        return REAL[name](real.Setting(arguments.work, arguments.scale, arguments.data_dir, arguments.model))
    except AlignmendError as error:
        sys.exit(f"{name}: {error}")


if __name__ == "__main__":
    main()
