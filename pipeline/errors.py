"""Errors of pictures, requests, runs and storage, in one tree.

    DarkroomError                1   (in models.errors, with the errors of models)
    ├── RequestError             2
    │   └── LeaseHeld            2
    ├── RecipeError              2
    ├── UnknownStepError         2
    ├── PlanError                2
    ├── StorageError             3   (`kind`)
    │   └── ObjectError          3
    ├── PictureError             1   (`reason`)
    ├── RunError                 1
    ├── LeaseLost                1
    ├── LatentError              1
    ├── BdRateError              1
    ├── DeltaError               1
    ├── Cancelled              130
    ├── ServeError               1   (in flows.command.serve)
    └── ApiError                 3   (in flows.orchestration.api)

The numbers are the codes with which the command `darkroom` ends. Every message is for people: it says what is wrong,
why, and what to do, and holds no secret.
"""

from __future__ import annotations

from models.errors import DarkroomError

#: every kind of StorageError
KINDS = {
    "denied": "the credentials are wrong or missing, or do not allow this",
    "missing": "no such bucket, folder or object",
    "archived": "the object lies in an archive of its service, and must be restored before it can be read",
    "unreachable": "nothing answers at the endpoint",
    "transient": "failed for now; another attempt may succeed",
    "invalid": "the request itself makes no sense: a URL, key or option is wrong",
    "other": "anything else; the message says what",
}

#: every reason a picture (or one branch of it) can fail for, as written in the `failures` table.
REASONS = {
    "truncated": "the file ends before its pixels do",
    "too_large": "the header announces more pixels than the limit allows",
    "too_large_for_memory": "the picture needs more memory than the run may take",
    "unsupported": "a picture, but of a kind that is not read here, or that the output format cannot hold",
    "corrupt": "the header or the compressed data contradict themselves",
    "not_an_image": "the bytes are no picture of any known format",
    "read_error": "the object could not be fetched",
    "archived": "the object lies in an archive of its service, and must be restored before it can be read",
    "write_error": "an output could not be stored",
    "deadline": "the picture took longer than its deadline",
    "shard_deadline": "the shard took longer than its deadline, and the picture was not done by then",
    "crashed": "the picture ends the process that develops it, also when it is tried alone",
    "step_failed": "a step of the branch refused this picture",
    "unknown_model": "the stream was made by a model that is not here",
}

#: reasons that another attempt may cure; a later run takes these pictures up again.
TRANSIENT_REASONS = frozenset({"read_error", "archived", "deadline", "shard_deadline", "unknown_model"})


class RequestError(DarkroomError):
    """A request that cannot be met here; the message says why and what to do."""

    exit_code = 2


class LeaseHeld(RequestError):
    """A destination where another run is at work; the message says whose, since when, and how to go on."""


class RecipeError(DarkroomError):
    """A recipe that cannot run; the message names the branch and step and says what to change."""

    exit_code = 2


class UnknownStepError(DarkroomError):
    """A step that does not exist; the message names the nearest ones."""

    exit_code = 2


class PlanError(DarkroomError):
    """A run that cannot start; the message says why and what to do."""

    exit_code = 2


class StorageError(DarkroomError):
    """A fault of storage. `kind` is a key of `KINDS`; `message` is for people and holds no secret."""

    exit_code = 3

    def __init__(self, kind: str, message: str):
        assert kind in KINDS, kind
        super().__init__(kind, message)  # both, so that the error survives pickling between processes
        self.kind = kind
        self.message = message

    def __str__(self) -> str:
        return self.message


class ObjectError(StorageError):
    """One object that cannot be read, while others of the same store may be."""


class PictureError(DarkroomError):
    """A picture, or one branch of it, that cannot be used. `reason` is a key of `REASONS`; `message` is for people."""

    def __init__(self, reason: str, message: str):
        assert reason in REASONS, reason
        super().__init__(reason, message)  # both, so that the error survives pickling between processes
        self.reason = reason
        self.message = message

    def __str__(self) -> str:
        return self.message


class RunError(DarkroomError):
    """A run whose tables do not add up; the message says which numbers differ. Nothing is marked as successful."""


class LeaseLost(DarkroomError):
    """A run whose destination another run has taken over; it commits nothing more."""


class LatentError(DarkroomError):
    """A row of the latents table that no run wrote, or whose model is not here; the message says what is wrong."""


class BdRateError(DarkroomError):
    """Two curves that cannot be compared; the message says why."""


class DeltaError(DarkroomError):
    """A run that cannot be appended to a Delta table; the message says why and what to do."""


class Cancelled(DarkroomError):
    """A run that somebody has stopped; the same request goes on where it ended."""

    exit_code = 130
