"""`python -m tidepool <command>`."""

from tidepool.command_line import console

if __name__ == "__main__":
    console(prog="python -m tidepool")
