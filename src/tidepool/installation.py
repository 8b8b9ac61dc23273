"""Where this tidepool was imported from, and how a child process is made to import the same one. No torch.

With an editable install, one clone's code is what every Python of that environment finds: a second clone's programs
would run it without a word.
"""

import os
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1]
"""The folder that holds the package: `src` of a clone, or `site-packages`."""

AS_MODULE = ("-P", "-m")
"""What stands between the interpreter and a module that a child runs, whatever files lie in its working directory."""


def checkout() -> Path | None:
    """The root of the clone this package lies in; None for an installed copy."""
    root = SOURCE.parent
    return root if SOURCE.name == "src" and (root / "pyproject.toml").is_file() else None


def child_environment() -> dict[str, str]:
    """This process's environment, in which a child imports this tidepool."""
    environment = dict(os.environ)
    if checkout() is not None:
        former = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = os.pathsep.join([str(SOURCE), *([former] if former else [])])
    return environment
