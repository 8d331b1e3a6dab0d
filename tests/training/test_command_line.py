"""Numbers that no command can use are wrong usage, and above all no verdict."""

import pytest
from click.testing import CliRunner

from training.__main__ import main

TABLE = "pyproject.toml"  # never read


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ("compare", "models/starter", "models/starter", "--data", TABLE, "--margin", "nan"),
            "nan is not a number",
        ),
        (("compare", "models/starter", "models/starter", "--data", TABLE, "--seed", "-1"), "--seed"),
        (("contract", "models/starter", "--data", TABLE, "--seed", "-1"), "--seed"),
        (("contract", "models/starter", "--data", TABLE, "--certainty", "nan"), "nan is not a number"),
        (("evaluate", "models/starter", TABLE, "--workers", "-1"), "--workers"),
    ],
)
def test_an_impossible_number_is_wrong_usage(arguments, told):
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert told in result.stderr
