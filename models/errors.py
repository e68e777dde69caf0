"""What goes wrong in training, models and streams: the lower part of one tree of errors, whose root is here.

    DarkroomError                1
    ├── ModelError               2
    ├── DeviceError              2
    ├── DataError                2
    ├── CheckpointError          2
    ├── TrainingError            1
    ├── DistributedError         1
    ├── TooLargeError            2
    ├── StreamError              1
    └── TargetError              1

The numbers are the codes with which the command `darkroom` ends; `pipeline.errors` has the rest of the tree. Every
message is for people: it says what is wrong, why, and what to do.
"""

from __future__ import annotations

from typing import ClassVar


class DarkroomError(Exception):
    """Root of every error that Darkroom raises on purpose; `exit_code` is the code with which a command ends."""

    exit_code: ClassVar[int] = 1


class ModelError(DarkroomError):
    """A model that cannot be loaded; the message names it, says why and what to do."""

    exit_code = 2


class DeviceError(DarkroomError):
    """A device that is not there or stopped working; the message names it and says what to do."""

    exit_code = 2


class DataError(DarkroomError):
    """A source of training pictures that cannot be used; the message says why and what to do."""

    exit_code = 2


class CheckpointError(DarkroomError):
    """A checkpoint or start that cannot be used; the message names it, says why and what to do."""

    exit_code = 2


class TrainingError(DarkroomError):
    """A training that cannot go on; the message says why and what to do."""


class DistributedError(DarkroomError):
    """Processes that cannot train together as asked; the message says why and what to do."""


class TooLargeError(DarkroomError):
    """An object that is larger than its reader takes; the message names it and both sizes."""

    exit_code = 2


class StreamError(DarkroomError):
    """A stream that cannot be decoded; the message says what is wrong with it."""


class TargetError(DarkroomError):
    """A target that no quality meets; the message says what the codec can do for this picture."""
