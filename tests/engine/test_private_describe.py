import json
import math
import re
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest

import fedpact as fp
from fedpact.channel.noise import Sampler
from fedpact.core.errors import ConfigError, DataError, SecureError
from fedpact.core.rows import ClientData, Rows
from fedpact.core.seeds import Seed
from fedpact.data.summary.record_sums import RecordSums
from fedpact.data.table_schema import ColumnSchema, TableSchema
from fedpact.engine.description import Description
from fedpact.engine.noisy_sums import CentralNoise, SharedNoise
from fedpact.privacy.accounting import account
from fedpact.privacy.audit import two_world_epsilon
from fedpact.privacy.events import Everyone, Gaussian, Release, Skellam
from fedpact.privacy.statement import Statement
from tests.cli.terminal import call, said

TINY = TableSchema(
    (
        ColumnSchema("age", "numeric", range=(0, 100)),
        ColumnSchema("ward", "category", categories=("a", "b")),
        ColumnSchema("note", "text"),
    )
)
# A row's vector: one for it, four for a range, two for categories, one for a column of which nothing is declared.
WEIGHT = 8


def tiny(clients: int = 3, rows: int = 40) -> list[ClientData]:
    draw = np.random.default_rng(5)
    tables = [
        pd.DataFrame(
            {
                "age": draw.uniform(20, 80, rows),
                "ward": draw.choice(["a", "b", "c"], rows, p=[0.6, 0.2, 0.2]),
                "note": ["x"] * rows,
            }
        )
        for _ in range(clients)
    ]
    return [ClientData(f"client {i}", Rows(table)) for i, table in enumerate(tables)]


@cache
def hospitals() -> tuple[Any, TableSchema, Description]:
    """Four hospitals, a schema with ranges that somebody knew, and the exact description."""
    clients = fp.datasets.breast_cancer()
    exact = fp.describe(clients)
    schema = exact.schema.with_column("label", categories=[0, 1])
    for column in exact.columns:
        if column.most is not None:
            schema = schema.with_column(column.name, range=(0, 1.2 * column.most))
    return clients, schema, exact


def within(chi: float, n: int) -> bool:
    """Return whether a sum of n squares of normal numbers is where it is but for two cases in 10^7.

    By Laurent and Massart (2000), lemma 1: beyond n ± 2√(nx) (+ 2x above) with a probability of e^−x on each side.
    """
    x = math.log(1e7)
    return n - 2 * math.sqrt(n * x) <= chi <= n + 2 * math.sqrt(n * x) + 2 * x


MASKS: list[Any] = [[], [fp.SecureSum()], [fp.SplitTrust(bits=24)]]


@pytest.mark.parametrize("channel", MASKS, ids=repr)
def test_noise_has_the_variance_that_the_description_states(channel: Any) -> None:
    columns, rows, times = 300, 200, 8
    half = pd.DataFrame({f"x{i}": [1.0, np.nan] * (rows // 2) for i in range(columns)})
    clients = [ClientData(id, Rows(half.assign(ward="a"))) for id in "abc"]
    schema = TableSchema(
        (
            *(ColumnSchema(name, "numeric") for name in half),
            ColumnSchema("ward", "category", categories=("a",)),
        )
    )
    found = []
    for _ in range(times):
        summary = fp.describe(clients, schema=schema, epsilon=5.0, channel=channel)
        # Of each column its own noise alone: that of the number of rows is in both.
        found += [each.count - each.missing for each in summary.columns[:-1]]
    # Half of the values are missing; rounding two numbers to whole ones adds 1/12 each.
    chi = float(np.sum(np.square(found))) / (summary.rows_error**2 + 1 / 6)
    assert summary.rows_error > 10
    assert within(chi, columns * times)


@pytest.mark.parametrize("channel", MASKS, ids=repr)
def test_errors_of_means_and_deviations_are_as_large_as_these_vary(channel: Any) -> None:
    clients, times = tiny(), 100
    exact = fp.describe(clients)["age"]
    described = [
        fp.describe(clients, schema=TINY, epsilon=6.0, channel=channel, bins=4)["age"] for _ in range(times)
    ]
    for name, error in (("mean", "mean_error"), ("deviation", "deviation_error")):
        off = np.array([getattr(each, name) - getattr(exact, name) for each in described])
        ratio = float(np.mean((off / np.array([getattr(each, error) for each in described])) ** 2))
        # Of 100 squares the mean is within 0.2 and 2.2 but once in 10^6; that rounding adds less than is stated, and
        # that the delta method is not exact, is in what is left.
        assert 0.1 < ratio < 2.6


@pytest.mark.parametrize("channel", [[], [fp.SecureSum()]], ids=repr)
def test_epsilon_is_what_accounting_says_of_the_noise_that_is_there(channel: Any) -> None:
    summary = fp.describe(tiny(), schema=TINY, epsilon=0.7, delta=1e-7, channel=channel)
    assert summary.privacy is not None
    (protection,) = summary.privacy.protections
    (release,) = protection.releases
    assert (protection.unit, protection.guarantee.delta, release.count) == ("record", 1e-7, 1)
    assert protection.guarantee.relation == "add_or_remove"
    # In rows: a row's vector has a length of √8, whatever a step is, and all three shares are in a sum that is opened.
    found = summary.rows_error / math.sqrt(WEIGHT)
    mechanism = Gaussian(found) if not channel else Skellam(found, 16 * WEIGHT, 16 * math.sqrt(WEIGHT))
    again = account([replace(release, mechanism=mechanism)], 1e-7)
    assert protection.guarantee.epsilon == pytest.approx(again.epsilon, rel=1e-9)
    assert 0.699 < again.epsilon <= 0.7


def test_an_attack_on_the_row_that_adds_most_proves_no_more_than_epsilon() -> None:
    sums = RecordSums(TINY.names, TINY, bins=4, step=16)
    task = sums.task(sums.init(None, Seed.of(0)))
    assert task is not None
    # At the end of its range both polynomials are 1, and nothing is rounded.
    longest = ClientData("a", Rows(pd.DataFrame({"age": [100.0], "ward": ["a"], "note": ["x"]})))
    row = sums.client(None, task, longest, {}, Seed.of(0))[0].summed["sums"].astype(float)
    assert row @ row == 16**2 * WEIGHT
    runs = 20_000

    def proved(sampler: Sampler, shares: int) -> float:
        noise = sum(sampler.draw(2 * runs * sums.size) for _ in range(shares))
        scores = np.reshape(noise, (2, runs, -1)) @ row
        return two_world_epsilon(scores[0] + row @ row, scores[1], 1e-5, confidence=1 - 1e-7)

    for noise, shares in ((CentralNoise(sums), 1), (SharedNoise(sums, clients=5, least=3), 3)):
        epsilon = account([Release(noise.mechanism(1.0), Everyone())], 1e-5).epsilon
        assert 0 < proved(noise.sampler(1.0), shares) < epsilon < 5
        # With a quarter of the noise the same attack shows that it is not there.
        assert proved(noise.sampler(0.25), shares) > epsilon


def test_fewer_shares_than_clients_have_all_of_the_noise() -> None:
    # Seven clients on the complete graph: sums of five are opened, so all seven add 7/5 of the variance.
    mask = fp.SecureSum()
    least = mask.least(7)
    assert least < 7
    summary = fp.describe(tiny(7), schema=TINY, epsilon=1.0, channel=mask)
    assert summary.privacy is not None
    (release,) = summary.privacy.protections[0].releases
    multiplier = release.mechanism.noise_multiplier
    assert summary.rows_error == pytest.approx(multiplier * math.sqrt(WEIGHT * 7 / least))


def test_with_little_noise_estimates_are_near_the_exact_ones() -> None:
    clients, schema, exact = hospitals()
    for channel in ([], [fp.SecureSum()]):
        noisy = fp.describe(clients, schema=schema, epsilon=50.0, channel=channel)
        assert abs(noisy.rows - exact.rows) < 7 * noisy.rows_error + 1
        for column in exact.columns:
            found = noisy[column.name]
            assert abs(found.count - column.count) < 7 * found.count_error + 1
            if column.mean is None:
                assert found.categories is not None
                assert column.categories is not None
                for label, rows in column.categories.items():
                    assert abs(found.categories[label] - rows) < 7 * found.cell_error + 1
            else:
                assert abs(found.mean - column.mean) < 7 * found.mean_error
                assert found.mean_error < 0.05 * column.deviation
                assert abs(found.deviation - column.deviation) < 10 * found.deviation_error
                assert found.least <= found.quantiles[0].value <= found.quantiles[-1].value <= found.most


def test_quantiles_are_within_their_errors_nearly_always() -> None:
    clients, schema, exact = hospitals()
    missed = told = 0
    for _ in range(5):
        noisy = fp.describe(clients, schema=schema, epsilon=10.0)
        for column in exact.columns:
            for each, true in zip(noisy[column.name].quantiles, column.quantiles, strict=True):
                told += 1
                missed += abs(each.value - true.value) > each.error
    assert told == 5 * 30 * 3
    # Of 450 not a quarter: 5 % on average at most, and those of one description's column are not independent.
    assert missed < 0.25 * told


def test_nothing_is_told_where_noise_alone_would_be_seen() -> None:
    clients = [ClientData("a", Rows(pd.DataFrame({"age": [50.0], "ward": ["a"], "note": ["x"]})))]
    quiet = 0
    for _ in range(10):
        summary = fp.describe(clients, schema=TINY, epsilon=0.01)
        age, ward = summary["age"], summary["ward"]
        quiet += (age.mean, age.histogram, age.quantiles, age.least) == (None, None, (), None)
        quiet += ward.categories == {}
    # Noise passes for values less than once in a hundred.
    assert quiet >= 16


def test_a_column_without_values_is_described_as_that() -> None:
    clients = tiny()
    empty = [ClientData(each.id, Rows(each.train.x.assign(age=np.nan, ward=None))) for each in clients]
    summary = fp.describe(empty, schema=TINY, epsilon=20.0)
    assert summary["age"].count < 7 * summary["age"].count_error + 1
    assert summary["age"].missing > 120 - 14 * summary.rows_error - 2
    age = summary["age"]
    assert age.mean is None or age.count > 4 * age.count_error - 1


def test_a_description_under_noise_has_no_label_balance_and_looks_at_the_schema_s_columns_alone() -> None:
    clients, schema, _ = hospitals()
    few = TableSchema((schema["mean radius"], schema["label"]))
    summary = fp.describe(clients, schema=few, epsilon=5.0)
    assert summary.labels == {}
    assert [column.name for column in summary.columns] == ["mean radius", "label"]
    assert summary.rows_error < fp.describe(clients, schema=schema, epsilon=5.0).rows_error / 3


def test_values_that_the_schema_does_not_allow_are_never_an_error() -> None:
    table = pd.DataFrame({"age": ["old", "-5", "1e9", None] * 300, "ward": ["z"] * 1200, "note": [1] * 1200})
    summary = fp.describe([ClientData("a", Rows(table))], schema=TINY, epsilon=40.0, bins=4)
    assert summary["age"].histogram is not None
    # A half of those that are numbers below the range, a half above.
    np.testing.assert_allclose(summary["age"].histogram.counts, [300, 0, 0, 300], atol=15)
    assert summary["age"].mean == pytest.approx(50, abs=5)
    assert summary["ward"].categories == {}
    assert summary["ward"].others == summary["ward"].count


@dataclass(frozen=True)
class Watched(fp.SecureSum):
    """A mask that remembers what leaves the clients."""

    sent: ClassVar[list[Any]] = []

    def encode_integers(self, update: Any, context: Any) -> Any:
        masked = super().encode_integers(update, context)
        self.sent.append((update, masked))
        return masked


def test_under_a_mask_no_clients_vector_is_seen_and_each_adds_its_share_before() -> None:
    Watched.sent.clear()
    clients = tiny()
    summary = fp.describe(clients, schema=TINY, epsilon=1.0, channel=Watched())
    assert len(Watched.sent) == 3
    for update, masked in Watched.sent:
        assert not update.summed
        assert update.answer is None
        (values,) = update.integers.arrays.values()
        # One vector, with noise of its own: 40 rows, in 16 steps each, would all be multiples of 16 in the counts.
        assert len(values) == 1 + 23 + 4 + 1
        assert any(values[:20] % 16)
        assert masked.integers.ring_bits == 32
    total = sum(next(iter(update.integers.arrays.values())) for update, _ in Watched.sent)
    assert summary.rows == max(0, round(total[0] / 16))
    assert summary.privacy is not None
    assert summary.privacy.server_sees == fp.SecureSum().seen()
    assert "everybody, the server too" in str(summary.privacy)


def test_an_encrypted_sum_carries_the_noise_too() -> None:
    pytest.importorskip("tenseal")
    summary = fp.describe(tiny(), schema=TINY, epsilon=50.0, channel=fp.HomomorphicSum())
    assert abs(summary.rows - 120) < 7 * summary.rows_error + 1


def test_the_statement_can_be_read_again() -> None:
    own = {"client 0": TableSchema((ColumnSchema("age", "numeric"),))}
    summary = fp.describe(tiny(), schema=TINY, epsilon=1.0, own=own)
    assert summary.privacy is not None
    assert Statement.from_json(json.loads(json.dumps(summary.privacy.to_json()))) == summary.privacy
    assert summary.privacy.in_clear == (
        "that every client has the columns of the schema",
        "the units of each client's columns",
    )
    assert summary.privacy.server_sees == "each client's part of every sum, as it is"
    assert "but not the server, which adds the noise" in str(summary.privacy)
    assert 0.999 < summary.privacy.epsilon <= 1.0
    assert summary.privacy.protections[0].guarantee.delta == 1e-6


def test_errors_are_in_the_table_the_file_and_the_picture(tmp_path: Path) -> None:
    summary = fp.describe(tiny(), schema=TINY, epsilon=20.0)
    assert summary.table.loc["age", "mean error"] == summary["age"].mean_error > 0
    assert summary.table.loc["note", "count error"] == summary["note"].count_error > 0
    summary.save(tmp_path / "description.json")
    data = json.loads((tmp_path / "description.json").read_text(encoding="utf-8"))
    assert data == json.loads(json.dumps(summary.to_json()))
    age, ward, note = data["columns"]
    assert data["rows_error"] == age["errors"]["each"] == ward["errors"]["each"]
    assert list(age["errors"]) == ["count", "mean", "sd", "each"]
    assert note["errors"] == {"count": summary["note"].count_error}
    titled = summary.draw()
    assert "±" in titled.get_suptitle()
    assert all(axes.containers for axes in titled.axes[:2])


def test_rows_read_in_chunks_are_described_too(tmp_path: Path) -> None:
    for client in tiny(2, 500):
        client.train.x.assign(risk=[0, 1] * 250).to_csv(tmp_path / f"{client.id}.csv", index=False)
    files = {path.stem: path for path in tmp_path.glob("*.csv")}
    clients = fp.clients(files, "risk", test=0.0, chunk_rows=130)
    schema = TableSchema((*TINY.columns, ColumnSchema("risk", "label", categories=(0, 1))))
    summary = fp.describe(clients, schema=schema, epsilon=50.0)
    assert summary["risk"].categories is not None
    for label in (0, 1):
        assert abs(summary["risk"].categories[label] - 500) < 7 * summary.rows_error + 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"epsilon": 0}, "epsilon is 0; it must be a number above 0"),
        ({"epsilon": -1.0}, "epsilon is -1.0"),
        ({"epsilon": math.nan}, "epsilon is nan"),
        ({"epsilon": 1.0, "delta": 1.0}, "delta is 1.0; it must be a number between 0 and 1"),
        ({"delta": 1e-6}, "delta goes with epsilon"),
        ({"epsilon": 1.0, "exact": True}, "exact=True tells values of rows"),
        ({"epsilon": 1.0, "schema": None}, "no schema is given; give schema="),
        ({"epsilon": 1.0, "schema": TableSchema((TINY["note"],))}, "this one has neither; give schema="),
        ({"epsilon": 1.0, "quantiles": [1.5]}, "each lies between 0 and 1"),
        ({"epsilon": 1.0, "own": {"nobody": TINY}}, 'own has a schema for "nobody"'),
        ({"epsilon": 1e-5, "channel": fp.SecureSum(bits=16)}, "no room for rows in the 16 bits of SecureSum"),
    ],
)
def test_a_setting_out_of_its_range_is_said(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        fp.describe(tiny(), **{"schema": TINY, **wrong})


def test_a_client_that_lacks_a_column_and_too_few_for_a_mask_are_named() -> None:
    with pytest.raises(DataError, match='client "client 0": there is no column "weight"'):
        fp.describe(
            tiny(), schema=TableSchema((*TINY.columns, ColumnSchema("weight", "numeric"))), epsilon=1.0
        )
    with pytest.raises(SecureError):
        fp.describe(tiny(2), schema=TINY, epsilon=1.0, channel=fp.SecureSum())


def test_more_rows_than_a_ring_holds_are_refused() -> None:
    with pytest.raises(DataError, match="more rows than can be summed under this mask"):
        fp.describe(tiny(3, 9000), schema=TINY, epsilon=1.0, channel=fp.SecureSum(bits=16))


def test_the_statement_says_from_how_many_rows_on_a_client_refuses() -> None:
    def asked(rows: int) -> Statement | None:
        return fp.describe(tiny(3, rows), schema=TINY, epsilon=20.0, channel=fp.SecureSum(bits=16)).privacy

    statement = asked(40)
    assert statement is not None
    (told,) = re.findall(r"no client has more than ([\d,]+) rows", " ".join(statement.in_clear))
    most = int(told.replace(",", ""))
    # Three clients, each with at most 2^13, leave 16 bits to no sum; some of it is for noise.
    assert 7000 < most < 2**13
    assert asked(most) is not None
    with pytest.raises(DataError, match="more rows than can be summed"):
        asked(most + 1)


def test_the_command_adds_noise_and_says_how_much(tmp_path: Path) -> None:
    for client in tiny(3, 400):
        client.train.x.to_csv(tmp_path / f"{client.id}.csv", index=False)
    toml = tmp_path / "schema.toml"
    toml.write_text(TINY.to_toml(), encoding="utf-8")
    files = sorted(tmp_path.glob("*.csv"))
    asked = ("data", "describe", *files, "--schema", toml, "--epsilon", 2, "--delta", "1e-8")
    for more in ((), ("--secure",)):
        ended = call(*asked, *more)
        assert ended.exit_code == 0
        text = said(ended.stdout)
        assert "± is a standard deviation of the noise" in text
        assert "1e-08)-differential privacy for each record" in text
        found = json.loads(call(*asked, *more, "--json").stdout)
        assert abs(found["rows"] - 1200) < 7 * found["rows_error"] + 1
        assert found["columns"][0]["errors"]["mean"] > 0
    refused = call("data", "describe", *files, "--epsilon", 2)
    assert refused.exit_code == 3
    assert "no schema is given" in said(refused.stderr)
