"""Reading a service's settings, and saying in one line what is wrong with them."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from difflib import get_close_matches
from typing import TypeVar

from pydantic import SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsError

# sysexits.h EX_CONFIG; systemd's RestartPreventExitStatus= can name it, since a restart does not mend a setting.
EXIT_CONFIGURATION = 78

# WAKER_INTERVALS is nearly WAKER_INTERVAL_S; HOSTNAME is not nearly HOST.
_NEARLY = 0.87

_NAME_OF_FIELD = re.compile(r'field "(\w+)"')

S = TypeVar("S", bound=BaseSettings)


def load_settings(kind: type[S]) -> S:
    """The settings from the environment.

    Raises:
        SystemExit: with `EXIT_CONFIGURATION`, after one line on stderr that names each wrong variable. The values are
            not printed: some are secret.
    """
    for mistake in misspelt(kind, os.environ):
        sys.stderr.write(f"configuration: {mistake}\n")
    try:
        return kind()
    except ValidationError as error:
        wrong = describe(error)
    except SettingsError as error:
        # A variable for a list or an object holds JSON, which is read before anything is validated.
        name = _NAME_OF_FIELD.search(str(error))
        wrong = f"{name.group(1).upper()}: not valid JSON" if name else str(error)
    sys.stderr.write(f"configuration: {' '.join(wrong.split())}\n")
    raise SystemExit(EXIT_CONFIGURATION)


def misspelt(kind: type[BaseSettings], names: Iterable[str]) -> list[str]:
    """A sentence for each name that is none of the variables but nearly one: it would be ignored in silence."""
    known = [field.upper() for field in kind.model_fields]
    sentences = []
    for name in sorted(set(names) - set(known)):
        nearest = get_close_matches(name.upper(), known, n=1, cutoff=_NEARLY)
        if nearest and name.upper() not in known:
            sentences.append(f"{name} is no variable of this service and is ignored; is {nearest[0]} meant?")
    return sentences


def changed(settings: BaseSettings) -> str:
    """The optional variables that are not as they come, as `NAME=value`; of a secret only its name."""
    parts = []
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if field.is_required() or value == field.get_default(call_default_factory=True):
            continue
        parts.append(f"{name.upper()}={'***' if isinstance(value, SecretStr) else value}")
    return " ".join(parts)


def describe(error: ValidationError) -> str:
    """The errors of a settings class in one line, by the names of the variables."""
    return "; ".join(_describe_one(str(part["loc"][0]) if part["loc"] else "", part) for part in error.errors())


def _describe_one(field: str, part: object) -> str:
    details = part if isinstance(part, dict) else {}
    message = str(details.get("msg", "")).removeprefix("Value error, ")
    if details.get("type") == "missing":
        return f"{field.upper()} is not set"
    return f"{field.upper()}: {message}" if field else message
