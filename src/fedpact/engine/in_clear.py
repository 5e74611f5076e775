"""What a run tells of clients in clear: beside their updates, and beside the parts of sums that a mask hides."""

from fedpact.channel.channel import Channel
from fedpact.data.preprocess.fit import FitPipeline
from fedpact.data.preprocess.resample import resampling_apart
from fedpact.engine.parts import Parts
from fedpact.engine.preparation import Preparation
from fedpact.engine.records import protects_records


def told_in_clear(
    parts: Parts, channel: Channel, preparation: Preparation, compared: bool, evaluated: bool
) -> tuple[str, ...]:
    """Return what was told, in phrases.

    Args:
        parts: the objects that the job is made of.
        channel: what updates went through.
        preparation: what prepared the clients' rows.
        compared: whether their tables were compared with a schema, or with each other's.
        evaluated: whether they judged models on rows held aside.
    """
    told = ["who took part in which round", "when, and for how long"]
    mask = channel.mask
    if (mask is None or mask.weighs) and channel.weighs_rows:
        told.append(f"how many rows each client {'trains on' if preparation.resizes else 'has'}")
        if preparation.resampler is not None:
            told.append("what their number after resampling tells of the balance of a client's labels")
    if mask is None and channel.noise is None and not protects_records(parts.algorithm):
        told.append("each client's training loss")
    if compared:
        told.append(
            "the units of each client's columns, and what its own schema says of ranges and categories"
        )
    told += _of_preparation(parts, preparation, masked=mask is not None)
    if evaluated and mask is not None:
        told.append("the metrics over all rows that clients hold aside")
    elif evaluated:
        told.append("how many rows each client holds aside, and its metrics on them")
    return tuple(told)


def _of_preparation(parts: Parts, preparation: Preparation, masked: bool) -> list[str]:
    told = []
    labels, pipeline = preparation.labels, preparation.pipeline
    steps, _ = resampling_apart(parts.steps)
    if pipeline is None:
        told.append("the shape of each client's examples")
    else:
        told += FitPipeline(steps, labels, masked).told(pipeline)
    if labels.kind != "regression":
        told.append("which classes each client's training rows are of, and its rows held aside")
    if steps:
        told.append(f"the sums{' over all clients' if masked else ''} that preparation was fitted from")
    if preparation.class_counts:
        told.append(f"how many training rows {'there are' if masked else 'each client has'} of each class")
    return told
