"""The keys of seals: in a cluster's table or a file, the newest last, and never shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.model import Seal, SealKey
from proxy.settings import describe, parse
from proxy.settings.seals import format_keys, parse_keys
from tests.settings.parsing import bad, good

A, B = "a" * 32, "b" * 40
SHARED = '[cluster.shared]\nkind = "shared"\nprimary = "c1"\n'


def sealed(keys: str, proxy: str = "") -> str:
    return f"[proxy]\n{proxy}\n{SHARED}seal_keys = {keys}\n"


def test_without_keys_nothing_is_sealed() -> None:
    assert good(SHARED).directory.clusters["shared"].seal is None
    assert good(sealed("[]")).directory.clusters["shared"].seal is None


def test_keys_in_their_order() -> None:
    loaded = good(sealed(f'["old:{A}", "2025-11_b:{B}"]', 'tenant_guc = "My.Tenant"\nseal_lifetime = "1h"'))
    assert loaded.directory.clusters["shared"].seal == Seal(
        "My.Tenant", 3600.0, (SealKey("old", A), SealKey("2025-11_b", B))
    )
    assert A not in repr(loaded)
    assert ("seal_lifetime", "1h", "15m", "yes") in describe(loaded)


@pytest.mark.parametrize(
    "keys",
    [
        '"old"',
        f'["{A}"]',
        f'["a b:{A}"]',
        '["a:short"]',
        f'[":{A}"]',
        f'["{"x" * 33}:{A}"]',
        "[1]",
        f'"a:{A}"',
    ],
)
def test_what_is_no_key_is_not_shown(keys: str) -> None:
    said = bad(sealed(keys))
    assert said.startswith('f.toml: [cluster.shared] seal_keys: must be a list of "id:secret"')
    assert A not in said


def test_a_secret_may_be_in_the_environment() -> None:
    loaded = parse(sealed('["k:${SEAL}"]'), "f.toml", {"SEAL": B})
    assert loaded.directory.clusters["shared"].seal == Seal("app.tenant_id", 900.0, (SealKey("k", B),))


def test_an_id_that_is_there_twice() -> None:
    assert 'has key "k" twice' in bad(sealed(f'["k:{A}", "k:{B}"]'))


@pytest.mark.parametrize("lifetime", ["0", "500ms"])
def test_a_lifetime_that_would_never_be_over_or_always(lifetime: str) -> None:
    assert "[proxy] seal_lifetime: must be at least 1s" in bad(
        sealed(f'["k:{A}"]', f'seal_lifetime = "{lifetime}"')
    )


def test_the_seal_is_no_parameter_of_a_tenant() -> None:
    said = bad(f'{SHARED}[tenant.x]\ntier = "free"\nparameters = {{ "Tiergate.Seal" = "x" }}')
    assert "tiergate.seal proves the tenant; only the proxy sets it" in said


# --- files ------------------------------------------------------------------------------------------


def from_file(directory: Path, text: str | None, more: str = "") -> str:
    if text is not None:
        (directory / "keys").write_text(text)
    (directory / "f.toml").write_text(f'{SHARED}seal_keys_file = "keys"\n{more}')
    return str(directory / "f.toml")


def test_a_file_with_a_key_a_line(tmp_path: Path) -> None:
    path = from_file(tmp_path, f"# the first\nold:{A}\n\nnew:{B}\n")
    seal = parse(Path(path).read_text(), path).directory.clusters["shared"].seal
    assert seal is not None
    assert seal.keys == (SealKey("old", A), SealKey("new", B))
    assert seal.keys_file == str(tmp_path / "keys")


@pytest.mark.parametrize(
    ("text", "said"),
    [(None, "cannot read"), ("", "has no key in it"), (f"old:{A}\n{B}\n", "line 2 is not id:secret")],
)
def test_a_file_that_is_none(tmp_path: Path, text: str | None, said: str) -> None:
    path = from_file(tmp_path, text)
    with pytest.raises(Exception, match=said) as caught:
        parse(Path(path).read_text(), path)
    assert A not in str(caught.value)
    assert B not in str(caught.value)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (f'seal_keys = ["x:{A}"]\n', "keep one of them"),
        ('[cluster.b]\nprimary = "c2"\nseal_keys_file = "./keys"\n', 'is also the file of cluster "shared"'),
    ],
)
def test_what_contradicts_a_file(tmp_path: Path, more: str, said: str) -> None:
    path = from_file(tmp_path, f"old:{A}\n", more)
    with pytest.raises(Exception, match=said):
        parse(Path(path).read_text(), path)


def test_a_file_is_read_as_it_is_written() -> None:
    keys = (SealKey("a", A), SealKey("b", B))
    assert parse_keys(format_keys(keys)) == keys
