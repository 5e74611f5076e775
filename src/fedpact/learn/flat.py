"""What a model of flat rows asks of them."""

from fedpact.core.errors import ModelError
from fedpact.core.model import Schema


def check_flat(schema: Schema, name: str) -> None:
    """Refuse what is not one label for each flat row of numbers.

    Args:
        schema: of the rows.
        name: what the user calls the model.

    Raises:
        ModelError: the examples are not flat, or have a label at each of several positions.
    """
    if len(schema.shape) != 1:
        raise ModelError(f"{name} needs flat rows of numbers; these examples have shape {schema.shape}.")
    if schema.positions:
        raise ModelError(
            f"{name} predicts one label for each row, but here a row's labels are an array of shape "
            f"{schema.positions}; use a torch module, which may predict one at every position."
        )
