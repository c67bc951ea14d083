"""HTML and SVG as text, in which nothing goes unescaped but what `tag` has made."""

import html
import json
from typing import Any


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def tag(name: str, /, *children: Any, **attributes: Any) -> Markup:
    """An element; children are Markup as it is and other things as text, None left out.

    Attributes: `class_` for class, `aria_label` for aria-label; None and False are left out, True has no value.
    """
    head = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape("" if value is True else str(value))}"'
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in _VOID and not children:
        return Markup(f"<{name}{head}/>")
    return Markup(f"<{name}{head}>{join(*children)}</{name}>")


def join(*children: Any) -> Markup:
    return Markup("".join(c if isinstance(c, Markup) else html.escape(str(c)) for c in children if c is not None))


def data(value: Any, **attributes: Any) -> Markup:
    """JSON for a script to read; nothing in it can end the element."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    text = text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return tag("script", Markup(text), type="application/json", **attributes)


# Those that a page holds; the parts of an SVG may be empty as well.
_VOID = {"meta", "br", "path", "line", "rect"}
