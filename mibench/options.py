"""What an option may be: the type and the range that a field's annotation states, checked and said in words."""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

from mibench.errors import UserError, nearest


@dataclass(frozen=True)
class Range:
    """What an annotated number must satisfy besides its type.

    Attributes:
        words: How it is said behind the type: ``of at least 1``.
        holds: Whether a number satisfies it; false for NaN.
    """

    words: str
    holds: Callable[[float], bool]


#: A whole number of things there must be one of.
Count = Annotated[int, Range("of at least 1", lambda value: value >= 1)]

#: A whole number of things there may be none of.
CountOrNone = Annotated[int, Range("of at least 0", lambda value: value >= 0)]

Positive = Annotated[float, Range("above 0", lambda value: 0 < value < float("inf"))]

NonNegative = Annotated[float, Range("of at least 0", lambda value: 0 <= value < float("inf"))]

#: Seconds that a timer of the machine can count: up to 31 years.
Seconds = Annotated[float, Range("above 0 and at most 1e9", lambda value: 0 < value <= 1e9)]

#: Threads of the processor.
Threads = Annotated[int, Range("from 1 to 4096", lambda value: 1 <= value <= 4096)]

#: A share that leaves something on both sides.
Share = Annotated[float, Range("between 0 and 1", lambda value: 0 < value < 1)]

#: A share that may be the whole.
Portion = Annotated[float, Range("above 0 and at most 1", lambda value: 0 < value <= 1)]

#: A share that may be none or the whole.
Fraction = Annotated[float, Range("from 0 to 1", lambda value: 0 <= value <= 1)]

#: A factor by which something decays.
Decay = Annotated[float, Range("from 0 to below 1", lambda value: 0 <= value < 1)]

#: A number of things there must be two of, one to train on and one to test on.
Several = Annotated[int, Range("of at least 2", lambda value: value >= 2)]

#: Channels of an image: grey or colour.
Channels = Annotated[int, Range("that is 1 or 3", lambda value: value in (1, 3))]

Digit = Annotated[int, Range("from 0 to 9", lambda value: 0 <= value <= 9)]

NAMES: Mapping[Any, tuple[str, str]] = {
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    bool: ("true or false", "true or false"),
    str: ("a word", "words"),
    Path: ("a path", "paths"),
    type(None): ("null", "null"),
}


T = TypeVar("T")


def option(default: T, *, since: int) -> T:
    """Return the default of an option that was added in revision ``since`` of its component.

    A component whose option stands at this default is the component of before: the option is then left out of every
    identity and key.
    """
    field: T = dataclasses.field(default=default, metadata={"since": since})
    return field


@typing.dataclass_transform(kw_only_default=True, eq_default=False, field_specifiers=(dataclasses.field, option))
class Options:
    """A component whose options are dataclass fields: their types and ranges hold wherever it is made.

    A subclass is made a dataclass with keyword-only fields as it is defined, unless it has a constructor of its own.
    Each option is an annotated field with a docstring below it, and what follows from options is set in
    ``__post_init__``, after that of this class; what is neither an option nor set there is a ``ClassVar``. A field
    whose option bears the name of a method ends in an underscore (``loss_``), which the configuration does not write.

    Attributes:
        block: The key below which the options stand in a configuration, for messages.

    Raises:
        UserError: If an option has a value that its annotation does not allow.
    """

    block: ClassVar[str] = "options"

    def __init_subclass__(cls, **words: Any) -> None:
        """Make the subclass a dataclass."""
        super().__init_subclass__(**words)
        if "__init__" not in vars(cls):
            dataclass(kw_only=True, eq=False)(cls)

    def __post_init__(self) -> None:
        """Check every option against its annotation."""
        component: type = type(self)
        for name, kind in field_types(component).items():
            check_value(f"{self.block}.{name.rstrip('_')}", kind, getattr(self, name))


@cache
def field_types(component: type) -> dict[str, Any]:
    """Return the annotation of every field that a dataclass is made with, by name."""
    hints = typing.get_type_hints(component, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(component) if field.init}


def arguments(component: type, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that a component is made with for options as the configuration writes them."""
    names = field_types(component) if dataclasses.is_dataclass(component) else {}
    return {f"{name}_" if f"{name}_" in names else name: value for name, value in options.items()}


@cache
def expected_types(component: type) -> dict[str, Any]:
    """Return the annotation of every option of a component, by name: its fields, or its constructor's arguments."""
    own = vars(component)
    if dataclasses.is_dataclass(component) and ("__dataclass_params__" in own or "__init__" not in own):
        return {name.rstrip("_"): kind for name, kind in field_types(component).items()}
    constructor = own.get("__init__") or component.__init__  # type: ignore[misc]
    hints = typing.get_type_hints(constructor, include_extras=True)
    return {name: hints.get(name, Any) for name in inspect.signature(component).parameters if name != "spec"}


def check_types(block: str, component: type, options: Any) -> None:
    """Refuse options that a component does not have, or whose values its annotations do not allow.

    Args:
        block: The key below which the options stand (``attack``).
        component: The class.
        options: The options.

    Raises:
        UserError: Naming the option, what it should be and what it is.
    """
    if not isinstance(options, Mapping):
        raise UserError(
            f"Expected {block} to be a block of options, but got '{shown(options)}'; set them one by one with "
            f"{block}.OPTION=VALUE."
        )
    expected = expected_types(component)
    for name, value in options.items():
        if name not in expected:
            hint = nearest(str(name), expected, f"it has {', '.join(expected) or 'none'}.")
            raise UserError(f"{block} has no option '{name}'; {hint}")
        check_value(f"{block}.{name}", expected[name], value)


def check_value(key: str, kind: Any, value: Any) -> None:
    """Refuse a value that an annotation does not allow.

    Raises:
        UserError: Naming the key, what it should be and what it is.
    """
    if not fits(value, kind):
        short = " of at most 64 bits" if isinstance(value, int) and not -(2**63) <= value < 2**63 else ""
        raise UserError(f"Expected {key} to be {in_words(kind)}{short}, but got '{shown(value)}'.")


def fits(value: Any, kind: Any) -> bool:
    """Whether a value read from yaml can stand for an annotated type.

    Whole numbers of at most 64 bits, which a table can hold, are floats too, and strings are paths.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return True
    if origin is Annotated:
        return fits(value, arguments[0]) and all(one.holds(value) for one in arguments[1:] if isinstance(one, Range))
    if origin is typing.Union or origin is types.UnionType:
        return any(fits(value, one) for one in arguments)
    if origin is typing.Literal:
        return isinstance(value, str) and value in arguments
    if origin is not None and issubclass(origin, Sequence):
        item = arguments[0] if arguments else Any
        return isinstance(value, list | tuple) and all(fits(one, item) for one in value)
    if origin is not None:
        return isinstance(value, origin)
    if kind is float or kind is int:
        whole = isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63
        return whole or (kind is float and isinstance(value, float))
    if kind is Path:
        return isinstance(value, str | Path)
    return isinstance(value, kind)


def in_words(kind: Any, plural: bool = False) -> str:
    """Return an annotated type as a person would say it.

    >>> in_words(Count | None), in_words(Sequence[int])
    ('a whole number of at least 1 or null', 'a list of whole numbers')
    >>> in_words(typing.Literal["never", "failed", "always"])
    'never, failed or always'
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind in NAMES:
        return NAMES[kind][plural]
    if origin is Annotated:
        return " ".join([in_words(arguments[0], plural), *(one.words for one in arguments[1:])])
    if origin is typing.Union or origin is types.UnionType:
        paths = Path in arguments  # a path may be given as a string too, which needs no saying
        return " or ".join(in_words(one, plural) for one in arguments if not (paths and one is str))
    if origin is typing.Literal:
        *first, last = map(str, arguments)
        return f"{', '.join(first)} or {last}" if first else last
    if origin is not None and issubclass(origin, Sequence):
        item = in_words(arguments[0], plural=True) if arguments else "values"
        return f"{'lists' if plural else 'a list'} of {item}"
    return "blocks of options" if plural else "a block of options"


def shown(value: Any) -> str:
    """Return a value as it is written on the command line, cut where it is long."""
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
