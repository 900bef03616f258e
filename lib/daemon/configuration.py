"""Reading a service's settings, and saying in one line what is wrong with them."""

from __future__ import annotations

import re
import sys
from typing import TypeVar

from pydantic import ValidationError
from pydantic_settings import BaseSettings, SettingsError

# sysexits.h EX_CONFIG; systemd's RestartPreventExitStatus= can name it, since a restart does not mend a setting.
EXIT_CONFIGURATION = 78

_NAME_OF_FIELD = re.compile(r'field "(\w+)"')

S = TypeVar("S", bound=BaseSettings)


def load_settings(kind: type[S]) -> S:
    """The settings from the environment.

    Raises:
        SystemExit: with `EXIT_CONFIGURATION`, after one line on stderr that names each wrong variable. The values are
            not printed: some are secret.
    """
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


def describe(error: ValidationError) -> str:
    """The errors of a settings class in one line, by the names of the variables."""
    return "; ".join(_describe_one(str(part["loc"][0]) if part["loc"] else "", part) for part in error.errors())


def _describe_one(field: str, part: object) -> str:
    details = part if isinstance(part, dict) else {}
    message = str(details.get("msg", "")).removeprefix("Value error, ")
    if details.get("type") == "missing":
        return f"{field.upper()} is not set"
    return f"{field.upper()}: {message}" if field else message
