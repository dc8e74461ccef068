"""What nvcc makes of the kernels: registers, and what each turn of a hot loop issues and moves, on sm_90.

    python -m tests.csrc.sass

compiles every .cu file and writes the table, tests/csrc/sass.csv. Do that after a change in csrc/ that changes it, and
read the difference.

A hot loop is one that reads or writes memory. Of the ways through it the one with the fewest instructions for each byte
counts: the edges of an image take others, but rarely. Each instruction of a warp takes one issue slot.
"""

from __future__ import annotations

import csv
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

CSRC = Path(__file__).parent.parent.parent / "csrc"
TABLE = Path(__file__).with_suffix(".csv")
ARCHS = (80, 90, 100, 120)
ARCH = 90
MOST_REGISTERS, MOST_THREADS, MOST_BLOCKS = 65536, 2048, 32
"""Of a multiprocessor of 9.0."""
TOGETHER = 16
"""Instructions among which one for each outcome of a predicate stand."""
LEAST_BYTES = 16
"""Loops that move less a turn are not listed: they end rows, or add up what few threads have."""

_RESOURCES = re.compile(
    r"Compiling entry function '(?P<kernel>\w+)' for 'sm_(?P<arch>\d+)\w*'.*?"
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?"
    r"Used (?P<registers>\d+) registers",
    re.DOTALL,
)
_THREADS = re.compile(r"\.entry (\w+)\(.*?\)\s*\.maxntid (\d+)", re.DOTALL)
_ACCESS = re.compile(r"\b(LDG|LDGSTS|STG|LDS|STS|LD|ST)\b((?:\.\w+)*)")
_WIDTHS = {"128": 16, "64": 8, "U16": 2, "S16": 2, "16": 2, "U8": 1, "S8": 1, "8": 1}


@dataclass(frozen=True)
class Resources:
    """What ptxas says of a kernel on one architecture. Spills are in bytes."""

    kernel: str
    arch: int
    registers: int
    stack: int
    spilled: int


@dataclass(frozen=True)
class Loop:
    """A hot loop of a kernel on sm_90. Bytes are those of a thread in one turn."""

    source: str
    kernel: str
    threads: int
    registers: int
    blocks: int
    """Blocks of a multiprocessor, as far as registers and threads decide."""
    loop: int
    slots: int
    loads: str
    """Loads from global memory, as 4x16 for four of 16 bytes."""
    stores: str
    shared: str
    """Accesses to shared memory."""

    @property
    def key(self) -> tuple[str, str, int]:
        return self.source, self.kernel, self.loop

    @property
    def widths(self) -> str:
        return f"{self.loads} {self.stores} {self.shared}"

    @property
    def bytes(self) -> int:
        """Of global memory, or of shared memory in a loop that accesses no other."""
        return bytes_of(self.loads) + bytes_of(self.stores) or bytes_of(self.shared)


@dataclass
class Compiled:
    """A .cu file as nvcc compiled it for all architectures, and its code for sm_90."""

    output: str
    resources: list[Resources]
    cubin: Path
    threads: dict[str, int]


def compile_source(source: Path, folder: Path, archs: Sequence[int] = ARCHS) -> Compiled:
    """Raises RuntimeError, with what nvcc says, where it warns or fails."""
    command = [
        *("nvcc", "-std=c++17", "-O3", "-Werror", "all-warnings", "-Xptxas", "-v", "--keep", "--keep-dir", str(folder)),
        f"-gencode=arch=compute_{min(ARCHS)},code=[{','.join(f'sm_{arch}' for arch in archs)}]",
        *("--threads", str(os.cpu_count()), "-fatbin", str(source), "-o", str(folder / "kernels.fatbin")),
    ]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout}")
    found = [match.groupdict() for match in _RESOURCES.finditer(done.stdout)]
    names = readable([kernel["kernel"] for kernel in found])
    resources = [
        Resources(
            name,
            int(kernel["arch"]),
            int(kernel["registers"]),
            int(kernel["stack"]),
            int(kernel["stores"]) + int(kernel["loads"]),
        )
        for name, kernel in zip(names, found, strict=True)
    ]
    (cubin,) = folder.glob(f"*.sm_{ARCH}.cubin" if len(archs) > 1 else "*.cubin")
    (ptx,) = folder.glob("*.ptx")
    entries = _THREADS.findall(ptx.read_text())
    threads = dict(zip(readable([name for name, _ in entries]), (int(count) for _, count in entries), strict=True))
    return Compiled(done.stdout, resources, cubin, threads)


def readable(names: list[str]) -> list[str]:
    """C++ names as written, without arguments."""
    found = shutil.which("c++filt")
    if found:
        done = subprocess.run([found, "-p"], input="\n".join(names), capture_output=True, text=True, check=True)
        names = done.stdout.splitlines()
    return [re.sub(r"\(anonymous namespace\)::|hd::cuda::|hd::|^void ", "", name) for name in names]


def disassembler() -> str | None:
    """nvdisasm of the CUDA toolkit, or the one that Triton brings."""
    found = shutil.which("nvdisasm")
    triton = find_spec("triton")
    if found is None and triton is not None and triton.origin is not None:
        found = shutil.which(Path(triton.origin).parent / "backends" / "nvidia" / "bin" / "nvdisasm")
    return found


def nvcc_version() -> str:
    done = subprocess.run(["nvcc", "--version"], capture_output=True, text=True, check=True)
    match = re.search(r"release ([\d.]+)", done.stdout)
    assert match is not None
    return match[1]


# --- the flow of control ---


@dataclass
class Code:
    """The instructions of a kernel, and the numbers of those that can follow each."""

    instructions: list[str]
    successors: list[list[int]]


def disassemble(cubin: Path) -> dict[str, Code]:
    """The code of each kernel by its readable name."""
    tool = disassembler()
    assert tool is not None
    done = subprocess.run([tool, "-c", str(cubin)], capture_output=True, text=True, check=True)
    sections: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        if section := re.match(r"\.text\.(\S+):", line):
            lines = sections.setdefault(section[1], [])
        elif sections and (label := re.match(r"(\.L_x_\d+):", line)):
            lines.append(label[1])
        elif sections and (instruction := re.search(r"/\*[0-9a-f]{4,}\*/\s+(.*?);", line)):
            lines.append(instruction[1].strip())
    return dict(zip(readable(list(sections)), (_flow(lines) for lines in sections.values()), strict=True))


def _flow(lines: list[str]) -> Code:
    instructions: list[str] = []
    labels: dict[str, int] = {}
    for line in lines:
        if line.startswith(".L_x_"):
            labels[line] = len(instructions)
        elif not line.startswith("NOP"):
            instructions.append(line)
    meetings: dict[str, int] = {}  # where the branches that a BSSY opens meet again
    successors = []
    for i, text in enumerate(instructions):
        if meeting := re.search(r"BSSY(?:\.\w+)*\s+(B\d+),\s*`\((\.L_x_\d+)\)", text):
            meetings[meeting[1]] = labels[meeting[2]]
        successors.append([j for j in _next(i, text, labels, meetings) if j < len(instructions)])
    return Code(instructions, successors)


def _next(i: int, text: str, labels: dict[str, int], meetings: dict[str, int]) -> list[int]:
    conditional = text.startswith("@") or re.search(r"\bBRA(?:\.\w+)*\s+!?U?P\d", text) is not None
    onward = [i + 1] if conditional else []
    if meeting := re.search(r"\bBSYNC(?:\.\w+)*\s+(B\d+)", text):
        return [meetings.get(meeting[1], i + 1), *onward]
    if branch := re.search(r"\bBRA\b.*`\((\.L_x_\d+)\)", text):
        return [labels[branch[1]], *onward]
    if re.search(r"\b(EXIT|RET|BRX)\b", text):
        return onward
    return [i + 1]


def hot_loops(code: Code) -> list[list[int]]:
    """For each hot loop the instructions of one turn, in the order of the code."""
    ends: dict[int, int] = {}
    for i, following in enumerate(code.successors):
        for head in following:
            if head <= i:
                ends[head] = max(ends.get(head, 0), i)
    moved = accesses(code)
    sizes = [
        [access[1] if access is not None and (access[0] == "shared") == shared else 0 for access in moved]
        for shared in (False, True)
    ]
    taken: set[int] = set()  # by a loop within
    found = []
    for head, end in sorted(ends.items(), key=lambda loop: loop[1] - loop[0]):
        turns = [_cheapest_turn(code, size, head, end, taken) for size in sizes]
        if turn := turns[0] or turns[1]:
            taken.update(range(head, end + 1))
            found.append(turn)
    return sorted(found)


def _cheapest_turn(code: Code, size: list[int], head: int, end: int, taken: set[int]) -> list[int]:
    """The way from the head of a loop back to it that has the fewest instructions for each byte, if it moves any.

    By Dinkelbach's method: a way that is cheapest at the price that the last one paid for a byte pays less, or the last
    one was the best.
    """
    turn: list[int] = []
    price = 1e6  # instructions for a byte
    while True:
        way = _cheapest_way(code, size, head, end, taken, price)
        bytes = sum(size[i] for i in way)
        if bytes == 0 or len(way) / bytes >= price:
            return turn
        turn, price = way, len(way) / bytes


def _cheapest_way(code: Code, size: list[int], head: int, end: int, taken: set[int], price: float) -> list[int]:
    """The way from the head back to it that costs least if a byte that it moves brings in its price."""
    if head in taken:
        return []
    cost = {head: 1 - price * size[head]}
    before: dict[int, int] = {}
    for i in range(head, end + 1):
        for j in code.successors[i] if i in cost else ():
            if i < j <= end and j not in taken and cost[i] + 1 - price * size[j] < cost.get(j, float("inf")):
                cost[j], before[j] = cost[i] + 1 - price * size[j], i
    last = [i for i in cost if head in code.successors[i]]
    if not last:
        return []
    way = [min(last, key=lambda i: cost[i])]
    while way[-1] != head:
        way.append(before[way[-1]])
    return way[::-1]


def accesses(code: Code) -> list[tuple[str, int] | None]:
    """Of each instruction that accesses memory, what it does and the bytes of a thread.

    Of two that fill the same registers, one where a predicate holds and the other where it does not, one counts.
    """
    found: list[tuple[str, int] | None] = []
    for i, text in enumerate(code.instructions):
        access = _access(text)
        if access is not None and text.startswith("@"):
            opposite = text.replace("@!", "@") if text.startswith("@!") else text.replace("@", "@!")
            before = code.instructions[max(i - TOGETHER, 0) : i]
            if any(_predicate_and_target(other) == _predicate_and_target(opposite) for other in before):
                access = None
        found.append(access)
    return found


def _predicate_and_target(text: str) -> tuple[str, str]:
    predicate, *_ = text.split()
    target = _ACCESS.search(text)
    return predicate, text[target.end() :].split(",")[0] if target is not None else ""


def _access(text: str) -> tuple[str, int] | None:
    match = _ACCESS.search(text)
    if match is None:
        return None
    width = next((bytes for name, bytes in _WIDTHS.items() if f".{name}." in f"{match[2]}."), 4)
    kind = "shared" if match[1] in ("LDS", "STS") else "stores" if match[1] in ("STG", "ST") else "loads"
    return kind, width


# --- the table ---

FIELDS = fields(Loop)


def loops_of(source: Path, compiled: Compiled) -> list[Loop]:
    registers = {kernel.kernel: kernel.registers for kernel in compiled.resources if kernel.arch == ARCH}
    rows = []
    for kernel, code in sorted(disassemble(compiled.cubin).items()):
        threads = compiled.threads[kernel]
        resources = threads, registers[kernel], _blocks(registers[kernel], threads)
        moved = accesses(code)
        for number, turn in enumerate(hot_loops(code)):
            made = [access for i in turn if (access := moved[i]) is not None]
            widths = [_widths(made, kind) for kind in ("loads", "stores", "shared")]
            rows.append(Loop(source.stem, kernel, *resources, number, len(turn), *widths))
    return [row for row in rows if row.bytes >= LEAST_BYTES]


def _blocks(registers: int, threads: int) -> int:
    warps = MOST_REGISTERS // (-(-registers * 32 // 256) * 256) // (threads // 32)
    return min(warps, MOST_THREADS // threads, MOST_BLOCKS)


def _widths(made: list[tuple[str, int]], kind: str) -> str:
    widths = [width for of, width in made if of == kind]
    return " ".join(f"{widths.count(width)}x{width}" for width in sorted(set(widths), reverse=True))


def bytes_of(widths: str) -> int:
    return sum(int(count) * int(width) for count, width in (item.split("x") for item in widths.split()))


def read_table() -> tuple[str, dict[tuple[str, str, int], Loop]]:
    """The version of nvcc that made the table, and its rows."""
    with TABLE.open(newline="") as file:
        version = file.readline().split()[-1]
        rows = [_row(named) for named in csv.DictReader(file)]
    return version, {row.key: row for row in rows}


def _row(named: dict[str, Any]) -> Loop:
    values: dict[str, Any] = {
        field.name: int(named[field.name]) if field.type == "int" else named[field.name] for field in FIELDS
    }
    return Loop(**values)


def write_table(rows: Iterable[Loop]) -> None:
    with TABLE.open("w", newline="") as file:
        file.write(f"# made by nvcc {nvcc_version()}\n")
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([field.name for field in FIELDS])
        writer.writerows(astuple(row) for row in rows)


def main() -> None:
    rows = []
    for source in sorted(CSRC.glob("*.cu")):
        with TemporaryDirectory() as folder:
            rows += loops_of(source, compile_source(source, Path(folder), [ARCH]))
    write_table(rows)


if __name__ == "__main__":
    main()
