"""The errors a user meets. Everything else that is raised is a mistake of ours and shows a traceback."""

from typing import ClassVar


class R1pipeError(Exception):
    """The base of every error a user meets.

    The message is one or more plain sentences that end in the way out; it is shown as it is, without a
    traceback. `exit_code` is what the process ends with. Raise a subclass, never this class.
    """

    exit_code: ClassVar[int] = 1


class RunFailed(R1pipeError):
    """The work itself failed: a stage broke down, the disk is full."""

    exit_code = 1


class UsageError(R1pipeError):
    """What the user gave cannot be used: a command, a recipe, a value, a data file, a checkpoint."""

    exit_code = 2


class Conflict(R1pipeError):
    """Somebody else is at work there, or something that must not be overwritten is in the way."""

    exit_code = 3


class EnvironmentUnfit(R1pipeError):
    """The machine or what is installed on it does not fit: no such library, no GPU, too little memory."""

    exit_code = 4


class Interrupted(R1pipeError):
    """The user asked to stop; what a resume needs has been saved."""

    exit_code = 130
