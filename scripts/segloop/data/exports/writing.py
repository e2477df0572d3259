"""Exporting a set: gathered, written under a temporary name with an account of what is lost, and renamed."""

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from segloop import __version__
from segloop.config import LabelledSetConfig
from segloop.data.exports import FILES, usual_images
from segloop.data.exports.base import Export, Wishes
from segloop.data.exports.coco import write_coco, write_coco_folder, write_coco_results, write_lvis
from segloop.data.exports.gathering import Gathered, gather_run, gather_set
from segloop.data.exports.losses import TABLE, Losses
from segloop.data.exports.open_images import write_open_images
from segloop.data.exports.png import write_cityscapes, write_places_challenge
from segloop.data.exports.yolo import write_yolo
from segloop.data.skipped import SkipReport
from segloop.errors import SegloopError
from segloop.files import atomic_directory, atomic_file, scratch_directory, write_json

ACCOUNT: Final = "export.json"
EXTRA: Final = ("score", "predicted_iou", "provenance", "attributes", "source_id")
"""Keys of annotations that are carried over from a COCO file."""


WRITERS: Final[dict[str, Callable[[Export], None]]] = {
    "coco": write_coco,
    "coco_results": write_coco_results,
    "lvis": write_lvis,
    "coco_folder": write_coco_folder,
    "yolo": write_yolo,
    "places_challenge": write_places_challenge,
    "cityscapes": write_cityscapes,
    "open_images": write_open_images,
}


@dataclass(frozen=True)
class Source:
    """What is exported: a run, or a labelled set of any format."""

    run: Path | None = None
    iterations: tuple[int, ...] = ()
    dataset: LabelledSetConfig | None = None
    """With absolute paths."""
    categories: tuple[str, ...] = ()
    """Names or ids; all when empty."""


def export_set(
    source: Source, name: str, out: Path, wishes: Wishes | None = None, *, force: bool = False
) -> dict[str, Any]:
    """Export a set, and return the account of it.

    Parameters
    ----------
    name
        A key of `WRITERS`.
    out
        The file or folder to write. Beside a file, or in the folder, stand `export.json` (for a file:
        `NAME.export.json`), and `losses.csv` where masks changed.
    wishes
        None: the usual ones.
    force
        Replace what an earlier export wrote.

    Raises
    ------
    SegloopError
        If the source is unusable or has no mask, if the format cannot hold it, or if something is in the way.
    """
    is_file = name in FILES
    wishes = wishes or Wishes(images=usual_images(name))
    if is_file and wishes.images != "none":
        raise SegloopError(f"{name} is one file and holds no images. Export to coco_folder, or with --images none.")
    companion = out.with_name(f"{out.stem}.export.json")
    _check_free(out, is_file, force)
    with scratch_directory(out) as scratch, Gathered(scratch / "masks.sqlite") as gathered:
        report = SkipReport(None, 1.0)
        _gather(source, gathered, report)
        if not gathered.masks:
            raise SegloopError(
                f"{', '.join(gathered.sources)}: no mask to export ({len(report.skipped)} were skipped)."
            )
        place: AbstractContextManager[Path] = atomic_file(out) if is_file else atomic_directory(out)
        with place as temporary, Losses(scratch / TABLE) as losses:
            export = Export(gathered, temporary, wishes, losses)
            WRITERS[name](export)
            account = _account(name, export, report)
            if not is_file:
                write_json(temporary / ACCOUNT, account, sealed=False)
                _keep(losses, temporary / TABLE)
        if is_file:
            write_json(companion, account, sealed=False)
            _keep(losses, out.with_name(f"{out.stem}.losses.csv"))
    return account


def _gather(source: Source, gathered: Gathered, report: SkipReport) -> None:
    if source.run is not None:
        gather_run(source.run, gathered, report, iterations=source.iterations, categories=source.categories)
        return
    # Here and not above, because a run needs no reader.
    from segloop.data.formats import open_dataset

    assert source.dataset is not None
    dataset = open_dataset(source.dataset, data_root=Path("/"), report=report, extra=EXTRA)
    gather_set(dataset, Path(source.dataset.images), gathered, source.categories)


def _check_free(out: Path, is_file: bool, force: bool) -> None:
    if not out.exists() and not out.is_symlink():
        return
    if is_file:
        if out.is_dir():
            raise SegloopError(f"{out} is a folder, and the format is one file. Name a file, such as {out}/masks.json.")
        if not force:
            raise SegloopError(f"{out} exists. Choose another --out, or replace it with --force.")
        return
    if not out.is_dir():
        raise SegloopError(f"{out} is no folder, and the format is one. Choose another --out.")
    content = next(out.iterdir(), None)
    if content is None:
        return
    if not (out / ACCOUNT).exists():
        # --force must not remove a home directory.
        raise SegloopError(f"{out} holds {content.name} and other files that no export wrote. Choose another --out.")
    if not force:
        raise SegloopError(f"{out} holds an earlier export. Choose another --out, or replace it with --force.")


def _account(name: str, export: Export, report: SkipReport) -> dict[str, Any]:
    gathered = export.gathered
    return {
        "schema_version": 1,
        "format": name,
        "segloop": __version__,
        "sources": gathered.sources,
        "wishes": {"images": export.wishes.images, "split": export.wishes.split, "order": export.wishes.order,
                   "join": export.wishes.join},
        "images": len(gathered),
        "masks": gathered.masks,
        "categories": gathered.categories,
        "losses": export.losses.record(),
        "skipped": report.skipped,
        "notes": report.notes,
    }  # fmt: skip


def _keep(losses: Losses, path: Path) -> None:
    losses.close()
    if losses.path.exists():
        with atomic_file(path) as temporary:
            shutil.copyfile(losses.path, temporary)
    else:
        path.unlink(missing_ok=True)
