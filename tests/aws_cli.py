"""AWS's own command line, for commands that we tell people to type.

It brings its own botocore, so it lives in an environment of its own: `make .venv-awscli/.installed`.
"""

from __future__ import annotations

from pathlib import Path

from tests.absence import absent

PROGRAM = Path(__file__).parent.parent / ".venv-awscli/bin/aws"

# As an option, since version 1 calls SQS at AWS whatever AWS_ENDPOINT_URL says.
_POINTED = f"""\
#!/bin/sh
exec "{PROGRAM}" --endpoint-url "${{AWS_ENDPOINT_URL:?}}" "$@"
"""


def put_aws_cli(folder: Path) -> None:
    """Put `aws` into a folder for PATH; it calls AWS_ENDPOINT_URL and nobody else."""
    if not PROGRAM.exists():
        absent(f"no {PROGRAM}: make .venv-awscli/.installed")
    (folder / "aws").write_text(_POINTED)
    (folder / "aws").chmod(0o755)
