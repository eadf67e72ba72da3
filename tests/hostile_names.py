"""Names that labels, models, files and errors may have, made to steer a terminal, a page or a spreadsheet."""

import re

EVIL = "\x1b]0;owned\x07\x1b[2Jcat\r\x9b31m\u202egnp.exe"
NAMES = {
    "escapes": EVIL,
    "a link": "\x1b]8;;https://example.org\x1b\\click\x1b]8;;\x1b\\",
    "the clipboard": "\x1b]52;c;cm0gLXJmIC8=\x07",
    "a script": "</td><script>alert(1)</script><!--",
    "an attribute": "\" onmouseover='alert(1)' x=\"",
    "markup": "[bold]x[/] [/] [link=https://example.org]y",
    "an open bracket": "[bold",
    "a backslash": "trailing\\",
    "an emoji's name": ":smile:",
    "markdown": "a|b `code` [x](javascript:alert(1)) ![y](https://example.org/z)\n# heading\n```",
    "a template": "{{ 7 * 7 }} {% raw %} ${jndi:ldap://x}",
    "a formula": "=cmd|' /C calc'!A1",
    "another formula": '@SUM(1+1)*cmd|"/C calc"!A1',
    "right to left": "\u202ecod.exe\u2066\u2067\u200f",
    "NUL": "a\x00b",
    "half a character": "\ud83d",
    "mathematics": "$\\frac{1}{0}$ $",
    "long": "x" * 10_000,
    "combining": "e" + "\u0301" * 500,
    "many lines": "a\r\nb\x0bc\x0cd\x85e\u2028f\u2029g",
    "a wide one": "日本語 🐈‍⬛ ﷽",
    "none": "",
    "blanks": " \t ",
}
# But for the line feed, which is ours in what is printed.
_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def steering(text: str) -> list[str]:
    """Which of a text's characters steer a terminal, or turn its direction."""
    return _STEERING.findall(text)
