"""How hot loops are found in SASS, on code written by hand."""

from tests.csrc.sass import _flow, accesses, hot_loops

LOOP = """
MOV R1, c[0x0][0x28]
.L_x_0:
ISETP.GE.AND P0, PT, R2, R3, PT
@P0 BRA `(.L_x_1)
LDG.E.128 R4, desc[UR4][R8.64]
LDG.E.128 R12, desc[UR4][R8.64+0x200]
FADD R4, R4, R12
STG.E.64 desc[UR4][R10.64], R4
BRA `(.L_x_2)
.L_x_1:
LDG.E.U16 R4, desc[UR4][R8.64]
STG.E.U16 desc[UR4][R10.64], R4
.L_x_2:
IADD3 R2, R2, 0x1, RZ
@P1 BRA `(.L_x_0)
EXIT
NOP
"""


def turns(text):
    code = _flow([line.rstrip(":") for line in text.strip().splitlines()])
    made = accesses(code)
    return [(len(turn), [made[i] for i in turn if made[i] is not None]) for turn in hot_loops(code)]


def test_the_way_with_fewest_instructions_for_a_byte_counts():
    assert turns(LOOP) == [(9, [("loads", 16), ("loads", 16), ("stores", 8)])]


def test_a_loop_without_memory_is_not_hot():
    assert turns(LOOP.replace("LDG", "MOV").replace("STG", "MOV")) == []


def test_an_inner_loop_is_no_part_of_the_outer_one():
    outer = ".L_x_9:\nLDG.E R0, desc[UR4][R8.64]\n@P3 BRA `(.L_x_8)\n" + LOOP.replace(
        "EXIT", ".L_x_8:\n@P2 BRA `(.L_x_9)\nEXIT"
    )
    assert [length for length, _ in turns(outer)] == [3, 9]


def test_loads_of_which_a_predicate_chooses_one_count_once():
    chosen = LOOP.replace(
        "LDG.E.128 R4, desc[UR4][R8.64]",
        "@!P2 LDG.E.128 R4, desc[UR4][R8.64]\n@P2 LDG.E.EF.128 R4, desc[UR4][R8.64]",
    )
    assert turns(chosen) == [(10, [("loads", 16), ("loads", 16), ("stores", 8)])]
