"""Fashion-MNIST: 70,000 small images of clothes, spread over clients by skewed labels."""

import gzip
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import ConfigError, DataError, suggest
from fedpact.core.rows import ClientData, Rows
from fedpact.core.seeds import Seed
from fedpact.data.datasets.about import About
from fedpact.data.datasets.download import RemoteFile, fetch, find
from fedpact.data.federation import Federation
from fedpact.data.partition import dirichlet
from fedpact.data.split import hold_out

ABOUT = About(
    name="fashion_mnist",
    clients=50,
    rows=70_000,
    task="classification, 10 classes, from images of 28 × 28 pixels",
    source="Fashion-MNIST, H. Xiao, K. Rasul and R. Vollgraf, 2017, arXiv 1708.07747, Zalando Research",
    terms="MIT",
    download_bytes=30_878_645,
)

CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

Partition = Literal["dirichlet", "pfllib"]

_FOLDER = "fashion_mnist"
_MIRRORS = (
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
)
_PFLLIB_FOLDER = "fashion_mnist_pfllib_dir_50clients"
_PFLLIB_FILE = "fashion_mnist_50clients.npz"
_FEWEST_ROWS = 10


def _published(name: str, sha256: str, size_bytes: int) -> RemoteFile:
    return RemoteFile(name, sha256, size_bytes, tuple(mirror + name for mirror in _MIRRORS))


_FILES = [
    (
        _published(
            "train-images-idx3-ubyte.gz",
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            26_421_880,
        ),
        _published(
            "train-labels-idx1-ubyte.gz",
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            29_515,
        ),
    ),
    (
        _published(
            "t10k-images-idx3-ubyte.gz",
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            4_422_102,
        ),
        _published(
            "t10k-labels-idx1-ubyte.gz",
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
            5_148,
        ),
    ),
]


def fashion_mnist(
    partition: Partition | None = None,
    *,
    clients: int = 50,
    alpha: float = 0.3,
    seed: int = 0,
    test: float = 0.2,
) -> Federation:
    """Load Fashion-MNIST as clients with skewed labels.

    Features: images, float32 in [0, 1], [n, 1, 28, 28]. Label: one of the ten `CLASSES`, int64.
    All 70,000 images are used, 7,000 of each class, and each client has test images of its own.

    Source: Xiao, Rasul and Vollgraf, 2017, arXiv 1708.07747. Terms: MIT, Zalando SE.

    Args:
        partition: "dirichlet" draws the clients here (`fedpact.data.partition.dirichlet`, at least ten rows
            each). "pfllib" is a split that was drawn with PFLlib (50 clients, Dirichlet 0.3, a fifth of each
            client's rows to test), read from fashion_mnist_pfllib_dir_50clients/fashion_mnist_50clients.npz
            in the folder that FEDPACT_DATA names: x uint8 [70000, 28, 28], y, client, split (0 train, 1
            test). None is "pfllib" where that file is there and the other arguments are left alone, else
            "dirichlet"; the federation's `note` says which it became.
        clients: how many clients "dirichlet" draws.
        alpha: its concentration; smaller is more skewed.
        seed: draws the clients and their test rows.
        test: the share of each client's rows that become test rows; 0 for none.

    Raises:
        ConfigError: another partition, an option that "pfllib" fixes, or one that cannot be met.
        DataError: the files are not here and cannot be downloaded (31 MB), or are altered.
    """
    if partition is not None and partition not in get_args(Partition):
        near = suggest(partition, get_args(Partition))
        raise ConfigError(f'fashion_mnist has partitions "dirichlet" and "pfllib", not "{partition}".{near}')
    as_given = (clients, alpha, seed, test) == (50, 0.3, 0, 0.2)
    given = find(_PFLLIB_FOLDER, _PFLLIB_FILE)
    if partition == "pfllib" and not as_given:
        raise ConfigError(
            'Partition "pfllib" is fixed: leave clients, alpha, seed and test out, or take "dirichlet".'
        )
    if partition == "pfllib" and given is None:
        raise DataError(
            f'Partition "pfllib" is read from {_PFLLIB_FOLDER}/{_PFLLIB_FILE} in the folder that '
            'FEDPACT_DATA names, and is not there: put it there, or take partition="dirichlet".'
        )
    if given is not None and as_given and partition != "dirichlet":
        members = _given(given)
        note = "The split of PFLlib: Dirichlet(0.3) over 50 clients, a fifth of each to test."
    else:
        members = _drawn(clients, alpha, seed, test)
        note = f"Dirichlet({alpha}) over {clients} clients, seed {seed}, a share of {test} of each to test."
    return Federation(
        tuple(members),
        name=ABOUT.name,
        source=ABOUT.source,
        terms=ABOUT.terms,
        note=note,
        label=", ".join(f"{number} {name}" for number, name in enumerate(CLASSES)),
        reads={"name": ABOUT.name},
    )


def _given(path: Path) -> list[ClientData]:
    try:
        with np.load(path, allow_pickle=False) as file:
            x, y, client, split = (file[name] for name in ("x", "y", "client", "split"))
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path} is not the file of 50 clients that it should be: {error}") from error
    if x.shape[1:] != (28, 28) or not len(x) == len(y) == len(client) == len(split):
        raise DataError(
            f"{path} is not the file of 50 clients that it should be: x is {x.shape}, y {y.shape}."
        )

    def rows(number: int, part: int) -> Rows:
        return _images(x, y, np.flatnonzero((client == number) & (split == part)))

    return [
        ClientData(f"client-{number:02d}", rows(number, 0), rows(number, 1)) for number in np.unique(client)
    ]


def _drawn(clients: int, alpha: float, seed: int, test: float) -> list[ClientData]:
    pairs = [(_idx(fetch(_FOLDER, images)), _idx(fetch(_FOLDER, labels))) for images, labels in _FILES]
    x, y = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    # Positions stand in for images, so that no image is copied before it is known where it goes.
    places = Rows(np.arange(len(y)), y)
    members = []
    for id, index in dirichlet(places, clients, alpha, seed, min_rows=_FEWEST_ROWS).items():
        member = hold_out(id, places.take(index), test, Seed.of(seed))
        held_out = None if member.test is None else _images(x, y, member.test.x)
        members.append(ClientData(id, _images(x, y, member.train.x), held_out))
    return members


def _images(x: NDArray[np.uint8], y: NDArray[np.integer], index: NDArray[np.integer]) -> Rows:
    images = x[index, None].astype(np.float32)
    images /= 255
    return Rows(images, y[index].astype(np.int64))


def _idx(path: Path) -> NDArray[np.uint8]:
    """Read the idx format: two zero bytes, 8 for uint8, the number of axes, their lengths, the bytes."""
    with gzip.open(path) as file:
        content = file.read()
    shape = np.frombuffer(content, dtype=">u4", count=content[3], offset=4)
    return np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * content[3]).reshape(shape)
