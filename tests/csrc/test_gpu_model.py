"""The page of predictions is the one that the tables give, and its formula does what the page says."""

import pytest

from tests.csrc.gpu_model import GPUS, LAUNCH, PAGE, Gpu, Work, page, predict, works
from tests.csrc.sass import Loop
from tests.csrc.traffic import Traffic, read_table


def test_page_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == page(), "run python -m tests.csrc.gpu_model"


def test_every_call_has_its_counts():
    rows = read_table().values()
    for work in works():
        assert any((row.variant, row.function) == (work.variant, work.function) for row in rows), work.title


def test_prediction_is_the_longest_part_and_what_cannot_overlap():
    gpu = Gpu("one", multiprocessors=1, clock=1e9, copy=64e9)
    work = Work("", "", "f", "", read=16e6, written=16e6)
    row = Traffic("f", "", "nchw", "float32", "f", load=1.0, store=1.0, requested=1.0, memory=1.0)
    assert predict(work, row, 0, gpu).time == pytest.approx(128e6 / 64e9 + LAUNCH)
    twice = Traffic("f", "", "nchw", "float32", "f", load=2.0, store=1.0, requested=1.5, memory=2.0)
    assert predict(work, twice, 0, gpu).time == pytest.approx(2 * 128e6 / 64e9 + LAUNCH)
    slow = predict(work, row, slots=40e6, gpu=gpu)
    assert slow.bound == "issue"
    assert slow.time == pytest.approx(40e6 / 4e9 + LAUNCH)
    assert slow.of_copy == pytest.approx(128e6 / 64e9 / slow.time)


def test_no_prediction_beats_a_copy():
    rows = read_table().values()
    for gpu in GPUS:
        for work in works():
            for row in rows:
                if (row.variant, row.function) == (work.variant, work.function):
                    assert 0 < predict(work, row, 0, gpu).of_copy < 1


def test_a_loop_counts_its_bytes_of_global_memory_first():
    loop = Loop("x", "kernel", 256, 32, 8, 0, 40, "4x16", "2x8", "4x16")
    assert loop.bytes == 80
    assert Loop("x", "kernel", 256, 32, 8, 0, 40, "", "", "4x16").bytes == 64
