from typing import Any

import pytest

from fedpact.core.errors import ConfigError
from fedpact.core.passwords import holds_password, refuse_passwords


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ward:tulip@host/stays",
        "postgresql://:tulip@host/stays",
        # Clouds have names of users with the server in them; the last @ but one is of the name.
        "postgresql://ward@lyon:tulip@host/stays",
        "postgresql://host/stays?password=tulip",
        "postgresql://host/stays?Password%20=%20tulip",
        "mssql+pyodbc:///?odbc_connect=SERVER%3Dhost%3BPWD%3D%7Btulip%7D",
        "postgresql://ward:${NAME}@host/stays?sslpassword=tulip",
        "postgresql://ward:tulip${NAME}@host/stays",
    ],
)
def test_a_url_with_a_password_holds_one(url: str) -> None:
    assert holds_password(url)


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///ward.db",
        "sqlite:////data/a:b@c/ward.db",
        "postgresql://ward@host:5432/stays",
        "postgresql://ward:@host/stays",
        "postgresql://ward@lyon:${WARD_PASSWORD}@host:5432/stays",
        "mssql+pyodbc:///?odbc_connect=SERVER%3Dhost%3BPWD%3D${WARD_PASSWORD}%3BTimeout%3D5",
        "${WARD_DATABASE}",
        "SELECT age FROM stays WHERE note = 'password=tulip'",
    ],
)
def test_a_url_that_names_a_variable_or_nothing_holds_none(url: str) -> None:
    assert not holds_password(url)


@pytest.mark.parametrize(
    ("settings", "where"),
    [
        ("a://b:tulip@c", "data"),
        ({"clients": {"lyon": {"url": "a://b:tulip@c"}}}, "data.clients.lyon.url"),
        ({"clients": [{"url": "a://b@c"}, {"url": "a://b:tulip@c"}]}, "data.clients.url"),
    ],
)
def test_where_a_password_is_is_said_and_it_is_not(settings: Any, where: str) -> None:
    with pytest.raises(ConfigError, match=f"^{where} holds a password") as refused:
        refuse_passwords(settings, "data")
    assert "tulip" not in str(refused.value)
