"""The environment variables every process of the devstack starts from."""

import os
from collections.abc import Mapping

REGION = "us-east-1"
ACCESS_KEY = "devstack"


def surroundings(endpoint_url: str, own: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without any real AWS account in it, pointed at the emulator, with `own` on top.

    Whoever runs the demo may have a profile, credentials and a proxy: none of them may reach the services.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return {
        **inherited,
        "AWS_ENDPOINT_URL": endpoint_url,
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": ACCESS_KEY,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
        "PYTHONUNBUFFERED": "1",
        **(own or {}),
    }
