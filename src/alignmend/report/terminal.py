"""The main table for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from alignmend.report.labels import Column, columns, model_label, split_name
from alignmend.report.numbers import clean, percent


def table(results: Mapping[str, Any]) -> Table:
    """A rich table of every model's rates with their intervals; nothing is printed."""
    models = results["models"]
    shown = columns(models)
    title = "95% Wilson intervals below each rate, in percent"
    built = Table(title=title, title_style="dim", title_justify="left", padding=0, box=box.SIMPLE_HEAD)
    built.add_column("model", no_wrap=True)
    for column in shown:
        words = column.label.replace("-", "-\n").split(" ")
        longest = max(len(part) for word in words for part in word.split("\n"))
        built.add_column(" ".join(words), justify="right", min_width=longest)
    for model, suites in models.items():
        style = "bold" if split_name(model)[0] == "restored" else ""
        name = Text(clean(model_label(model, models)), style=style)
        built.add_row(name, *(_cell(column, column.rate(suites)) for column in shown))
    return built


def _cell(column: Column, rate: Mapping[str, Any] | None) -> Text:
    if rate is None:
        return Text("n/a", style="dim")
    value = rate["value"] if column.higher_is_better else 1 - rate["value"]
    colour = "green" if value >= 0.85 else "yellow" if value >= 0.5 else "red"
    return Text.assemble(
        (percent(rate["value"]), colour), "\n", (f"{100 * rate['low']:.0f}–{100 * rate['high']:.0f}", "dim")
    )
