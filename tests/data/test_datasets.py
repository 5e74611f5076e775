import gzip
import hashlib
import os
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedpact.core.errors import ConfigError, DataError, DependencyError
from fedpact.data.datasets import DATASETS, breast_cancer, describe, fashion_mnist, heart, load
from fedpact.data.datasets.download import RemoteFile, cache_folder, fetch, find

DATA = Path(os.environ.get("FEDPACT_DATA", "/nonexistent"))
needs_heart = pytest.mark.skipif(
    not (DATA / "heart_disease_4centres").is_dir(), reason="FEDPACT_DATA holds no heart_disease_4centres"
)
needs_fashion = pytest.mark.skipif(
    not (DATA / "fashion_mnist_pfllib_dir_50clients").is_dir(),
    reason="FEDPACT_DATA holds no fashion_mnist_pfllib_dir_50clients",
)


@pytest.fixture
def empty_machine(tmp_path, monkeypatch) -> Path:
    """A machine on which no data set has been loaded: returns its cache folder."""
    monkeypatch.delenv("FEDPACT_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "fedpact"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def website(tmp_path) -> Iterator[tuple[Path, str]]:
    """A folder, and the address under which a local server offers it."""
    folder = tmp_path / "website"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()
    thread.join()


def published(content: bytes, *addresses: str) -> RemoteFile:
    digest = hashlib.sha256(content).hexdigest()
    return RemoteFile("rows.csv", digest, len(content), tuple(address + "rows.csv" for address in addresses))


def test_a_published_file_is_downloaded_into_the_cache_once(empty_machine, website):
    folder, address = website
    (folder / "rows.csv").write_bytes(b"a,b\n1,2\n")
    file = published(b"a,b\n1,2\n", address)
    path = fetch("toy", file)
    (folder / "rows.csv").unlink()
    assert path == fetch("toy", file) == empty_machine / "toy" / "rows.csv"
    assert path.read_bytes() == b"a,b\n1,2\n"


@pytest.mark.parametrize("content", [b"a,b\n9,9\n", b"a,b\n", b"a,b\n1,2\n3,4\n"])
def test_other_bytes_than_the_published_leave_nothing_behind(empty_machine, website, content):
    folder, address = website
    (folder / "rows.csv").write_bytes(content)
    with pytest.raises(DataError, match=r"Could not download rows.csv"):
        fetch("toy", published(b"a,b\n1,2\n", address))
    assert list((empty_machine / "toy").iterdir()) == []


def test_the_next_mirror_is_asked_when_one_fails(empty_machine, website):
    folder, address = website
    (folder / "rows.csv").write_bytes(b"a\n1\n")
    file = published(b"a\n1\n", address + "gone/", address)
    assert fetch("toy", file).read_bytes() == b"a\n1\n"


def test_without_a_server_the_error_says_where_to_put_the_file(empty_machine):
    file = published(b"a\n1\n", "http://127.0.0.1:9/")
    where = str(empty_machine / "toy" / "rows.csv")
    with pytest.raises(DataError, match=f"bring the file from elsewhere to {where}, or set FEDPACT_DATA"):
        fetch("toy", file)


def test_a_corrupt_file_in_the_cache_is_downloaded_again(empty_machine, website):
    folder, address = website
    (folder / "rows.csv").write_bytes(b"a\n1\n")
    file = published(b"a\n1\n", address)
    fetch("toy", file).write_bytes(b"a\n")
    assert fetch("toy", file).read_bytes() == b"a\n1\n"


def test_the_users_own_copy_comes_before_the_cache(empty_machine, tmp_path, monkeypatch):
    (tmp_path / "mine" / "toy").mkdir(parents=True)
    (tmp_path / "mine" / "toy" / "rows.csv").write_bytes(b"a\n1\n")
    monkeypatch.setenv("FEDPACT_DATA", str(tmp_path / "mine"))
    assert fetch("toy", published(b"a\n1\n", "http://127.0.0.1:9/")).parent.parent == tmp_path / "mine"
    assert find("toy", "rows.csv") == tmp_path / "mine" / "toy" / "rows.csv"
    assert find("toy", "other.csv") is None


def test_an_altered_copy_of_the_users_is_refused_and_left_alone(empty_machine, tmp_path, monkeypatch):
    (tmp_path / "mine" / "toy").mkdir(parents=True)
    own = tmp_path / "mine" / "toy" / "rows.csv"
    own.write_bytes(b"a\n0\n")
    monkeypatch.setenv("FEDPACT_DATA", str(tmp_path / "mine"))
    with pytest.raises(DataError, match="is not the published file"):
        fetch("toy", published(b"a\n1\n", "http://127.0.0.1:9/"))
    assert own.read_bytes() == b"a\n0\n"


def test_a_data_folder_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setenv("FEDPACT_DATA", "/no/such/folder")
    with pytest.raises(DataError, match='FEDPACT_DATA is "/no/such/folder"'):
        find("toy", "rows.csv")


def test_the_cache_is_in_the_home_folder_unless_told_otherwise(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/home/ana")
    assert cache_folder() == Path("/home/ana/.cache/fedpact")


def test_breast_cancer_has_every_row_of_scikit_learn_once_with_malignant_as_1():
    sklearn = pytest.importorskip("sklearn.datasets")
    original = sklearn.load_breast_cancer(as_frame=True)
    expected = original.data.assign(label=1 - original.target)
    pooled = breast_cancer().pooled()
    loaded = pd.concat([rows.x.assign(label=rows.y) for rows in (pooled.train, pooled.test)])
    order = list(expected.columns)
    pd.testing.assert_frame_equal(
        loaded.sort_values(order, ignore_index=True), expected.sort_values(order, ignore_index=True)
    )
    assert expected["label"].sum() == 212


@pytest.mark.parametrize("seed", range(20))
def test_every_hospital_has_sixty_patients_and_both_classes_to_train_on(seed):
    pytest.importorskip("sklearn")
    for hospital in breast_cancer(seed):
        assert len(hospital.train) + len(hospital.test) >= 60
        assert set(hospital.train.y) == {0, 1}


def test_the_cancer_centre_sees_larger_tumours_than_the_screening_clinic():
    pytest.importorskip("sklearn")
    federation = breast_cancer()
    centre, clinic = (federation[id] for id in ("Northgate Cancer Centre", "Harbour Screening Clinic"))
    assert centre.train.x["mean radius"].mean() > clinic.train.x["mean radius"].mean() + 3
    assert centre.train.y.mean() > 0.5 > 0.2 > clinic.train.y.mean()


def test_a_hospital_alone_learns_less_than_all_together():
    pytest.importorskip("sklearn")
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def accuracy(train, test) -> float:
        model = make_pipeline(StandardScaler(), LogisticRegression())
        return model.fit(train.x, train.y).score(test.x, test.y)

    alone, together = [], []
    for seed in range(5):
        federation = breast_cancer(seed)
        pooled = federation.pooled()
        alone += [accuracy(hospital.train, pooled.test) for hospital in federation]
        together.append(accuracy(pooled.train, pooled.test))
    assert np.mean(alone) < np.mean(together) - 0.005


def test_breast_cancer_is_the_same_for_the_same_seed():
    pytest.importorskip("sklearn")
    for one, again in zip(breast_cancer(3), breast_cancer(3), strict=True):
        pd.testing.assert_frame_equal(one.train.x, again.train.x)
    assert breast_cancer(3).describe()["train"].tolist() != breast_cancer(4).describe()["train"].tolist()


def test_breast_cancer_without_scikit_learn_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DependencyError, match="install scikit-learn"):
        breast_cancer()


@needs_heart
def test_heart_has_the_centres_the_sizes_and_the_features_of_flamby():
    # The sizes are those of the table in FLamby's README of fed_heart_disease; 13 features since its pull
    # request 144.
    federation = heart()
    assert federation.ids == ("Cleveland", "Hungary", "Switzerland", "Long Beach")
    assert [(len(c.train), len(c.test)) for c in federation] == [(199, 104), (172, 89), (30, 16), (85, 45)]
    assert {member.train.x.shape[1] for member in federation} == {13}
    assert all((member.train.x.dtypes == "float64").all() for member in federation)


@needs_heart
def test_heart_has_the_rows_that_flambys_own_steps_keep():
    # FLamby's steps, on all centres at once as it takes them: drop, dropna, to_numeric, concat, get_dummies.
    tables = []
    for centre in ("cleveland", "hungarian", "switzerland", "va"):
        table = pd.read_csv(DATA / "heart_disease_4centres" / f"processed.{centre}.data", header=None)
        table = table.replace("?", np.nan).drop([10, 11, 12], axis=1).dropna(axis=0).apply(pd.to_numeric)
        tables.append(table.assign(centre=centre))
    together = pd.get_dummies(pd.concat(tables), columns=[2, 6], drop_first=True)
    for member, (_, expected) in zip(heart(), together.groupby("centre", sort=False), strict=True):
        features = expected.drop(columns=[13, "centre"]).astype(float).to_numpy()
        both = [np.column_stack([rows.x, rows.y]) for rows in (member.train, member.test)]
        found = np.concatenate(both)
        wanted = np.column_stack([features, expected[13] > 0])
        assert np.array_equal(found[np.lexsort(found.T)], wanted[np.lexsort(wanted.T)])


@needs_heart
def test_heart_has_the_label_counts_of_flambys_stratified_split():
    # A stratified split of 139 ill in 303, 98 in 261 and 101 in 130 at 66 % puts 91, 65 and 66 into train.
    # Switzerland has one healthy row of 46, so FLamby does not stratify it.
    counts = [(int(member.train.y.sum()), int(member.test.y.sum())) for member in heart()]
    assert [counts[0], counts[1], counts[3]] == [(91, 48), (65, 33), (66, 35)]
    assert sum(counts[2]) == 45


@needs_heart
def test_the_full_heart_data_have_all_rows_and_gaps():
    federation = heart("full")
    pooled = federation.pooled()
    assert [len(c.train) + len(c.test) for c in federation] == [303, 294, 123, 200]
    assert pooled.train.x.shape[1] == 13
    both = pd.concat([pooled.train.x, pooled.test.x])
    # How many "?" column 12 (ca) has in the four files.
    assert both["ca"].isna().sum() == 4 + 291 + 118 + 198
    assert set(both["thal"].dropna()) == {"normal", "fixed defect", "reversible defect"}
    assert set(both["cp"]) == {"typical angina", "atypical angina", "non-anginal pain", "asymptomatic"}


@needs_heart
def test_the_full_heart_data_have_the_diagnoses_that_their_authors_count():
    # heart-disease.names, section 10: 164, 188, 8 and 51 without disease.
    healthy = heart("full").describe()["label 0"]
    assert healthy.tolist() == [164, 188, 8, 51]


@needs_heart
def test_the_split_of_the_full_heart_data_follows_the_seed():
    one, again, other = (heart("full", seed=seed)["Hungary"].test for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(one.x, again.x)
    assert not one.x.equals(other.x)
    assert heart("full", test=0)["Hungary"].test is None


def test_the_flamby_split_cannot_be_changed():
    with pytest.raises(ConfigError, match="is fixed"):
        heart(test=0.5)
    with pytest.raises(ConfigError, match='Did you mean "flamby"'):
        heart("flambi")


@needs_heart
def test_heart_refuses_a_file_whose_gaps_were_filled_with_zeros(tmp_path, monkeypatch):
    folder = tmp_path / "heart_disease_4centres"
    folder.mkdir()
    for path in (DATA / "heart_disease_4centres").glob("*.data"):
        (folder / path.name).write_text(path.read_text().replace("?", "0"))
    monkeypatch.setenv("FEDPACT_DATA", str(tmp_path))
    with pytest.raises(DataError, match="is not the published file"):
        heart()


@pytest.fixture(scope="module")
def fashion():
    return fashion_mnist("pfllib")


@needs_fashion
def test_fashion_mnist_has_seven_thousand_images_of_each_class(fashion):
    table = fashion.describe()
    assert len(fashion) == 50
    assert [int(table[f"label {label}"].sum()) for label in range(10)] == [7000] * 10


@needs_fashion
def test_fashion_mnist_keeps_the_clients_and_the_split_of_the_file(fashion):
    with np.load(DATA / "fashion_mnist_pfllib_dir_50clients" / "fashion_mnist_50clients.npz") as file:
        x, y, where, split = (file[name] for name in ("x", "y", "client", "split"))
    for number in (0, 17, 49):
        for part, rows in enumerate((fashion[number].train, fashion[number].test)):
            mine = (where == number) & (split == part)
            assert np.array_equal(np.rint(rows.x[:, 0] * 255).astype(np.uint8), x[mine])
            assert np.array_equal(rows.y, y[mine])


@needs_fashion
def test_fashion_mnist_images_are_float32_of_one_channel_between_0_and_1(fashion):
    images = fashion[3].train
    assert images.x.shape == (len(images), 1, 28, 28)
    assert images.x.dtype == np.float32
    assert (images.x.min(), images.x.max()) == (0, 1)
    assert images.y.dtype == np.int64


@needs_fashion
def test_fashion_mnist_takes_the_given_clients_unless_told_otherwise(fashion):
    assert fashion_mnist().describe().equals(fashion.describe())


def test_the_pfllib_clients_cannot_be_changed_and_must_be_there(empty_machine):
    with pytest.raises(ConfigError, match="is fixed"):
        fashion_mnist("pfllib", clients=10)
    with pytest.raises(DataError, match="and is not there"):
        fashion_mnist("pfllib")
    with pytest.raises(ConfigError, match='Did you mean "dirichlet"'):
        fashion_mnist("dirchlet")


def idx(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(length.to_bytes(4, "big") for length in array.shape)
    return gzip.compress(header + array.tobytes())


@pytest.fixture
def small_fashion(empty_machine, website, monkeypatch) -> tuple[np.ndarray, np.ndarray]:
    """The four files as Zalando names and writes them, with 600 made-up images, at a local server."""
    folder, address = website
    generator = np.random.default_rng(0)
    x = generator.integers(0, 256, (600, 28, 28), dtype=np.uint8)
    y = generator.integers(0, 10, 600).astype(np.uint8)
    module = sys.modules["fedpact.data.datasets.fashion_mnist"]
    files = []
    for part, rows in (("train", slice(500)), ("t10k", slice(500, 600))):
        pair = []
        for kind, array in (("images-idx3", x[rows]), ("labels-idx1", y[rows])):
            name, content = f"{part}-{kind}-ubyte.gz", idx(array)
            (folder / name).write_bytes(content)
            digest = hashlib.sha256(content).hexdigest()
            pair.append(RemoteFile(name, digest, len(content), (address + name,)))
        files.append(tuple(pair))
    monkeypatch.setattr(module, "_FILES", files)
    return x, y


def test_downloaded_fashion_mnist_is_spread_over_clients_by_dirichlet(small_fashion):
    x, y = small_fashion
    federation = fashion_mnist(clients=5, alpha=0.5, seed=7)
    pooled = federation.pooled()
    images = np.concatenate([pooled.train.x, pooled.test.x])[:, 0]
    labels = np.concatenate([pooled.train.y, pooled.test.y])
    found = {
        image.tobytes(): label
        for image, label in zip(np.rint(images * 255).astype(np.uint8), labels, strict=True)
    }
    assert found == {image.tobytes(): label for image, label in zip(x, y, strict=True)}
    assert len(federation) == 5
    assert min(len(c.train) + len(c.test) for c in federation) >= 10
    assert "Dirichlet(0.5) over 5 clients" in federation.note


def test_downloaded_fashion_mnist_is_the_same_for_the_same_seed(small_fashion):
    one, again, other = (
        fashion_mnist("dirichlet", clients=4, alpha=1, seed=seed, test=0)[0] for seed in (1, 1, 2)
    )
    assert np.array_equal(one.train.x, again.train.x)
    assert not np.array_equal(one.train.y, other.train.y)
    assert one.test is None


def test_a_data_set_is_loaded_by_its_name_with_its_options():
    pytest.importorskip("sklearn")
    assert load("breast_cancer", seed=3).describe().equals(breast_cancer(seed=3).describe())


def test_a_misspelt_data_set_or_option_names_the_nearest():
    with pytest.raises(ConfigError, match='Did you mean "breast_cancer"'):
        load("breast-cancer")
    with pytest.raises(ConfigError, match=r'"heart" has no option "sede"\. Did you mean "seed"'):
        load("heart", sede=3)
    with pytest.raises(ConfigError, match="There are breast_cancer, heart, fashion_mnist"):
        load("zzz")


def test_the_list_of_data_sets_says_what_each_is_without_loading_it(empty_machine):
    listed = describe()
    assert [about.name for about in listed] == list(DATASETS)
    assert all(about.task and about.source and about.terms for about in listed)


@pytest.mark.parametrize(
    "name",
    [
        "breast_cancer",
        pytest.param("heart", marks=needs_heart),
        pytest.param("fashion_mnist", marks=needs_fashion),
    ],
)
def test_what_the_list_says_is_true_of_what_is_loaded(name):
    pytest.importorskip("sklearn")
    about = next(about for about in describe() if about.name == name)
    federation = load(name)
    assert len(federation) == about.clients
    assert int(federation.describe()[["train", "test"]].to_numpy().sum()) == about.rows
    assert (federation.name, federation.source, federation.terms) == (name, about.source, about.terms)
