"""``python -m tidepool.benchmarking.argument_check``: what bench.py's parser says of lists of arguments, for a sweep.

Reads a JSON list of lists of arguments on stdin and writes a JSON list on stdout: for each null, or one line saying
which name, type or choice is not one of bench.py's.
"""

import json
import sys
from collections.abc import Sequence

from tidepool.benchmarking.command_line import UsageError, parse_options


def complaint(arguments: Sequence[str]) -> str | None:
    """One line on what in `arguments` bench.py does not take, or None."""
    try:
        parse_options(arguments, prog="bench.py")
    except UsageError as error:
        return str(error)
    return None


if __name__ == "__main__":
    json.dump([complaint(arguments) for arguments in json.load(sys.stdin)], sys.stdout)
