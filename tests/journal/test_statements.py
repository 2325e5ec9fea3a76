"""Every statement file: prepared on a migrated database, explained by its first lines, used whole."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path

import psycopg
import pytest

import continuum._journal
from continuum._journal.statements import check_schema, file_text, parts_of, statement
from continuum.errors import InvalidSetting

SQL = Path(continuum._journal.__file__).parent / "sql"
NAMES = sorted(path.stem for path in SQL.glob("*.sql"))


def variants(name: str) -> list[frozenset[str]]:
    parts = sorted(parts_of(name))
    return [frozenset(some) for size in range(len(parts) + 1) for some in combinations(parts, size)]


@pytest.mark.parametrize("server", ["embedded", "system"])
def test_every_statement_prepares_with_every_choice_of_its_parts(servers: object, server: str) -> None:
    with servers.database(server) as url, psycopg.connect(url, autocommit=True) as connection:  # type: ignore[attr-defined]
        for name in NAMES:
            for parts in variants(name):
                made = statement(name, "continuum", parts)
                connection.execute(b"prepare tried as " + made.text)
                found = connection.execute(
                    "select cardinality(parameter_types) from pg_prepared_statements where name = 'tried'"
                )
                assert found.fetchone() == (len(made.parameters),), (name, parts)
                connection.execute("deallocate tried")


@pytest.mark.parametrize("name", NAMES)
def test_one_name_is_one_parameter(name: str) -> None:
    """Two parts that give a name two types share a value all the same."""
    types: dict[str, set[str]] = {}
    for found in re.finditer(r"(?<!:):([a-z][a-z_]*)::([a-z]+(?:\[\])?)", file_text(f"sql/{name}.sql")):
        types.setdefault(found[1], set()).add(found[2])
    assert {parameter: found for parameter, found in types.items() if len(found) > 1} == {}


def test_the_flush_has_a_variant_for_every_table_and_for_telling() -> None:
    assert len(variants("flush")) == 2**11


@pytest.mark.parametrize("name", NAMES)
def test_a_statement_file_opens_with_a_comment_on_its_locks(name: str) -> None:
    text = file_text(f"sql/{name}.sql")
    comment = text[: re.search(r"^(?!--)", text, re.MULTILINE).start()]  # type: ignore[union-attr]
    assert comment.startswith("-- ")
    assert len(comment) > 20
    assert max(map(len, text.splitlines())) <= 125
    assert ";" not in re.sub(r"--.*", "", text), "one statement a file"


@pytest.mark.parametrize("name", NAMES)
def test_a_statement_file_is_used_somewhere(name: str) -> None:
    sources = "".join(path.read_text() for path in SQL.parent.glob("*.py"))
    assert f'"{name}"' in sources


@pytest.mark.parametrize("name", NAMES)
def test_a_statement_has_the_parameters_that_its_file_names(name: str) -> None:
    whole = statement(name, "continuum", parts_of(name))
    code = re.sub(r"--.*", "", file_text(f"sql/{name}.sql"))
    assert set(whole.parameters) == set(re.findall(r"(?<!:):([a-z_]+)", code))
    assert b"{schema}" not in whole.text
    assert set(re.findall(rb"\$(\d+)", whole.text)) == {b"%d" % (n + 1) for n in range(len(whole.parameters))}


@pytest.mark.parametrize(
    "schema",
    [
        "",
        "Big",
        "a b",
        "a;drop schema x",
        'a"b',
        "pg_mine",
        "1st",
        "x" * 41,
        "naïve",
        "a.b",
        "a\n",
        None,
        7,
        "a$1",
    ],
)
def test_a_name_that_cannot_be_a_schemas_is_refused(schema: object) -> None:
    with pytest.raises(InvalidSetting, match="cannot name") as caught:
        check_schema(schema)
    assert "\n" not in str(caught.value)
