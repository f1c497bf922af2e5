from __future__ import annotations

import pytest

from proxy.sql.verdict import inspect


@pytest.mark.parametrize(
    ("text", "own"),
    [
        ("PREPARE a AS SELECT 1", ["PREPARE a AS SELECT 1"]),
        (" PREPARE a AS SELECT ';' ; ", [" PREPARE a AS SELECT ';' ; "]),
        ("SELECT 1; PREPARE a AS SELECT 2; SELECT 3", ["PREPARE a AS SELECT 2"]),
        ("SELECT 'é'; PREPARE é AS SELECT 'ü'; PREPARE b AS TABLE t", ["PREPARE é AS SELECT 'ü'", "PREPARE b AS TABLE t"]),
        (";;PREPARE a AS SELECT 1;;PREPARE b AS SELECT 2;;", ["PREPARE a AS SELECT 1", "PREPARE b AS SELECT 2"]),
        (
            "PREPARE a AS SELECT $$;$$; /* ; */ PREPARE b AS SELECT 2 -- ;",
            ["PREPARE a AS SELECT $$;$$", "PREPARE b AS SELECT 2 -- ;"],
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_each_prepare_gets_its_own_text(text: str, own: list[str], encoding: str) -> None:
    found = inspect(text.encode(encoding)).prepares
    assert [cut.strip() for _, cut in found] == [cut.strip().encode(encoding) for cut in own]
    if len(own) == 1:
        assert found[0][0].encode("utf-8", "surrogateescape") in text.encode(encoding)
