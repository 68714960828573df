"""Letters of any script on a picture sheet: fonts that have them, and plain letters in their place where none has.

Pillow's own font has the letters of ASCII. Further fonts are those of ``mibench[fonts]``, matplotlib's and a few of the
system, where they are there.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import math
import unicodedata
from collections.abc import Iterator
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import ImageDraw, ImageFont

    Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

#: Height of letters in pixels, and of a line of them.
SIZE, LINE = 14, 18

#: The weight of a font of many weights.
REGULAR = 400

#: Distributions that hold fonts of many scripts (the extra ``fonts``).
PACKAGES = ("manimgx-fonts", "manimgx-fonts-cjk")

#: Where systems keep fonts, and names of files among them that have many letters.
FOLDERS = ("/usr/share/fonts", "~/.local/share/fonts", "~/.fonts", "/Library/Fonts", "/System/Library/Fonts",
           "C:/Windows/Fonts")  # fmt: skip
WIDE = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "NotoSansCJK-Regular.ttc", "Arial Unicode.ttf", "unifont.ttf",
        "unifont.otf", "msyh.ttc", "malgun.ttf", "wqy-zenhei.ttc")  # fmt: skip

#: A letter that no font has, whose picture says that a letter is missing.
MISSING = "\uffff"

#: Kinds of characters that belong to what stands before them: marks, joiners, spaces.
BELONGS = ("Mn", "Mc", "Me", "Cf", "Zs")


def font_files() -> Iterator[Path]:
    """Yield the files of fonts beyond Pillow's own, those of many letters first."""
    for name in PACKAGES:
        try:
            files = importlib.metadata.files(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        fonts = [file for file in files if file.suffix in (".ttf", ".otf", ".ttc") and "Italic" not in file.name]
        for file in sorted(fonts, key=lambda file: (not file.name.startswith("NotoSans["), file.name)):
            yield Path(str(file.locate()))
    if (found := importlib.util.find_spec("matplotlib")) is not None and found.origin:
        yield Path(found.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
    for folder in FOLDERS:
        for wide in WIDE:
            yield from Path(folder).expanduser().rglob(wide)


@cache
def own_font() -> Font:
    """Return Pillow's own font."""
    from PIL import ImageFont

    return ImageFont.load_default(SIZE)


@cache
def further_fonts() -> tuple[Font, ...]:
    """Return the other fonts that are there; they are looked for where a letter needs one."""
    from PIL import ImageFont

    fonts: list[Font] = []
    for file in font_files():
        try:
            font = ImageFont.truetype(str(file), SIZE - 1)
        except OSError:
            continue
        with contextlib.suppress(OSError, NotImplementedError, ValueError):  # of one weight alone
            font.set_variation_by_axes([REGULAR, *(axis["default"] or 0 for axis in font.get_variation_axes()[1:])])
        fonts.append(font)
    return tuple(fonts)


@cache
def has(font: Font, letter: str) -> bool:
    """Return whether a font has a letter."""
    if letter.isascii() or unicodedata.category(letter) in BELONGS:
        return True
    drawn, missing = font.getmask(letter), font.getmask(MISSING)
    return (bytes(drawn), drawn.size) != (bytes(missing), missing.size)


def is_plain(text: str) -> bool:
    """Return whether Pillow's own font has all of a text."""
    return text.isascii() or all(has(own_font(), letter) for letter in text if letter != "\n")


def spelled(letter: str) -> str:
    """Return a letter in those of ASCII, or as its number where nobody knows how.

    >>> spelled("é")
    'e'
    """
    if plain := unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode().strip():
        return plain
    try:
        from anyascii import anyascii
    except ModuleNotFoundError:
        return f"U+{ord(letter):04X} "
    return str(anyascii(letter)) or f"U+{ord(letter):04X} "


def runs(line: str) -> list[tuple[Font, str]]:
    """Return a line in parts with the font of each; letters that no font has are spelled in others.

    A word is in one font where one has all of it.
    """
    parts: list[tuple[Font, str]] = []
    for space, letters in groupby(unicodedata.normalize("NFC", line), str.isspace):
        word = "".join(letters)
        if space and parts:
            parts.append((parts[-1][0], word))
            continue
        fonts = (own_font(),) if is_plain(word) else (own_font(), *further_fonts())
        whole = next((font for font in fonts if all(has(font, letter) for letter in word)), None)
        if whole is not None:
            parts.append((whole, word))
            continue
        for letter in word:
            font = next((font for font in fonts if has(font, letter)), None)
            parts.append((own_font(), spelled(letter)) if font is None else (font, letter))
    return [(font, "".join(text for _, text in same)) for font, same in groupby(parts, lambda part: part[0])]


def width_of(ruler: ImageDraw.ImageDraw, line: str) -> float:
    """Return how many pixels wide a line is."""
    if is_plain(line):
        return ruler.textlength(line, font=own_font())
    return sum(ruler.textlength(text, font=font) for font, text in runs(line))


def height_of(ruler: ImageDraw.ImageDraw, text: str) -> int:
    """Return how many pixels high a text of several lines is."""
    if is_plain(text):
        return math.ceil(ruler.multiline_textbbox((0, 0), text, font=own_font())[3])
    return LINE * (text.count("\n") + 1)


def write(
    pen: ImageDraw.ImageDraw, place: tuple[int, int], text: str, fill: str | tuple[int, int, int], middle: bool = False
) -> None:
    """Draw a text of several lines.

    Args:
        pen: Draws on the sheet.
        place: The left upper corner, or with ``middle`` the left end of the middle line.
        text: The text.
        fill: Its colour.
        middle: What ``place`` is.
    """
    left, top = place
    if is_plain(text):
        pen.multiline_text((left, top), text, fill=fill, font=own_font(), anchor="lm" if middle else "la")
        return
    lines = text.split("\n")
    top -= len(lines) * LINE // 2 if middle else 0
    for number, line in enumerate(lines):
        at = float(left)
        for font, part in runs(line):
            pen.text((at, top + number * LINE + SIZE), part, fill=fill, font=font, anchor="ls")
            at += pen.textlength(part, font=font)
