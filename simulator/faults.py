"""What the simulator raises: code it cannot read, and code that a GPU would run wrongly or not at all."""


class UnknownCode(ValueError):  # noqa: N818  (the code is meant, not a failure of it)
    """PTX that the simulator does not know: an opcode, modifier or directive, with its line."""


class Fault(RuntimeError):  # noqa: N818  (the field's word for what stops a GPU)
    """A launch did what no correct program does: where, and what. `line` is the source line, `kind` what was checked.

    `kind` is one of: bounds, alignment, race, unwritten, deadlock, barrier, convergence, register, leftover, copy,
    matrix, division.
    """

    def __init__(self, kind: str, message: str, line: str = "", text: str = "") -> None:
        where = "".join([f"{line}: " if line else "", message, f" [{text}]" if text else ""])
        super().__init__(f"{kind}: {where}")
        self.kind, self.message, self.line, self.text = kind, message, line, text

    def at(self, line: str, text: str) -> "Fault":
        """The same fault with its place, unless it has one."""
        return self if self.line else Fault(self.kind, self.message, line, text)
