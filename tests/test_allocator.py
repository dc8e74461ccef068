"""Freed memory is kept where the C library is glibc and nobody else has decided about it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hdgan import allocator

OURS = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD", "THP_MEM_ALLOC_ENABLE", allocator.VARIABLE)
glibc = pytest.mark.skipif(
    not allocator.allocator_name().startswith("glibc"), reason="another C library or another allocator"
)


def run(code: str, **environment: str) -> list[str]:
    """What a fresh process prints, which has none of the variables about memory but these."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=clean | environment, capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.split("\n")[:-1]


FAULTS = """
import ctypes, resource
from hdgan import allocator
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
SIZE = 64 << 20

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = libc.malloc(ctypes.c_size_t(SIZE))
    ctypes.memset(block, 1, SIZE)
    libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()
"""


@glibc
def test_a_freed_block_is_used_again_without_new_pages() -> None:
    code = f"{FAULTS}\nprint(faults() > 20, faults() > 20, allocator.keep_memory(), faults() > 20, faults() < 20)"
    assert run(code) == ["True True True True True"]


@glibc
def test_released_memory_goes_back_to_the_system() -> None:
    code = f"""{FAULTS}
before = resident()
allocator.keep_memory()
faults()
kept = resident()
allocator.release_memory()
print(kept - before > SIZE * 7 / 8, resident() - before < SIZE / 8)"""
    assert run(code) == ["True True"]


@glibc
def test_a_fork_shares_no_free_pages() -> None:
    """The parent would otherwise copy each of them as soon as it writes to it, while the child lives."""
    code = f"""{FAULTS}
import os
allocator.keep_memory()
before = resident()
faults()
child = os.fork()
if child == 0:
    os._exit(faults() > 20 and faults() < 20)  # a child keeps memory, too
print(resident() - before < SIZE / 8, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"""
    assert run(code) == ["True 1"]


ANSWER = """
from hdgan.allocator import allocator_name, keep_memory
before = allocator_name()
print(keep_memory())
print(allocator_name() == before)
"""


@glibc
@pytest.mark.parametrize(
    ("environment", "kept"),
    [
        ({}, True),
        ({"HDGAN_KEEP_MEMORY": "1"}, True),
        ({"HDGAN_KEEP_MEMORY": "0"}, False),
        ({"MALLOC_ARENA_MAX": "2"}, False),
        ({"MALLOC_TRIM_THRESHOLD_": "100000"}, False),
        ({"GLIBC_TUNABLES": "glibc.rtld.nns=5:glibc.malloc.arena_max=2"}, False),
        ({"GLIBC_TUNABLES": "glibc.rtld.nns=5"}, True),
    ],
    ids=str,
)
def test_what_the_user_has_set_is_left_alone(environment: dict[str, str], kept: bool) -> None:
    assert run(ANSWER, **environment) == [str(kept), str(not kept)]


@glibc
def test_another_allocator_is_left_alone_and_named(tmp_path: Path) -> None:
    library = tmp_path / "libother.so.1"
    source = "void *__libc_malloc(unsigned long); void *malloc(unsigned long n) { return __libc_malloc(n); }"
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler to build another allocator with")
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-fno-builtin", "-x", "c", "-", "-o", str(library)],
        input=source, text=True, check=True,
    )  # fmt: skip
    code = "from hdgan import allocator as a; print(a.keep_memory(), a.allocator_name(), a.same_allocator())"
    assert run(code, LD_PRELOAD=str(library)) == ["False libother.so.1 {'HDGAN_KEEP_MEMORY': '0'}"]


@pytest.mark.parametrize(
    ("library", "name"), [("libsystem_malloc.dylib", "libsystem_malloc.dylib"), (None, sys.platform)]
)
def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch, library: str | None, name: str) -> None:
    monkeypatch.setattr(allocator, "_library_of_malloc", lambda: library)
    monkeypatch.delenv(allocator.VARIABLE, raising=False)
    assert not allocator.keep_memory()
    assert allocator.allocator_name() == name


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def confstr(name: str) -> str:
        raise OSError(22, "Invalid argument")  # as Python says on musl

    monkeypatch.setattr(os, "confstr", confstr, raising=False)
    monkeypatch.setattr(allocator, "_library_of_malloc", lambda: "ld-musl-x86_64.so.1")
    assert not allocator.keep_memory()
    assert allocator.allocator_name() == "ld-musl-x86_64.so.1"


@glibc
def test_the_name_says_what_is_set() -> None:
    code = "from hdgan import allocator as a; print(a.allocator_name()); a.keep_memory(); print(a.allocator_name())"
    before, after = run(code)
    assert after == f"{before}, freed memory kept"
    (name,) = run("from hdgan.allocator import allocator_name as name; print(name())", MALLOC_ARENA_MAX="2")
    assert name == f"{before}, MALLOC_ARENA_MAX=2"


@glibc
def test_a_child_process_can_be_given_the_same_allocator() -> None:
    (settings,) = run(
        "import json; from hdgan import allocator as a; a.keep_memory(); print(json.dumps(a.same_allocator()))"
    )
    given = json.loads(settings)
    code = f"{FAULTS}\nfaults()\nprint(allocator.keep_memory(), faults() < 20)"
    assert run(code, **given) == ["False True"]
    assert run(code, HDGAN_KEEP_MEMORY="0") == ["False False"]


@glibc
def test_importing_hdgan_changes_nothing() -> None:
    assert run(f"import hdgan, hdgan.ops\n{FAULTS}\nfaults()\nprint(faults() > 20)") == ["True"]


@pytest.mark.parametrize(("given", "value"), [({}, "1"), ({"THP_MEM_ALLOC_ENABLE": "0"}, "0")])
def test_huge_pages_unless_the_user_says_otherwise(given: dict[str, str], value: str) -> None:
    code = """
import os
from hdgan import allocator
allocator.use_huge_pages()
print(os.environ["THP_MEM_ALLOC_ENABLE"], "huge pages" in allocator.allocator_name())
"""
    if not allocator.allocator_name().startswith("glibc"):
        code = code.replace('"huge pages" in allocator.allocator_name()', f"{value == '1'}")
    assert run(code, **given) == [f"{value} {value == '1'}"]


@glibc
@pytest.mark.parametrize(
    ("environment", "heaps"), [({}, "1 heap"), ({allocator.VARIABLE: "0"}, "more"), ({"MALLOC_PERTURB_": "0"}, "more")]
)
def test_threads_share_one_heap(environment: dict[str, str], heaps: str) -> None:
    code = """
import ctypes, threading
from hdgan import allocator
allocator.use_one_heap()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
blocks = []

def allocate():
    blocks.append(libc.malloc(ctypes.c_size_t(100_000)))
    together.wait()

together = threading.Barrier(4)
threads = [threading.Thread(target=allocate) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
spread = max(blocks) - min(blocks)  # heaps of threads are mappings, far from each other and from the first heap
print("1 heap" if spread < 64 << 20 else "more")
"""
    assert run(code, **environment) == [heaps]
