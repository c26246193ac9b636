"""Which pictures each step sees: an endless walk over the set, each picture once an epoch."""

import numpy as np

WINDOW = 16  # blocks of a streamed set whose pictures are mixed


class Order:
    """Row i of step s is p = s * batch_size + i of a walk: place p % n of the permutation of epoch p // n.

    So a step's rows follow from its number: resuming, and sharing them among processes, need no state.
    """

    def __init__(
        self, num_pictures: int, batch_size: int, seed: int, blocks: np.ndarray | None = None
    ) -> None:
        """blocks: sizes of consecutive parts of the set that are read whole, such as row groups of a file.

        They are then shuffled, and after that the pictures within windows of WINDOW blocks: less thorough,
        but reading is nearly sequential.

        Raises:
            ValueError: no pictures, an empty batch, or blocks that do not make up the set.
        """
        if num_pictures < 1 or batch_size < 1:
            raise ValueError(
                f"num_pictures is {num_pictures}, batch_size {batch_size}; both must be at least 1"
            )
        if blocks is not None and int(np.sum(blocks)) != num_pictures:
            raise ValueError(f"blocks hold {int(np.sum(blocks))} pictures; they must hold all {num_pictures}")
        self.num_pictures, self.batch_size, self.seed = num_pictures, batch_size, seed
        self.blocks = None if blocks is None else np.asarray(blocks, np.int64)
        self._epochs: dict[int, np.ndarray] = {}  # the last two that were asked for

    def indices(self, step: int) -> np.ndarray:
        """The pictures of step 0, 1, ...: (batch_size,) int64."""
        place, last = step * self.batch_size, (step + 1) * self.batch_size
        parts = []
        while place < last:
            epoch, first = divmod(place, self.num_pictures)
            parts.append(self._permutation(epoch)[first : first + last - place])
            place += len(parts[-1])
        return np.concatenate(parts)

    def _permutation(self, epoch: int) -> np.ndarray:
        """All pictures in the order of an epoch, (num_pictures,) int64."""
        if epoch not in self._epochs:
            self._epochs = dict(list(self._epochs.items())[-1:])
            self._epochs[epoch] = self._shuffled(np.random.default_rng([self.seed, epoch]))
        return self._epochs[epoch]

    def _shuffled(self, generator: np.random.Generator) -> np.ndarray:
        if self.blocks is None:
            return generator.permutation(self.num_pictures)
        starts = np.cumsum(self.blocks) - self.blocks
        turn = generator.permutation(len(self.blocks))
        windows = []
        for first in range(0, len(turn), WINDOW):
            blocks = turn[first : first + WINDOW]
            members = [np.arange(starts[block], starts[block] + self.blocks[block]) for block in blocks]
            windows.append(generator.permutation(np.concatenate(members)))
        return np.concatenate(windows)

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_epochs": {}}  # each process finds its own again
