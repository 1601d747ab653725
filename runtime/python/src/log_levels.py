"""Names of log levels, and the one logger that plugins share with this package.

Never writes a file: the root file system of a plugin's container is read-only.
"""

import logging
import sys

# Nine names after syslog are in use beside Python's own. Python does not know the half of
# them and would fail at import.
_LEVELS = {
    "": logging.DEBUG,
    "TEST": logging.DEBUG,
    "DEBUG": logging.DEBUG,
    "INFO": logging.INFO,
    "INFORMATIONAL": logging.INFO,
    "NOTICE": logging.INFO,
    "WARN": logging.WARNING,
    "WARNING": logging.WARNING,
    "ERR": logging.ERROR,
    "ERROR": logging.ERROR,
    "CRIT": logging.CRITICAL,
    "CRITICAL": logging.CRITICAL,
    "FATAL": logging.CRITICAL,
    "ALERT": logging.CRITICAL,
    "EMERGENCY": logging.CRITICAL,
}


def level_of(name):
    """The number of a level's name. A name that nobody knows, or none, is DEBUG."""
    word = str(name if name is not None else "").strip().upper()
    if word.isascii() and word.isdigit():
        return min(int(word[:4]), logging.CRITICAL)
    return _LEVELS.get(word, logging.DEBUG)


def is_known(name):
    """Whether `level_of` does not have to guess."""
    word = str(name).strip().upper()
    return word in _LEVELS or (word.isascii() and word.isdigit())


class _Stderr(logging.StreamHandler):
    """Writes to whatever standard error is at that moment."""

    def __init__(self):
        logging.Handler.__init__(self)
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))

    @property
    def stream(self):
        return sys.stderr


def plugin_logger(level):
    """The logger `plugin`, writing to standard error at the named level."""
    logger = logging.getLogger("plugin")
    if not any(isinstance(handler, _Stderr) for handler in logger.handlers):
        logger.addHandler(_Stderr())
        # A plugin that sets up logging of its own would see each line twice.
        logger.propagate = False
    logger.setLevel(level_of(level))
    return logger
