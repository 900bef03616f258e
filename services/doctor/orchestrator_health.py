"""Asks the orchestrator how it is."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request

from services.doctor.facts import Service

_TIMEOUT_S = 10


def ask_service(api_url: str) -> Service:
    """Its `/health` and `/ready`.

    Args:
        api_url: http or https; scheme, host and port.

    Raises:
        OSError: no HTTP answer.
    """
    return Service(health=_status(f"{api_url}/health"), ready=_status(f"{api_url}/ready"))


def _status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:  # noqa: S310  the scheme was checked
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except urllib.error.URLError as error:
        raise OSError(str(error.reason)) from error
    except http.client.HTTPException as error:
        raise OSError(f"no HTTP answer: {error!r}") from error
