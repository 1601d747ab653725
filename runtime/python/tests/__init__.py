"""Tests of the runtime. Run them with `python3 -m unittest` in the folder above."""

import io

from src import log_levels

# What plugins log would stand between the names of the tests and their results.
log_levels._Stderr.stream = property(lambda _handler: io.StringIO())
