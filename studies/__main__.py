"""`python -m studies [NAME...]`: run studies and write their pages into docs/studies/."""

from __future__ import annotations

import argparse
from pathlib import Path

from studies import comparison, judges, resta, safepatching, safety_arithmetic

STUDIES = {
    resta.NAME: resta.run,
    safety_arithmetic.NAME: safety_arithmetic.run,
    safepatching.NAME: safepatching.run,
    comparison.NAME: comparison.run,
}
JUDGES = "judges"
"""Rewrites the tables of docs/judges.md from local copies of labelled answers; only where it is named."""


def main() -> None:
    """Run the studies named, or all."""
    parser = argparse.ArgumentParser(prog="python -m studies", description=__doc__)
    parser.add_argument(
        "names", nargs="*", choices=[*STUDIES, JUDGES, []], help="which; all that train models if left out"
    )
    parser.add_argument("--seeds", type=int, default=3, help="families to train, seeds 0, 1, ... (default: 3)")
    parser.add_argument("--size", choices=["small", "base"], default="base")
    parser.add_argument("--work", type=Path, default=Path("studies/work"), help="models are kept here and found again")
    parser.add_argument("--pages", type=Path, default=Path("docs/studies"))
    parser.add_argument("--judges-page", type=Path, default=Path("docs/judges.md"))
    arguments = parser.parse_args()
    if JUDGES in arguments.names:
        judges.write(arguments.judges_page)
        print(f"{JUDGES}: wrote {arguments.judges_page}")
        arguments.names.remove(JUDGES)
        if not arguments.names:
            return
    arguments.pages.mkdir(parents=True, exist_ok=True)
    for name in arguments.names or STUDIES:
        page = STUDIES[name](arguments.work, seeds=range(arguments.seeds), size=arguments.size, pages=arguments.pages)
        path = arguments.pages / f"{name}.md"
        path.write_text(page, encoding="utf-8")
        print(f"{name}: wrote {path}")


if __name__ == "__main__":
    main()
