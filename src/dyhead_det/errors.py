"""The errors a user may see, each with the exit code of the command that meets it.

DyHeadDetError (1)
|-- ConfigError (2)            a configuration, an option or a device that cannot be honored
|   `-- RanksDifferError       processes that train together were started with different ones
|-- DatasetError (3)           annotations or images that cannot be used
|-- CheckpointError (4)        a weight file that is missing, damaged or of another kind
|-- TrainingError (6)          a run that cannot go on
|   |-- NonFiniteLossError (5) a loss became NaN or infinite
|   |-- OutOfMemoryError (8)   the batch or the model does not fit into memory
|   |-- WorkerDiedError        a process that reads images was killed or crashed
|   `-- LostProcessError       another process of the same run has ended
|-- OutputError (6)            results that cannot be written
|-- ExportError (7)            a model that cannot be exported
`-- StoppedError (128 + n)     stopped by signal n: 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP
"""


class DyHeadDetError(Exception):
    """Say what was wanted, what was found, where, and what to do: messages for a person.

    Each argument is a message of its own, shown as a line: a file may have several problems.

    Attributes:
        is_reported: another process of the run says the same.
    """

    exit_code: int = 1
    is_reported: bool = False

    def __str__(self) -> str:
        """Return the messages, one a line."""
        return "\n".join(map(str, self.args))


class ConfigError(DyHeadDetError):
    """A configuration file, a command line option or a device cannot be honored."""

    exit_code = 2


class RanksDifferError(ConfigError):
    """Processes that train together have different configurations, options or data."""


class DatasetError(DyHeadDetError):
    """An annotation file or an image cannot be used as it is."""

    exit_code = 3


class CheckpointError(DyHeadDetError):
    """A file of weights is missing, damaged, unsafe or of another kind."""

    exit_code = 4


class TrainingError(DyHeadDetError):
    """A training run cannot start or go on."""

    exit_code = 6


class NonFiniteLossError(TrainingError):
    """A loss became NaN or infinite."""

    exit_code = 5


class OutOfMemoryError(TrainingError):
    """A batch or the model does not fit into memory."""

    exit_code = 8


class WorkerDiedError(TrainingError):
    """A process that reads images was killed or crashed."""


class LostProcessError(TrainingError):
    """Another process of the same run has ended, or does not answer."""


class OutputError(DyHeadDetError):
    """Results cannot be written, as on a full disk."""

    exit_code = 6


class ExportError(DyHeadDetError):
    """A model cannot be exported."""

    exit_code = 7


class StoppedError(DyHeadDetError):
    """A run was stopped from outside, and saved first."""

    def __init__(self, *messages: str, signal_number: int) -> None:
        super().__init__(*messages)
        self.exit_code = 128 + signal_number
