"""What operators see of the caps of a fleet, and of what they are warned."""

from __future__ import annotations

import pytest

from proxy.admission.stakes import Row
from proxy.control.views.sharing import FleetRow, fleet, shares, warnings

WELL = FleetRow(1, 90, "", "joined", 2, 2, 6)


def test_a_proxy_that_is_alone_has_nothing_to_show() -> None:
    assert fleet(None).rows == []
    assert shares(()).rows == []
    assert warnings(fleet(None)) == []


def test_columns_are_those_of_the_rows() -> None:
    view = fleet(WELL)
    assert (view.columns, view.rows) == (FleetRow._fields, [(1, 90, "", "joined", 2, 2, 6)])
    view = shares([Row("tenant a max_connections", 20, 15, 12, 3), Row("tier b max_connections", 4, 1, 0, 0)])
    assert view.columns == ("name", "limit", "share", "used", "wanted")
    assert [row[:3] for row in view.rows] == [
        ("tenant a max_connections", 20, 15),
        ("tier b max_connections", 4, 1),
    ]


@pytest.mark.parametrize(
    ("row", "warning"),
    [
        (WELL, ""),
        (WELL._replace(state="joining"), ""),
        (
            WELL._replace(redis=0, seconds=4, share_seconds=2),
            "redis of the fleet has not answered for 4 s: the last share of each cap is used for 2 s more",
        ),
        (
            WELL._replace(redis=0, seconds=9, state="cut"),
            "redis of the fleet has not answered for 9 s: only the fixed part of each cap is used",
        ),
        (WELL._replace(proxies=3), "3 proxies share caps, more than fleet_size = 2"),
    ],
)
def test_what_operators_are_warned_of(row: FleetRow, warning: str) -> None:
    assert warnings(fleet(row)) == ([warning] if warning else [])
