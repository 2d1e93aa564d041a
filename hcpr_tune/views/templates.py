"""Jinja2's environments. Every value is escaped, and a name that was not given is an error."""

from __future__ import annotations

import html
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup


@lru_cache(maxsize=1)
def html_environment() -> Environment:
    """The templates of the report's package. `verbatim(name)` is the text of a file among them.

    Filter `parts`: a dotted name cut after each dot and underscore, where a narrow page may break it. Filter `whole`: a
    short text that is broken only before an interval.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("hcpr_tune.views.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

    def verbatim(name: str) -> Markup:
        assert environment.loader is not None
        return Markup(environment.loader.get_source(environment, name)[0])

    environment.globals["verbatim"] = verbatim
    environment.filters["whole"] = lambda text: re.sub(r" (?!\()", "\N{NO-BREAK SPACE}", str(text))
    environment.filters["parts"] = lambda name: re.findall(r"[^._]*[._]|[^._]+", str(name)) or [str(name)]
    return environment


@lru_cache(maxsize=4)
def markdown_environment(package: str) -> Environment:
    """The Markdown templates in the folder `templates` of `package`. Filter `cell`: a value in a table."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    def escaped(value: Any) -> Markup:
        """Quotation marks stay as they are, unlike in HTML."""
        return value if isinstance(value, Markup) else Markup(plain_text(str(value)))

    environment = Environment(
        loader=PackageLoader(package),
        autoescape=True,
        finalize=escaped,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["cell"] = lambda value: Markup(plain_text(str(value)).replace("|", "\\|"))
    return environment


def plain_text(text: str) -> str:
    """Text on one line of Markdown, with HTML escaped, which many viewers let through.

    Replaces what cannot be encoded, as folder names may contain any bytes.
    """
    return html.escape(" ".join(text.split()), quote=False).encode("utf-8", "replace").decode("utf-8")
