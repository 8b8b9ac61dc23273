"""PTX text -> `Program`.

Read is what compilers emit for one kernel: one .entry with parameters, scopes in braces with registers and labels of
their own (inline assembly), .loc lines, .branchtargets tables. What is not known is an error that names it and its
line.
"""

import functools
import re
from dataclasses import dataclass, field

from tidepool.simulator.faults import UnknownCode
from tidepool.simulator.ptx.flow import joins_of
from tidepool.simulator.ptx.program import (
    Address,
    Immediate,
    Instruction,
    Operand,
    Pair,
    Parameter,
    Program,
    Register,
    Sink,
    Special,
    Symbol,
    Vector,
)

_STATEMENT = re.compile(
    r"\s*(?:(?P<location>\.loc\s[^\n]*)|(?P<label>[A-Za-z_$%][\w$]*)\s*:(?!:)|(?P<open>\{)|(?P<close>\})"
    r"|(?P<statement>[^;{}]*(?:\{[^{}]*\}[^;{}]*)*);)",
)
_SPECIAL = re.compile(r"%(?:n?tid|n?ctaid|n?clusterid|cluster_n?ctaid)\.[xyz]|%(?:laneid|warpid|cluster_ctarank|smid)")
_IGNORED = (".pragma", ".loc", ".file", ".section", ".maxntid", ".reqntid", ".minnctapersm", ".align")


@functools.lru_cache(maxsize=1024)
def parse(text: str) -> Program:
    """The program of a PTX text with one entry. Raises UnknownCode that names what is not known and where."""
    entry = re.search(r"\.entry\s+([\w$]+)\s*\(([^)]*)\)([^{]*)\{", text)
    if entry is None:
        raise UnknownCode("PTX without an .entry: expected one kernel")
    version = re.search(r"\.target\s+(\w+)", text)
    parameters, size = _parameters(entry[2])
    limit = re.search(r"\.maxnreg\s+(\d+)", entry[3])
    shared, shared_bytes = _shared_variables(text)
    body = _Body(parameters=parameters, shared=shared, files=_files(text))
    body.read(_without_comments(text[entry.end() :]))
    return Program(
        text=text,
        name=entry[1],
        target=version[1] if version else "",
        parameters=parameters,
        parameter_bytes=size,
        instructions=body.instructions,
        widths=body.widths,
        registers_at_start=int(limit[1]) if limit else None,
        shared=shared,
        shared_bytes=shared_bytes,
        joins=joins_of(body.instructions),
    )


def _without_comments(text: str) -> str:
    return re.sub(r"//[^\n]*|/\*.*?\*/", "", text, flags=re.DOTALL)


def _files(text: str) -> dict[int, str]:
    found = re.findall(r'\.file\s+(\d+)\s+"([^"]+)"', text)
    return {int(number): path.rsplit("/", 1)[-1] for number, path in found}


def _parameters(text: str) -> tuple[dict[str, Parameter], int]:
    """The parameters by name, each aligned to its size or its .align (section 5.1.6), and the bytes they take."""
    found: dict[str, Parameter] = {}
    end = 0
    for declared in filter(None, (part.strip() for part in _without_comments(text).split(","))):
        match = re.fullmatch(
            r"\.param\s+(?:\.align\s+(\d+)\s+)?\.[bsuf](\d+)((?:\s+\.\w+(?:\s+\d+)?)*)\s+([\w$]+)(?:\[(\d+)\])?",
            declared,
        )
        if match is None:
            raise UnknownCode(f"parameter {declared!r}")
        size = int(match[2]) // 8 * int(match[5] or 1)
        align = int(match[1] or int(match[2]) // 8)
        offset = -(-end // align) * align
        found[match[4]] = Parameter(offset, size, ".ptr" in match[3])
        end = offset + size
    return found, end


def _shared_variables(text: str) -> tuple[dict[str, int], int]:
    """Offsets of the shared variables; those of unknown size (the launch says how much) come behind the others."""
    found: dict[str, int] = {}
    end = 0
    pattern = r"\.shared\s+\.align\s+(\d+)\s+\.b8\s+([\w$]+)\[(\d*)\]"
    for align, name, size in sorted(re.findall(pattern, text), key=lambda one: one[2] == ""):
        end = -(-end // int(align)) * int(align)
        found[name] = end
        end += int(size or 0)
    return found, end


@dataclass
class _Scope:
    serial: int
    names: dict[str, int] = field(default_factory=dict)


@dataclass(kw_only=True)
class _Body:
    """What has been read of a kernel's body."""

    parameters: dict[str, Parameter]
    shared: dict[str, int]
    files: dict[int, str]
    instructions: list[Instruction] = field(default_factory=list)
    widths: list[int] = field(default_factory=list)
    scopes: list[_Scope] = field(default_factory=lambda: [_Scope(0)])
    labels: dict[tuple[int, str], int] = field(default_factory=dict)
    tables: dict[str, list[str]] = field(default_factory=dict)
    pending: list[tuple[Instruction, str, tuple[int, ...]]] = field(default_factory=list)
    last_label: str = ""
    line: str = ""
    serial: int = 0

    def read(self, text: str) -> None:
        at = 0
        while True:
            match = _STATEMENT.match(text, at)
            if match is None:
                raise UnknownCode(f"PTX {text[at : at + 60].strip()!r} (after {self.line or 'the start'})")
            at = match.end()
            kind = match.lastgroup
            if kind == "close" and len(self.scopes) == 1:
                break
            self._take(str(kind), match[str(kind)])
        for instruction, label, scopes in self.pending:
            names = self.tables[label] if instruction.name == "brx" else [label]
            instruction.targets = tuple(self._place(name, scopes, instruction) for name in names)

    def _take(self, kind: str, text: str) -> None:
        if kind == "open":
            self.serial += 1
            self.scopes.append(_Scope(self.serial))
        elif kind == "close":
            self.scopes.pop()
        elif kind == "label":
            self.last_label = text
            self.labels[self.scopes[-1].serial, text] = len(self.instructions)
        elif kind == "location":
            number, line = text.split()[1:3]
            self.line = f"{self.files.get(int(number), number)}:{line}"
        elif text.strip():
            self._statement(" ".join(text.split()))

    def _statement(self, text: str) -> None:
        if text.startswith(".reg"):
            self._declare(text)
        elif text.startswith(".branchtargets"):
            self.tables[self.last_label] = [name.strip() for name in text.split(None, 1)[1].split(",")]
        elif text.startswith("."):
            if not text.startswith(_IGNORED):
                raise UnknownCode(f"directive {text.split()[0]} ({self.line})")
        else:
            self._instruction(text)

    def _declare(self, text: str) -> None:
        _, kind, names = text.split(None, 2)
        bits = 1 if kind == ".pred" else int(kind.lstrip(".bsuf"))
        for name in (part.strip() for part in names.split(",")):
            many = re.fullmatch(r"(%?\w+)<(\d+)>", name)
            for one in [f"{many[1]}{i}" for i in range(int(many[2]))] if many else [name]:
                self.scopes[-1].names[one] = len(self.widths)
                self.widths.append(bits)

    def _instruction(self, text: str) -> None:
        guard, negated, rest = None, False, text
        if text[0] == "@":
            name, rest = text[1:].split(None, 1)
            negated = name[0] == "!"
            register = self._operand(name.lstrip("!"))
            if not isinstance(register, Register):
                raise UnknownCode(f"guard {name} ({self.line})")
            guard = register
        opcode, _, arguments = rest.partition(" ")
        parts = tuple(opcode.replace("::", "_").split("."))
        instruction = Instruction(len(self.instructions), parts, (), guard, negated, self.line, text)
        pieces = _split(arguments)
        if instruction.name in ("bra", "brx"):
            scopes = tuple(scope.serial for scope in self.scopes)
            self.pending.append((instruction, pieces[-1], scopes))
            pieces = pieces[:-1]
        instruction.operands = tuple(self._operand(piece) for piece in pieces)
        self.instructions.append(instruction)

    def _place(self, label: str, scopes: tuple[int, ...], instruction: Instruction) -> int:
        for serial in reversed(scopes):
            if (serial, label) in self.labels:
                return self.labels[serial, label]
        raise UnknownCode(f"label {label} of {instruction.text!r} ({instruction.line})")

    def _operand(self, text: str) -> Operand:
        text = text.strip()
        if text[0] == "{":
            return Vector(tuple(self._operand(part) for part in _split(text[1:-1])))
        if text[0] == "[":
            return self._address(text)
        if "|" in text:
            first, second = text.split("|")
            return Pair(self._operand(first), self._operand(second))
        if text == "_":
            return Sink()
        for scope in reversed(self.scopes):
            if text in scope.names:
                number = scope.names[text]
                return Register(number, self.widths[number])
        return self._constant(text)

    def _constant(self, text: str) -> Operand:
        if _SPECIAL.fullmatch(text):
            return Special(text)
        if re.fullmatch(r"0[fFdD][0-9a-fA-F]+", text):
            return Immediate(int(text[2:], 16))
        if re.fullmatch(r"-?(0[xX][0-9a-fA-F]+|\d+)U?", text):
            return Immediate(int(text.rstrip("U"), 0))
        if text in ("true", "false"):
            return Immediate(int(text == "true"))
        if text in self.parameters or text in self.shared:
            return Symbol(text)
        raise UnknownCode(f"operand {text!r} ({self.line})")

    def _address(self, text: str) -> Address:
        first, *others = _split(text[1:-1])
        match = re.fullmatch(r"([%\w$.]+)\s*(?:\+\s*(-?\w+))?", first)
        if match is None:
            raise UnknownCode(f"address {text!r} ({self.line})")
        coordinates = self._operand(others[0]) if others else Vector(())
        assert isinstance(coordinates, Vector)
        return Address(self._operand(match[1]), int(match[2] or "0", 0), coordinates.items)


def _split(text: str) -> list[str]:
    """Parts between commas that are not within braces or brackets."""
    parts, depth, start = [], 0, 0
    for at, character in enumerate(text):
        if character in "[{(":
            depth += 1
        elif character in ")}]":
            depth -= 1
        elif character == "," and depth == 0:
            parts.append(text[start:at].strip())
            start = at + 1
    last = text[start:].strip()
    return [*parts, last] if last else parts
