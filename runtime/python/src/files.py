"""Reads files that were laid out for plugins."""

import codecs
import os

# A volume is mounted here when a Plugin brings files.
DEFAULT_FOLDER = "/files"


class MissingFile(FileNotFoundError, TypeError):
    """There is no such file.

    Also a TypeError, because that is what plugins have met so far and catch.
    """


def folder():
    """Where files lie: PATCHBAY_FILES, else /files."""
    return os.environ.get("PATCHBAY_FILES") or DEFAULT_FOLDER


def read(name, encoding=None):
    """The content of a file as bytes, or as text when an encoding is given.

    Raises MissingFile for a file that is not there or not inside the folder, LookupError for
    an encoding that nobody knows, UnicodeDecodeError for content that is not in it.
    """
    if not isinstance(name, str):
        raise MissingFile("a file's name is of type %s; expected text" % type(name).__name__)
    base = os.path.realpath(folder())
    missing = MissingFile("there is no file %r in %s (PATCHBAY_FILES names the folder)" % (name, base))
    if not name or "\0" in name:
        raise missing
    # A mounted ConfigMap is full of links; what counts is where they end.
    path = os.path.realpath(os.path.join(base, name))
    if os.path.commonpath([base, path]) != base:
        raise missing
    try:
        with open(path, "rb") as opened:
            content = opened.read()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise missing from error
    if encoding is None:
        return content
    # Asked for by itself, because decoding nothing looks nothing up.
    codecs.lookup(encoding)
    return content.decode(encoding)
