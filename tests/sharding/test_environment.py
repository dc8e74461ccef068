"""The place of a process, from the variables of torchrun; impossible ones are one clear line."""

from __future__ import annotations

import pytest

from hdgan.errors import ConfigError
from hdgan.sharding.environment import ProcessPlace, place_of

OF_TWO = {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


@pytest.mark.parametrize(
    ("environment", "place"),
    [
        ({}, ProcessPlace()),
        ({"WORLD_SIZE": "1", "RANK": "0"}, ProcessPlace()),
        (OF_TWO, ProcessPlace(1, 2, 0, 1)),
        (OF_TWO | {"LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}, ProcessPlace(1, 2, 1, 2)),
        (OF_TWO | {"WORLD_SIZE": "16", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "8"}, ProcessPlace(1, 16, 1, 8)),
    ],
)
def test_a_process_knows_its_place(environment: dict[str, str], place: ProcessPlace) -> None:
    assert place_of(environment) == place


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"RANK": "0"}, "RANK is 0, but WORLD_SIZE is not set"),
        ({**OF_TWO, "RANK": "2"}, "RANK is '2', but must be a number from 0 to 1"),
        ({**OF_TWO, "RANK": "-1"}, "RANK is '-1', but must be a number from 0 to 1"),
        ({**OF_TWO, "WORLD_SIZE": "two"}, "WORLD_SIZE is 'two', but must be a number from 1 to"),
        ({**OF_TWO, "WORLD_SIZE": "0"}, "WORLD_SIZE is '0'"),
        ({**OF_TWO, "MASTER_PORT": ""}, "MASTER_PORT is '', but must be a number from 0 to 65535"),
        ({**OF_TWO, "LOCAL_RANK": "5"}, "LOCAL_RANK is '5', but must be a number from 0 to 1"),
        ({**OF_TWO, "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "1"}, "LOCAL_WORLD_SIZE is '1', but must be .* from 2 to 2"),
    ],
)
def test_an_impossible_place_is_named(environment: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=rf"{message}.*: start the command with torchrun"):
        place_of(environment)


@pytest.mark.parametrize("name", ["RANK", "MASTER_ADDR", "MASTER_PORT"])
def test_a_variable_that_is_missing_is_named(name: str) -> None:
    incomplete = {variable: value for variable, value in OF_TWO.items() if variable != name}
    with pytest.raises(ConfigError, match=f"WORLD_SIZE is 2, but {name} is not set"):
        place_of(incomplete)
