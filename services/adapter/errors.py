"""What can go wrong with the Unified API, as the decision the adapter has to take."""

from __future__ import annotations


class UpstreamError(Exception):
    """Something is wrong with the Unified API; the message is fit for a client's eyes."""


class UpstreamRejected(UpstreamError):
    """It answered that the request is not acceptable: fail the task, another attempt would be refused as well."""


class UpstreamUnreachable(UpstreamError):
    """Nothing was sent, because nobody listens: repeat as you like."""


class UpstreamUnready(UpstreamError):
    """It refused for reasons of its own, such as a missing route or too many requests: give the task back."""


class UpstreamSilent(UpstreamError):
    """No answer in time. It is busy, or it hangs: wait on."""


class UpstreamForgot(UpstreamError):
    """It does not know the job: it was restarted, and the run is lost. Another attempt is right."""


class SubmissionUnknown(UpstreamError):
    """The request may have arrived, the answer has not. Never repeat it blindly: it may be running."""


class UpstreamGarbled(UpstreamError):
    """It answered something that is no job, or broke off. A poll may be repeated."""
