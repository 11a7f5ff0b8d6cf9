"""Escape: names, labels and reasons as plain text in each output, so that none of them acts there."""

import logging
import re
import unicodedata
from hashlib import sha256
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Control characters, and those that change the direction of writing; tab and line feed are none of them."""
LINE_BREAKS = re.compile(r"[\r\n\v\f\x85\u2028\u2029]+")
MARKDOWN = re.compile(r"[\\`*|$]|(?<![^\W_])_|_(?![^\W_])|~(?=~)|\](?=[(\[:])")
"""What Markdown would read as code, emphasis, a column, a formula or a link."""
HTML = re.compile(r"<(?=[A-Za-z/!?])|&(?=#?\w+;)")
"""Where a tag or a character reference would begin."""
ENTITIES = {"<": "&lt;", "&": "&amp;"}
LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    **{"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"},
    **{"±": r"$\pm$", "·": r"$\cdot$", "≤": r"$\le$", "≥": r"$\ge$", "→": r"$\to$", "λ": r"$\lambda$", "β": r"$\beta$"},
    **{"\u00d7": r"$\times$", "\u2212": "$-$", "\u03b1": r"$\alpha$", "\u03c3": r"$\sigma$"},
    **{"\u2013": r"\textendash{}", "\u2014": r"\textemdash{}", "…": r"\dots{}", "ß": r"\ss{}", "ø": r"\o{}"},
}
"""What pdfLaTeX would not print as it is, with its default encoding of fonts."""
ACCENTS = {
    **{"\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0304": "=", "\u0307": ".", "\u0308": '"'},
    **{"\u0306": "u", "\u030a": "r", "\u030b": "H", "\u030c": "v", "\u0327": "c"},
}
"""By combining character: the LaTeX command of the accent."""
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""First characters by which a spreadsheet knows a formula."""


def terminal(text: str) -> str:
    r"""Return `text` with its control characters written out, such as `\x1b`; line breaks stay."""
    return CONTROLS.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def one_line(text: str) -> str:
    """Return `text` as one line without control characters."""
    return terminal(LINE_BREAKS.sub(" ", text))


def markdown(text: str) -> str:
    """Return `text` as one line of Markdown, also within a table, that shows it as it is."""
    escaped = MARKDOWN.sub(lambda match: f"\\{match[0]}", one_line(text))
    return HTML.sub(lambda match: ENTITIES[match[0]], escaped)


def latex(text: str) -> str:
    """Return `text` as one line that pdfLaTeX prints; the command before it reads no leading `[` or `*` as its option.

    A character that it has no sign for, such as an emoji, is written as its code: `[U+1F600]`.
    """
    line = one_line(text).replace("<=", "≤").replace(">=", "≥")
    written = "".join(map(_latex_character, line)).replace("--", "-{}-")
    return f"{{}}{written}" if written.startswith(("[", "*")) else written


def _latex_character(character: str) -> str:
    if character in LATEX or character.isascii():
        return LATEX.get(character, character)
    parts = unicodedata.normalize("NFD", character)
    if len(parts) == 2 and parts[0].isascii() and parts[1] in ACCENTS:
        return f"\\{ACCENTS[parts[1]]}{{{parts[0]}}}"
    return f"[U+{ord(character):04X}]"


def figure(text: str) -> str:
    """Return `text` as one line that matplotlib does not read as a formula."""
    return one_line(text).replace("$", r"\$")


def csv(frame: "pd.DataFrame") -> str:
    """Return `frame` as CSV without its index; a spreadsheet computes no text of it (see `csv_entry`)."""
    import pandas as pd  # noqa: PLC0415 - slow to import; messages need this module, too

    safe = frame.rename(columns=csv_entry)
    for position, kind in enumerate(safe.dtypes):
        if kind.kind == "O":
            column = [csv_entry(value) for value in safe.iloc[:, position].tolist()]
            safe.isetitem(position, pd.Series(column, dtype=object).to_numpy())
    return str(safe.to_csv(index=False))


def csv_entry(value: Any) -> Any:
    """Return `value`; a text that begins like a formula and is no number gets an apostrophe in front."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) and not is_number(value) else value


def is_number(text: str) -> bool:
    """Return whether `text` is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def shortened(text: str, longest: int) -> str:
    """Return `text` in at most `longest` characters; the end of a longer one becomes 8 digits of its hash."""
    digest = sha256(text.encode()).hexdigest()[:8]
    return text if len(text) <= longest else f"{text[: longest - 9]}-{digest}"


class PlainFormatter(logging.Formatter):
    """Formatter of log lines for a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the lines of `record` without control characters."""
        return terminal(super().format(record))
