"""The ten words for a job's status, and which one follows which."""

# What a status becomes when its step succeeds.
SUCCESSOR = {
    "": "Ready",
    "Invalid": "Valid",
    "Valid": "Waiting",
    "Waiting": "Ready",
    "Ready": "Pending",
    "Pending": "Done",
    "Active": "Done",
    "Done": "Done",
    # Written like this long ago; the other side keeps a failed job failed.
    "Error": "Done",
    "Stopped": "Stopped",
}


class InvalidStatus(ValueError):
    """A word that is no status of a job."""


def check(status):
    """Returns the status, or raises InvalidStatus."""
    if not isinstance(status, str) or status not in SUCCESSOR:
        known = ", ".join(repr(word) for word in SUCCESSOR)
        raise InvalidStatus("%r is no status; expected one of %s" % (status, known))
    return status
