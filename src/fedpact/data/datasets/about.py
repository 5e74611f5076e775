"""What is known of a data set before it is loaded."""

from dataclasses import dataclass


@dataclass(frozen=True)
class About:
    """One line in the list of data sets.

    Args:
        name: as `load` takes it.
        clients: how many, as loaded by default.
        rows: how many in all, as loaded by default.
        task: what is predicted from what.
        source: who collected the data, and where they are published.
        terms: the licence.
        download_bytes: fetched at first use; 0 for data that come with an installed library.
    """

    name: str
    clients: int
    rows: int
    task: str
    source: str
    terms: str
    download_bytes: int
