"""The pages' templates, and what may run in a page: its own style and script, named by their hashes."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from alignmend.errors import missing_extra
from alignmend.report import labels, numbers

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup


def page(template: str, **values: Any) -> str:
    """The page of `template`: one file, without control characters, that no network is asked for."""
    style, script = _resource("report.css"), _resource("report.js")
    policy = (
        f"default-src 'none'; style-src '{_source(style)}'; script-src '{_source(script)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    found = _environment().get_template(template)
    return numbers.clean(found.render(style=style, script=script, policy=policy, **values))


def _source(text: str) -> str:
    """The hash by which a content security policy names an inline style or script."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}"


@cache
def _environment() -> Environment:
    try:
        from jinja2 import Environment, FunctionLoader, StrictUndefined
    except ImportError as error:
        raise missing_extra("jinja2", "report") from error
    environment = Environment(
        loader=FunctionLoader(_resource),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=numbers.percent,
        interval=numbers.interval,
        described=numbers.described,
        points=numbers.points,
        p_value=numbers.p_value,
        two_decimals=numbers.two_decimals,
        with_interval=numbers.with_interval,
        metric_label=labels.metric_label,
        letter=labels.letter,
        heat=heat_class,
        breakable=breakable,
        unbroken=unbroken,
    )
    return environment


def heat_class(value: float) -> str:
    """The style class of a rate's shade, in twenty steps."""
    return f"h{round(20 * value)}"


def breakable(name: str) -> Markup:
    """A name, escaped, that may be broken after `_`, `/` and `-` where it does not fit."""
    from markupsafe import Markup, escape

    return Markup(re.sub("([_/-])", r"\1<wbr>", str(escape(name))))


def unbroken(text: str) -> str:
    """`text` whose words with a hyphen stay on one line."""
    return re.sub(r"(?<=\w)-(?=\w)", "\N{NON-BREAKING HYPHEN}", text)


@cache
def _resource(name: str) -> str:
    return (files("alignmend.report") / "templates" / name).read_text(encoding="utf-8")
