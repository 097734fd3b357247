"""Errors suggest the nearest name; notes name legal values that are rarely meant."""

from __future__ import annotations

from typing import Any

import pytest

from minbert.config import Config
from minbert.fields import ConfigError, unusual
from minbert.tasks import choose_tasks
from tests.minbert.configs import configure

TASKS = choose_tasks()


@pytest.mark.parametrize(
    ("adapter", "message"),
    [
        ({"kind": "none", "knd": "lora"}, r"`adapter/knd`\. Did you mean `adapter/kind`\? Expected one of: adapter/k"),
        ({"kind": "lora", "rnk": 8}, r"`adapter/rnk`\. Did you mean `adapter/rank`\? Expected one of: adapter/alpha"),
        ({"kind": "none", "rnk": 8}, r"`adapter/rnk` where `adapter/kind` is none\. Did you mean `adapter/rank`, which "
                                     r"belongs to lora, dora, pal\? Give the kind as well: adapter/kind=lora"),
        ({"kind": "none", "rank": 8}, "`adapter/rank` where `adapter/kind` is none: it belongs to lora, dora, pal"),
        ({"kind": "none", "optimizer": {}}, r"`adapter/optimizer`\. Expected one of: adapter/kind\.$"),
    ],
)  # fmt: skip
def test_an_unknown_name_in_a_branch_gets_the_nearest_of_its_family(adapter: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"Unknown parameter {message}"):
        Config.from_dict({"adapter": adapter}, TASKS)


def test_an_unknown_kind_names_the_path_of_its_branch() -> None:
    with pytest.raises(ConfigError, match=r"^Unknown adapter `lorra`\. Did you mean `lora`"):
        configure("adapter/kind=lorra")
    with pytest.raises(ConfigError, match=r"^Unknown kind of `regularizer/sst`: `smrt`\. Did you mean `smart`"):
        configure("regularizer/sst/kind=smrt")
    with pytest.raises(ConfigError, match=r"^Unknown kind of `mixing/balance`: `x`\. Expected one of: gradnorm"):
        configure("mixing/kind=summed", "mixing/balance/kind=x")


def test_the_default_configuration_gets_no_note() -> None:
    assert unusual(configure()) == {}


def test_a_legal_value_that_is_rarely_meant_gets_a_note_with_the_usual_ones() -> None:
    values = {"optimizer": {"encoder_lr": 1.0, "head_lr": 1e-9}, "dropout": {"hidden": 0.9, "head": 0.5}}
    assert unusual(Config.from_dict(values, TASKS)) == {
        "optimizer/encoder_lr": "`optimizer/encoder_lr` = 1.0: rates above 1e-2 diverge as a rule; usual are 1e-06 to "
        "0.001",
        "optimizer/head_lr": "`optimizer/head_lr` = 1e-09: usual are 1e-05 to 0.01",
        "dropout/hidden": "`dropout/hidden` = 0.9: a rate above 0.5 drops more than it leaves; usual are 0 to 0.5",
    }
    assert unusual(configure("optimizer/encoder_lr=3e-3")) == {}, "high, but LoRA may need it"
