"""What the commands of this package, and of those above it, read their flags with."""

import argparse
import sys
from typing import NoReturn


class OneLineParser(argparse.ArgumentParser):
    """An `argparse` parser that answers bad flags with one line on stderr and exit status 2."""

    def error(self, message: str) -> NoReturn:
        """Raises SystemExit(2)."""
        print(f"{self.prog.removeprefix('python -m ')}: {message} (see --help)", file=sys.stderr)
        raise SystemExit(2)
