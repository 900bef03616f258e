"""`python -m services.doctor`: looks at a deployment and prints a line per finding, with a fix. Composition root."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from rich.console import Console

from lib.daemon.configuration import EXIT_CONFIGURATION
from services.doctor.deployment import Deployment, read_outputs
from services.doctor.diagnosis import diagnose
from services.doctor.errors import CannotLookError, DeploymentError
from services.doctor.examination import Examination
from services.doctor.finding import Finding, Mark
from services.doctor.judgement.surroundings import judge_clock
from services.doctor.orchestrator_health import ask_service
from services.doctor.reader import ACTIONS, Reader, ReadError
from services.doctor.report import is_well, print_report, render_json

_EXIT_UNWELL = 1
_EXIT_BLIND = 2

_EPILOG = f"""\
Without an option it is told by the variables AWS_REGION, SQS_QUEUE_URL, SQS_DLQ_URL, DYNAMODB_TABLE, GPU_INSTANCE_ID,
IDLE_ALARM_NAME and SHUTDOWN_FUNCTION_NAME; HEARTBEAT_S, VISIBILITY_TIMEOUT_S and TASK_MAX_AGE_S if they are not the
services' defaults; and API_URL if the orchestrator is to be asked, too. Credentials come the SDK's way.

marks: ok; warning: costs, or takes away a safety net; broken: a task can be lost, or the GPU run for nothing;
unseen: could not look
exit codes: 0 nothing is broken or unseen, 1 something is, 2 cannot look at all,
{EXIT_CONFIGURATION} not told where to look

It only reads. Permissions it needs (AWS grants the first to everybody):
{"".join(f"  {action}{chr(10)}" for action in ACTIONS)}"""


def main() -> None:
    """Exit codes as in the help text."""
    arguments = _parse(sys.argv[1:])
    try:
        deployment = Deployment.from_variables(_variables(arguments))
        findings = _examine(deployment)
    except DeploymentError as error:
        sys.stderr.write(f"configuration: {error}\n")
        sys.exit(EXIT_CONFIGURATION)
    except CannotLookError as error:
        sys.stderr.write(f"cannot look: {error}  fix: {error.fix}\n")
        sys.exit(_EXIT_BLIND)
    if arguments.json:
        sys.stdout.write(render_json(findings) + "\n")
    else:
        print_report(findings, Console())
    sys.exit(0 if is_well(findings) else _EXIT_UNWELL)


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="gpu-doctor",
        description="Looks at a deployment in AWS and prints one line per finding, with a fix.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    told = parser.add_mutually_exclusive_group()
    told.add_argument("--terraform", metavar="DIR", help="take names and numbers from Terraform's outputs in DIR")
    told.add_argument(
        "--outputs", metavar="FILE", help="the same, from what `terraform output -json` printed; - for stdin"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines")
    return parser.parse_args(arguments)


def _variables(arguments: argparse.Namespace) -> Mapping[str, str]:
    if arguments.terraform:
        return read_outputs(_run_terraform(arguments.terraform))
    if arguments.outputs:
        return read_outputs(_read_file(arguments.outputs))
    return os.environ


def _read_file(name: str) -> str:
    try:
        return sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DeploymentError(str(error)) from error


def _run_terraform(directory: str) -> str:
    program = shutil.which("terraform")
    if program is None:
        raise CannotLookError("there is no terraform on this machine", fix="install it, or use --outputs FILE")
    command = [program, f"-chdir={directory}", "output", "-json", "-no-color"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  no shell, told by the operator
    if done.returncode:
        raise CannotLookError(" ".join(done.stderr.split()), fix=f"terraform -chdir={directory} init, then apply")
    return done.stdout


def _examine(deployment: Deployment) -> list[Finding]:
    with closing(Reader(region=deployment.region)) as reader:
        examination = Examination(reader=reader, deployment=deployment, ask_service=ask_service)
        try:
            identity = examination.identify()
        except ReadError as error:
            raise _blindness(error, reader) from error
        return diagnose(examination.look(identity), deployment)


def _blindness(error: ReadError, reader: Reader) -> CannotLookError:
    """A clock that is wrong by minutes is why signatures are refused, and AWS's own words do not say so."""
    for finding in judge_clock(reader.skew_s):
        if finding.mark is Mark.BROKEN:
            return CannotLookError(f"{finding.text} ({error})", fix=finding.fix)
    return CannotLookError(str(error), fix=error.fix)


if __name__ == "__main__":
    main()
