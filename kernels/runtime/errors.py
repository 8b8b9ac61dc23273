"""What a refused argument raises, wherever in the package it is refused."""


class ArgumentError(ValueError, RuntimeError):
    """A refused argument. PyTorch raises RuntimeError where Python's habit is ValueError: this is both."""
