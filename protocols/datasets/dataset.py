"""A data set as experiments take it: a training set, a test set, and whose every example naturally is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from secagg.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from protocols.training import Examples


@dataclass(frozen=True, eq=False)
class Dataset:
    """A training set and a test set, disjoint.

    Args:
        name: In the catalogue.
        train: For the clients.
        test: For judging a model; never trained on, and no setting is chosen by it.
        classes: Number of labels, or of tokens.
        owners: (n,) the natural client of each training example, a writer or a role; None where there is none. The
            sequences of one owner stand in the order of their text.
        test_owners: Likewise for the test set. Its owners may be others than those of the training set.
        recordings: (n,) what each training example is a window of, where windows overlap; None where examples share
            nothing. Those of a recording stand one after another in the order of time, and only neighbours share
            samples. A recording has one owner and one label.

    Raises:
        InputError: A label outside [0, classes), or not one owner or recording for each example.
    """

    name: str
    train: Examples
    test: Examples
    classes: int
    owners: NDArray[np.intp] | None = None
    test_owners: NDArray[np.intp] | None = None
    recordings: NDArray[np.intp] | None = None

    def __post_init__(self) -> None:
        for examples, owners in ((self.train, self.owners), (self.test, self.test_owners)):
            if int(examples.labels.min()) < 0 or int(examples.labels.max()) >= self.classes:
                raise InputError(f"{self.name}: every label must be in [0, {self.classes})")
            if owners is not None and owners.shape != (len(examples),):
                raise InputError(f"{self.name}: there must be one owner for each of {len(examples)} examples")
        if self.recordings is not None and (self.owners is None or self.recordings.shape != self.owners.shape):
            raise InputError(f"{self.name}: each of {len(self.train)} examples must have a recording and an owner")

    @property
    def sequential(self) -> bool:
        """Whether examples are sequences, with a label at every step."""
        return self.train.labels.ndim > 1
