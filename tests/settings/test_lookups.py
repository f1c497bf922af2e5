"""Who asks clusters about roles: a cluster's own keys before the proxy's, and what cannot be."""

from __future__ import annotations

import pytest

from proxy.settings import describe
from tests.settings.parsing import bad, good

OWN = '[cluster.own]\nprimary = "c1"\n'
SHARED = '[cluster.shared]\nkind = "shared"\nprimary = "c1"\n'
PROXY = '[proxy]\nauth_user = "asker"\nauth_password = "a-secret"\nauth_dbname = "auth"\n'


def test_nobody_asks_unless_it_is_said() -> None:
    assert good(OWN).directory.clusters["own"].auth_user == ""


def test_the_proxys_keys_are_those_of_clusters_that_say_nothing_else() -> None:
    loaded = good(f'{PROXY}{OWN}{SHARED}auth_user = "other"\nauth_dbname = ""\n')
    own, shared = (loaded.directory.clusters[name] for name in ("own", "shared"))
    assert (own.auth_user, own.auth_password, own.auth_dbname) == ("asker", "a-secret", "auth")
    assert (shared.auth_user, shared.auth_password, shared.auth_dbname) == ("other", "", "")
    assert "a-secret" not in repr(loaded)
    assert ("auth_password", "********", "", "yes") in describe(loaded)
    assert good(f'{PROXY}{OWN}auth_user = ""\n').directory.clusters["own"].auth_user == ""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f'{OWN}auth_query = "SELECT $1"\n', "auth_query needs it"),
        ('[proxy]\nauth_query = "SELECT $1"\n', "auth_query needs it"),
        (f'{OWN}auth_user = "a"\nauth_query = "SELECT 1, $10"\n', "must ask for the user $1"),
        (f'{SHARED}auth_user = "a"\nauth_query = "SELECT f($1)"\n', "must ask whose a role is"),
        (f'{OWN}auth_user = "a"\nauth_password = "SCRAM-SHA-256$x"\n', "verifier"),
    ],
)
def test_what_cannot_be(text: str, said: str) -> None:
    assert said in bad(text)


def test_a_query_that_asks_whose_a_role_is() -> None:
    query = "SELECT * FROM auth.role($1, $2)"
    loaded = good(f'{SHARED}auth_user = "a"\nauth_query = "{query}"\n')
    assert loaded.directory.clusters["shared"].auth_query == query
