"""ComfyUI core as the Unified API meets it: a process of its own, which may be down or busy with an orphaned prompt."""

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from PIL.Image import Image

from services.devstack import pictures
from services.devstack.upstream.prompts import Prompts
from services.devstack.upstream.requests import CameraAngleRequest, JobRequest, QwenImageEditRequest

NO_OUTPUT = "No output images generated"

# There is no `euler_a`.
_SAMPLERS = frozenset(
    {
        "euler",
        "euler_ancestral",
        "heun",
        "dpm_2",
        "dpm_2_ancestral",
        "lms",
        "dpm_fast",
        "dpm_adaptive",
        "dpmpp_2s_ancestral",
        "dpmpp_sde",
        "dpmpp_2m",
        "dpmpp_2m_sde",
        "dpmpp_3m_sde",
        "ddpm",
        "lcm",
        "ipndm",
        "deis",
        "res_multistep",
        "gradient_estimation",
        "er_sde",
        "sa_solver",
        "ddim",
        "uni_pc",
        "uni_pc_bh2",
    }
)
_SCHEDULERS = frozenset(
    {
        "simple",
        "sgm_uniform",
        "karras",
        "exponential",
        "ddim_uniform",
        "beta",
        "normal",
        "linear_quadratic",
        "kl_optimal",
    }
)
# The limits of ComfyUI's KSampler node; beyond them POST /prompt answers 400.
_STEPS = range(1, 10_001)
_SEED_END = 2**64
_CFG_MAX = 100.0


class ComfyUiError(Exception):
    """ComfyUI did not make a picture; the text is what the Unified API shows its client."""


class InvalidWorkflowError(ComfyUiError):
    """ComfyUI did not even queue it."""

    def __init__(self) -> None:
        super().__init__("HTTP Error 400: Bad Request")


class ComfyUi:
    """Runs one prompt at a time, in the caller's thread.

    Args:
        step_s: Seconds one sampling step takes.
        down_for_s: Seconds after the start during which ComfyUI is not up yet.
        restart_s: Seconds ComfyUI needs to come back once it died.
        state_path: Where the end of the running prompt is noted. ComfyUI outlives the Unified API, so a successor that
            finds a prompt still running there has to wait behind it. None: the two die together.
    """

    def __init__(self, *, step_s: float, down_for_s: float, restart_s: float, state_path: Path | None) -> None:
        self._step_s = step_s
        self._restart_s = restart_s
        self._state_path = state_path
        self._up_at_s = time.monotonic() + down_for_s
        self.prompts = Prompts(self._orphan_runs)

    def is_up(self) -> bool:
        """Tell whether ComfyUI answers at all."""
        return time.monotonic() >= self._up_at_s

    def die(self) -> None:
        """Drop the running prompt and stay down for the restart.

        Raises:
            ConnectionResetError: Always: what the Unified API sees of it.
        """
        self._up_at_s = time.monotonic() + self._restart_s
        self.prompts.forget()
        raise ConnectionResetError(104, "Connection reset by peer")

    def render(
        self, request: JobRequest, files: Mapping[str, bytes], *, seed: int, on_step: Callable[[int], None]
    ) -> bytes:
        """Return the PNG that `request` makes of the image `files` (by the names they have there), after `steps` steps.

        Raises:
            ConnectionRefusedError: ComfyUI is down.
            InvalidWorkflowError: The workflow is invalid.
            ComfyUiError: A node failed.
        """
        if not self.is_up():
            raise ConnectionRefusedError(111, "Connection refused")
        if not is_valid(request, seed):
            raise InvalidWorkflowError
        self._wait_for_orphan()
        with self.prompts.running(list(files)):
            return self._run(request, files.values(), seed=seed, on_step=on_step)

    def _run(self, request: JobRequest, files: Iterable[bytes], *, seed: int, on_step: Callable[[int], None]) -> bytes:
        try:
            loaded = [pictures.decode_picture(file) for file in files]
        except pictures.UndecodablePictureError as exc:
            raise ComfyUiError(NO_OUTPUT) from exc
        self._note_prompt(request.steps * self._step_s)
        try:
            for step in range(1, request.steps + 1):
                time.sleep(self._step_s)
                on_step(step)
            return pictures.encode_png(_paint(request, loaded, seed))
        finally:
            # Not reached when this process is killed: then the note stays, as ComfyUI goes on.
            self._forget_prompt()

    def _wait_for_orphan(self) -> None:
        time.sleep(self._orphan_left_s())

    def _orphan_runs(self) -> bool:
        return self._orphan_left_s() > 0

    def _orphan_left_s(self) -> float:
        try:
            noted = json.loads(self._state_path.read_text()) if self._state_path else {}
        except FileNotFoundError:
            return 0.0
        return max(0.0, float(noted.get("busy_until", 0.0)) - time.time())

    def _note_prompt(self, duration_s: float) -> None:
        if self._state_path is not None:
            # Renamed into place: a reader must never find half a file.
            half = self._state_path.with_suffix(".part")
            half.write_text(json.dumps({"busy_until": time.time() + duration_s}))
            half.replace(self._state_path)

    def _forget_prompt(self) -> None:
        if self._state_path is not None:
            self._state_path.unlink(missing_ok=True)


def is_valid(request: JobRequest, seed: int) -> bool:
    """Whether ComfyUI takes the workflow that is made of this request."""
    if request.steps not in _STEPS or not 0 <= seed < _SEED_END:
        return False
    if not isinstance(request, QwenImageEditRequest):
        return True
    return (
        0 <= request.cfg <= _CFG_MAX
        and 0 <= request.denoise <= 1
        and request.sampler_name in _SAMPLERS
        and request.scheduler in _SCHEDULERS
    )


def _paint(request: JobRequest, loaded: Sequence[Image], seed: int) -> Image:
    match request:
        case CameraAngleRequest():
            return pictures.move_camera(
                loaded[0], vertical=request.vertical, horizontal=request.horizontal, zoom=request.zoom, seed=seed
            )
        case QwenImageEditRequest():
            return pictures.edit_picture(loaded, prompt=request.prompt, seed=seed, strength=request.denoise)
    raise TypeError(type(request).__name__)
