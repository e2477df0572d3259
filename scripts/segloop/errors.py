"""The one error that is meant for a person."""


class SegloopError(Exception):
    """Something a person can mend: the message names what failed, in which file or record, and what to do."""
