"""The errors that callers catch. Any other exception is a bug."""


class HcprTuneError(Exception):
    """Base of the project's errors. The message is one line: what is wrong, where, what is allowed, what to do."""


class InputError(HcprTuneError):
    """The user's input cannot be used; nothing has been started or written."""


class MovedOn(InputError):
    """Another process has continued the study since it was read; it must be read again."""


class Diverged(HcprTuneError):
    """Training produced a non-finite number; the message says which one and in which epoch."""


class Interrupted(HcprTuneError):
    """The user or the system asked the search to stop; results so far are kept."""


class StorageError(HcprTuneError):
    """A study's storage cannot be read or written; what was recorded before is kept."""


class ClusterLost(HcprTuneError):
    """The Ray cluster is gone; what was recorded before is kept."""
