"""A Lambda function as its callers see it: invoked with an event, retried by the service when it raises."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import structlog

from services.devstack import lambda_runtime
from services.devstack.processes import OwnedProcess
from services.devstack.python_module import module_command

log = structlog.stdlib.get_logger(__name__)

# "Lambda retries an asynchronous invocation twice, with a one-minute wait before the first and two before the second."
# https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-error-handling.html
RETRY_DELAYS_S: Final = (60.0, 120.0)
_START_LIMIT_S = 30.0


class LambdaError(Exception):
    """The function could not be loaded, raised, or did not answer in time. `kind` is the error type AWS would give."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind


class LambdaFunction:
    """One warm environment: events are handled one after the other, as with a reserved concurrency of 1."""

    def __init__(
        self,
        handler: str,
        *,
        env: Mapping[str, str],
        log_path: Path,
        package: Path | None = None,
        timeout_s: float = 60.0,
        retry_delays_s: Sequence[float] = RETRY_DELAYS_S,
    ) -> None:
        """`package`: the zip (or folder) that the handler is loaded from, before anything else; None: this source."""
        self._handler = handler
        self._env = env
        self._log_path = log_path
        self._package = package
        self._timeout_s = timeout_s
        self._retry_delays_s = retry_delays_s
        self._turn = asyncio.Lock()
        self._environment: OwnedProcess | None = None

    async def start(self) -> None:
        """Load the handler now, so that a mistake in it shows here.

        Raises:
            LambdaError: the handler cannot be imported, or raises while it is.
        """
        async with self._turn:
            await self._warm_environment()

    async def invoke(self, event: Any) -> Any:
        """Invoke synchronously (`RequestResponse`): one attempt, its result.

        Raises:
            LambdaError: the handler raised or timed out.
        """
        async with self._turn:
            environment = await self._warm_environment()
            try:
                environment.stdin.write(json.dumps(event).encode() + b"\n")
                return await self._read_answer(environment, self._timeout_s)
            except ConnectionError as error:
                raise LambdaError("Runtime.ExitError", "the environment ended while it was asked") from error

    async def invoke_asynchronously(self, event: Any) -> Any:
        """Invoke as CloudWatch and EventBridge do (`Event`): an attempt that raises is repeated twice.

        Raises:
            LambdaError: the last attempt failed too; AWS would drop the event here.
        """
        for delay_s in self._retry_delays_s:
            try:
                return await self.invoke(event)
            except LambdaError as error:
                log.warning("lambda.retried", error=str(error), delay_s=delay_s)
            await asyncio.sleep(delay_s)
        return await self.invoke(event)

    async def close(self) -> None:
        """End the environment."""
        if self._environment is not None:
            await self._environment.kill()
            self._environment = None

    async def _warm_environment(self) -> OwnedProcess:
        if self._environment is not None and self._environment.exit_code is None:
            return self._environment
        arguments = (self._handler, str(self._timeout_s))
        command, env = module_command(lambda_runtime.__name__, *arguments), self._env
        if self._package is not None:
            # As a file that is on no package's path: `services` is then the zip's, not this one.
            command = (sys.executable, "-P", lambda_runtime.__file__, *arguments)
            env = {**self._env, "PYTHONPATH": str(self._package)}
        self._environment = await OwnedProcess.start("lambda", command, env=env, log_path=self._log_path, piped=True)
        await self._read_answer(self._environment, _START_LIMIT_S)
        return self._environment

    async def _read_answer(self, environment: OwnedProcess, limit_s: float) -> Any:
        try:
            async with asyncio.timeout(limit_s):
                line = await environment.stdout.readline()
        except BaseException as error:
            # Its answer would be taken for the next event's, so this environment is used up; AWS replaces it as well.
            await environment.kill()
            if isinstance(error, TimeoutError):
                raise LambdaError("Sandbox.Timedout", f"Task timed out after {limit_s} seconds") from error
            raise
        if not line:
            raise LambdaError("Runtime.ExitError", f"exit code {await environment.wait()}\n{environment.log_tail()}")
        answer = json.loads(line)
        if "error" in answer:
            raise LambdaError(answer["error"]["type"], answer["error"]["message"])
        return answer.get("ok")


@asynccontextmanager
async def lambda_function(function: LambdaFunction) -> AsyncIterator[LambdaFunction]:
    """A function that is warm within the `async with` block."""
    try:
        await function.start()
        yield function
    finally:
        await function.close()
