"""The .cu files compiled by nvcc: no warnings, values in registers, and hot loops as short as they are known to be."""

import pytest

from tests.csrc.sass import ARCHS, CSRC, compile_source, disassembler, loops_of, nvcc_version, read_table

RISE = 0.1
"""By so much may the slots of a hot loop rise. If they fall by as much, the table is due."""
REMEDY = "run python -m tests.csrc.sass and read what changes in sass.csv"


@pytest.fixture(scope="module", params=sorted(CSRC.glob("*.cu")), ids=lambda source: source.stem)
def compiled(request, tmp_path_factory):
    return request.param, compile_source(request.param, tmp_path_factory.mktemp(request.param.stem))


@pytest.mark.nvcc
@pytest.mark.slow
def test_compiles_without_spills(compiled):
    """Prints registers, bytes of stack and of spills by kernel and architecture; pytest -rP shows them."""
    _, result = compiled
    rows = sorted(result.resources, key=lambda row: (row.kernel, row.arch))
    for row in rows:
        print(f"{row.kernel}  sm_{row.arch}  {row.registers} registers, {row.stack} stack, {row.spilled} spilled")
    assert {row.arch for row in rows} == set(ARCHS)
    assert not [row for row in rows if row.spilled]


@pytest.mark.nvcc
@pytest.mark.slow
def test_hot_loops(compiled):
    """On sm_90 the widths of accesses and the blocks of a multiprocessor are as in the table, the slots about so."""
    if disassembler() is None:
        pytest.skip("no nvdisasm, which comes with the CUDA toolkit and with Triton")
    version, table = read_table()
    if version != nvcc_version():
        pytest.skip(f"sass.csv is of nvcc {version}, this is {nvcc_version()}")
    source, result = compiled
    loops = {loop.key: loop for loop in loops_of(source, result)}
    known = {key: loop for key, loop in table.items() if key[0] == source.stem}
    assert set(loops) == set(known), f"{source.name} has other hot loops than the table: {REMEDY}"
    for key, loop in loops.items():
        before = known[key]
        for name in ("blocks", "loads", "stores", "shared"):
            assert getattr(loop, name) == getattr(before, name), f"{key}: {name}; {REMEDY}"
        assert loop.slots <= before.slots * (1 + RISE), f"{key}: slots rise from {before.slots} to {loop.slots}"
        assert loop.slots >= before.slots * (1 - RISE), f"{key}: slots fall from {before.slots}; {REMEDY}"
