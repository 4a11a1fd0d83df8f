"""JSON in the one form that can be hashed and signed (RFC 8785), and strict reading of any form.

Imports no room; `unface.audit` hands it on to every room.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, NoReturn

_MOST_INTEGER = 2**53 - 1  # RFC 7493, section 2.2: what a double holds exactly
_MOST_DIGITS = 21  # before the point; ECMA-262, Number::toString, writes more with an exponent


def canonical(value: Any) -> bytes:
    """Return values of JSON as RFC 8785 writes them.

    Keys are sorted by their UTF-16 code units (section 3.2.3), nothing stands between tokens
    (3.2.1), and numbers are ECMAScript's (3.2.2.3): as few digits as give the same double, such as
    20, 0.709 and 1e-7. Raises `ValueError` for what JSON or a double cannot hold, lone surrogates
    among it.
    """
    return _text(value).encode()


def parse(data: bytes) -> Any:
    """Return the values in JSON (RFC 8259) as UTF-8, reading it strictly.

    Raises `ValueError` for what is no JSON, for NaN and infinity, for numbers beyond a double, for
    names that come twice in one object, and for values too deep in one another.
    """
    try:
        text = data.decode()
        return json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_no_number,
            parse_int=_integer,
            parse_float=_float,
        )
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except UnicodeDecodeError as error:
        raise ValueError("it is not UTF-8") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"it is no JSON (line {error.lineno}: {error.msg})") from error


def _text(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, (int, float)):
        return _number(value)
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(_text, value))}]"
    if isinstance(value, Mapping):
        names = sorted(value, key=_units)
        return f"{{{','.join(f'{_text(name)}:{_text(value[name])}' for name in names)}}}"
    raise ValueError(f"JSON has no {type(value).__name__}")


def _units(name: Any) -> bytes:
    if not isinstance(name, str):
        raise ValueError(f"JSON has no names that are {type(name).__name__}")
    return name.encode("utf-16-be")


def _number(value: float) -> str:
    """Return a number by ECMA-262, Number::toString; integers must be exact in a double."""
    if isinstance(value, int) and abs(value) > _MOST_INTEGER:
        raise ValueError("an integer is beyond what a double holds exactly")
    if not math.isfinite(value):
        raise ValueError(f"JSON has no {value}")
    if not value:
        return "0"
    # `repr` has as few digits as give the same double, of those the nearest: ECMAScript's choice.
    shortest = repr(float(value))
    if "e" not in shortest and not shortest.endswith(".0"):
        return shortest
    parts = Decimal(shortest).normalize().as_tuple()
    digits, sign = "".join(map(str, parts.digits)), "-" * parts.sign
    point = len(digits) + int(parts.exponent)  # digits before it
    if len(digits) <= point <= _MOST_DIGITS:
        return sign + digits.ljust(point, "0")
    if 0 < point <= _MOST_DIGITS:
        return f"{sign}{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    fraction = "." + digits[1:] if len(digits) > 1 else ""
    return f"{sign}{digits[0]}{fraction}e{point - 1:+d}"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name comes twice in one object")
    return found


def _integer(text: str) -> float:
    number = _float(text)  # also bounds the digits, which `int` takes its time for
    return int(text) if abs(number) <= _MOST_INTEGER else number


def _float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is beyond a double")
    return number


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")
