"""What is trained in the page joins its ladder of models, and is read anew when training has gone on."""

import logging
import threading
from pathlib import Path

from dit.classes import class_names
from dit.flops import macs
from dit.weights import WeightsError
from ui.opening import drawable, estimated_speed, unused
from ui.runs import Runs
from ui.studio import Rung, Studio

LOG = logging.getLogger(__name__)
Stamp = tuple[int, int, int]  # of a file: changes when it is written anew


class Trained:
    """The runs' averaged weights as models of a studio. May be asked from several threads."""

    def __init__(self, studio: Studio, runs: Runs | None) -> None:
        """runs: None where nobody trains."""
        self.studio, self.runs = studio, runs
        self._seen: dict[Path, tuple[Stamp, Rung | None]] = {}  # None: no model that can be drawn with
        self._lock = threading.Lock()

    def look(self) -> None:
        """Bring the ladder up to date.

        New models come last, and none goes: places on the ladder, which open pages have, keep their meaning.
        A run that has the name of a deleted one takes its place.
        """
        with self._lock:
            for path in self.runs.weights() if self.runs else ():
                try:
                    stamp = _stamp(path)
                except OSError:  # gone since
                    continue
                before, rung = self._seen.get(path, (None, None))
                if stamp != before:
                    self._seen[path] = stamp, self._read(path, rung)

    def position(self, name: str) -> int:
        """Where on the ladder the model of a run stands.

        Raises:
            ValueError: the run has no weights that can be drawn with.
        """
        self.look()
        rung = self._seen.get(self.runs.named(name).folder / "weights.safetensors", (None, None))[1]
        if rung is None or self.studio.missing(rung):
            raise ValueError(f"{name} has no weights to draw with yet; wait for its first checkpoint")
        return self.studio.rungs.index(rung)

    def _read(self, path: Path, rung: Rung | None) -> Rung | None:
        """What a file describes: a new model, or a newer state of one that is there."""
        try:
            outline = drawable(path)
            names = class_names(outline.provenance, outline.config.num_classes)
        except (WeightsError, OSError) as error:
            LOG.warning("not on the ladder of models: %s", error)
            return rung
        rungs = self.studio.rungs
        if rung is not None:
            if macs(outline.config) != rung.macs_per_pass:  # another run of this name
                rung.speed = estimated_speed(rungs, macs(outline.config))
            rung.outline, rung.classes, rung.outdated = outline, names, True
            return rung
        first = rungs[0]
        rung = Rung(
            unused(path.parent.name, rungs),
            path,
            outline,
            names,
            estimated_speed(rungs, macs(outline.config)),
            autoencoder=first.autoencoder,
            tiling=first.tiling,
            in_training=True,
        )
        rungs.append(rung)
        return rung


def _stamp(path: Path) -> Stamp:
    told = path.stat()
    return told.st_mtime_ns, told.st_size, told.st_ino
