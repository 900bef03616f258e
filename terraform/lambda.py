# ruff: noqa: INP001  # a script beside the configuration, no module
"""Packs the shutdown Lambda: `python terraform/lambda.py build/shutdown-gpu-lambda.zip`.

The same sources give the same bytes on every machine, so that Terraform sees a change only where there is one. Hence no
archive provider, no compression (zlib's output differs between builds) and one date for all.
"""

import sys
import zipfile
from pathlib import Path

_REPOSITORY = Path(__file__).resolve().parent.parent
_FIRST_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest a zip can tell
_UNIX = 3
_READABLE_FILE = 0o100644 << 16  # Lambda runs it as another user


def sources() -> list[Path]:
    """Everything the function is made of: its package and the namespace above it, nothing else of ours."""
    services = _REPOSITORY / "services"
    return [services / "__init__.py", *sorted((services / "shutdown").glob("*.py"))]


def pack(target: Path) -> None:
    """Write the zip in one step: who reads `target` meanwhile sees the old one or the new one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_suffix(".part")
    with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_STORED) as archive:
        for source in sources():
            entry = zipfile.ZipInfo(source.relative_to(_REPOSITORY).as_posix(), _FIRST_DATE)
            entry.create_system = _UNIX
            entry.external_attr = _READABLE_FILE
            archive.writestr(entry, source.read_bytes())
    unfinished.replace(target)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} TARGET.zip")
    pack(Path(sys.argv[1]))
