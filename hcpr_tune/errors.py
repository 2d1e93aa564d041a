"""The errors that callers catch. Everything else that is raised is a fault of the program."""


class HcprTuneError(Exception):
    """Base of the project's own errors. The message is one line: what, where, the law, the way out."""


class InputError(HcprTuneError):
    """Something that the user gave cannot be used; nothing has been started or written."""


class MovedOn(InputError):
    """Another process has gone on with the study since it was read; it must be read again."""


class Diverged(HcprTuneError):
    """A training met a number that is not finite; the message says which, and in which epoch."""


class Interrupted(HcprTuneError):
    """The user or the system asked the search to stop; what was reached is kept."""


class StorageError(HcprTuneError):
    """The storage of a study cannot be read or written; what was recorded before is kept."""


class ClusterLost(HcprTuneError):
    """The Ray that did the work is gone; what was recorded before is kept."""
