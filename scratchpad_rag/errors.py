"""What a user can get wrong: one line on the command line, exit code 2, never a traceback."""


class UserError(Exception):
    """A mistake in input, config or environment that the user can put right.

    The message is one line that names the value, the place and what to do.
    """


class ConfigError(UserError):
    """An unknown config name or key, or a value that does not fit."""


class DataError(UserError):
    """A data file that is missing, malformed or does not hold what it must."""


class CheckpointError(UserError):
    """A checkpoint that is truncated, foreign, or made for another model."""


class ModelError(UserError):
    """A model that cannot be found, loaded or used as asked."""


class SampleTooLongError(UserError):
    """A sample that does not fit the model's context; it is never cut silently."""


class TrainingError(UserError):
    """Training that cannot go on, such as a loss that is not a number."""


class BackendError(UserError):
    """A server that cannot be reached, refuses a request or answers with something else."""
