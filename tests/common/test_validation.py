"""Errors in values say what is expected, not what pydantic calls it."""

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common.validation import message_of, size_of


class Values(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    whole: int = 1
    several: Annotated[int, Field(ge=1, le=9)] = 1
    share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    flag: bool = True
    word: str = ""
    choice: Literal["sgd", "adamw"] = "sgd"
    pair: tuple[float, float] = (0, 1)
    many: Annotated[list[int], Field(min_length=2, max_length=3)] = [1, 2]
    pairs: dict[str, int] = {}
    folder: Path = Path()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"whole": "many"}, "expected a whole number"),
        ({"whole": 1.5}, "expected a whole number"),
        ({"whole": "9" * 5000}, "expected a whole number"),
        ({"whole": None}, "expected a whole number"),
        ({"several": 0}, "expected at least 1"),
        ({"several": 10}, "expected at most 9"),
        ({"share": 0}, "expected a number above 0"),
        ({"share": 1}, "expected a number below 1"),
        ({"share": "half"}, "expected a number"),
        ({"share": float("inf")}, "expected a finite number"),
        ({"flag": "perhaps"}, "expected true or false"),
        ({"flag": []}, "expected true or false"),
        ({"word": 7}, "expected a text"),
        ({"choice": "adam"}, "expected sgd or adamw"),
        ({"pair": 7}, "expected a list"),
        ({"pair": [7]}, "has 1 values, expected more"),
        ({"pair": [7, 8, 9]}, "has more values than 2, which are expected"),
        ({"many": "ab"}, "expected a list"),
        ({"many": [1]}, "has 1 values, expected at least 2"),
        ({"many": [1, 2, 3, 4]}, "has more values than 3, which are expected"),
        ({"pairs": [1]}, "expected KEY: VALUE pairs"),
        ({"folder": 3}, "expected a path"),
        ({"other": 3}, "unknown key"),
    ],
)
def test_messages(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Values(**values)
    assert message_of(caught.value.errors()[0]) == message


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (96, (96, 96)),
        ("96", (96, 96)),
        ("240x320", (240, 320)),
        (" 240 × 320 ", (240, 320)),
        ([240, 320], (240, 320)),
        ((240, 320), (240, 320)),
        (None, None),
    ],
)
def test_sizes(value: object, size: object) -> None:
    assert size_of(value) == size


@pytest.mark.parametrize(
    "value",
    ["96x", "x", "a", "1x2x3", "-96", 96.5, True, -96, [96], [96, 96.5], [96, "a"], [True, 96],
     [1, 2, 3], {"a": 1}, [], "9" * 5000],
)  # fmt: skip
def test_what_is_no_size(value: object) -> None:
    with pytest.raises(ValueError, match="write HxW, as in 240x320, or one number for a"):
        size_of(value)
