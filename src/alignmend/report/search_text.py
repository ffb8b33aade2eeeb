"""What a search found, as a table for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from alignmend.report.numbers import clean, percent
from alignmend.report.search_view import asked, broken_names, front, references

CHOSEN = "▸"
MOST_ROWS = 16
_COLUMNS = ("attack\nsuccess", "over-\nrefusal", "utility", "inco-\nherent")


def front_table(search: Mapping[str, Any]) -> Table:
    """A rich table of the fine-tune and the Pareto front of a `search` block; the chosen row is marked.

    What breaks a limit is marked with `!` and named in the last column. Of a long front the safest are shown.
    """
    every = front(search)
    shown = [one for place, one in enumerate(every) if place < MOST_ROWS or one["number"] == search["chosen"]]
    built = Table(
        title=f"on search prompts: {asked(search)}",
        title_style="dim",
        title_justify="left",
        padding=0,
        box=box.SIMPLE_HEAD,
    )
    built.caption, built.caption_justify = (
        _caption(len(every) - len(shown), any_chosen=search["chosen"] is not None),
        "left",
    )
    built.add_column("", width=1)
    built.add_column("candidate", overflow="fold", min_width=29)
    for name in _COLUMNS:
        built.add_column(name, justify="right")
    built.add_column("limits", min_width=12)
    for name, worth in references(search):
        built.add_row("", Text(name, style="dim"), *_cells(worth, ()), "")
    for one in shown:
        _add(built, one, chosen=one["number"] == search["chosen"])
    return built


def _caption(more: int, *, any_chosen: bool) -> str:
    left_out = f"; {more} more of the front have more attack success" if more else ""
    return f"{f'{CHOSEN} chosen, ' if any_chosen else ''}! beyond its limit{left_out}"


def _add(built: Table, one: Mapping[str, Any], *, chosen: bool) -> None:
    broken = broken_names(one)
    said = Text("breaks\n" + ",\n".join(broken), style="red") if broken else Text("kept", style="green")
    name = Text(clean(one["label"]), style="bold" if chosen else "")
    built.add_row(CHOSEN if chosen else "", name, *_cells(one["worth"], broken), said)


def _cells(worth: Mapping[str, Any], broken: Sequence[str]) -> list[Text]:
    """Attack success with what it shares with refusals, and with noise, which counts against a candidate too."""
    noise, partial = worth["noise"]["value"], worth["partial"]["value"]
    attack = Text(percent(worth["attack_success"]["value"]))
    if partial:
        attack.append(f"\n{percent(partial)} declined\nin part", style="dim")
    if noise:
        attack.append(f"\n+{percent(noise)} noise", style="dim")
    shown = (
        ("over-refusal", percent(worth["over_refusal"]["value"])),
        ("utility", f"{worth['utility']:.3f}"),
        ("incoherent", percent(worth["incoherent"]["value"])),
    )
    return [
        attack,
        *(Text(f"{text}!", style="red") if name in broken else Text(f"{text} ") for name, text in shown),
    ]
