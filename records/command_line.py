"""What the commands read their flags with."""

import argparse
import sys
from typing import Any, NoReturn


class OneLineParser(argparse.ArgumentParser):
    """An `argparse` parser that answers bad flags with one line on stderr and exit status 2, or, where `refusal` is
    given, by raising that error with the same line. Flags are not to be abbreviated.
    """

    def __init__(self, *, refusal: type[Exception] | None = None, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, **settings)
        self._refusal = refusal

    def error(self, message: str) -> NoReturn:
        """Raises SystemExit(2), or what was asked for."""
        if self._refusal is not None:
            raise self._refusal(f"{message} (see --help)")
        print(f"{self.prog}: {message} (see --help)", file=sys.stderr)
        raise SystemExit(2)
