"""Import of files of other formats: into a folder, or into a home as one inbox batch."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import yaml

from harmonizer_assets.core.base.errors import InputError, StoreError
from harmonizer_assets.core.base.files import write_atomically
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.progress import Progress, ProgressFn
from harmonizer_assets.core.base.scratch import scratch_folder
from harmonizer_assets.core.importers.base import Importer, ImportOptions, Problem, Read, SourceFile
from harmonizer_assets.core.importers.files import source_files
from harmonizer_assets.core.importers.names import LabelMap, Names, load_map
from harmonizer_assets.core.importers.registry import importer
from harmonizer_assets.core.importers.taxonomy import Fit, fit, map_file, taxonomy_file
from harmonizer_assets.core.importers.update import keep_statuses, mark_what_is_gone
from harmonizer_assets.core.importers.writing import TableWriter, Written
from harmonizer_assets.core.ingest import left_out
from harmonizer_assets.core.ingest.inbox import Inbox, submit_files
from harmonizer_assets.core.ingest.readers import readable
from harmonizer_assets.core.records.status import Status
from harmonizer_assets.core.records.taxonomy import Taxonomy
from harmonizer_assets.core.store.tables import Tables
from harmonizer_assets.core.store.warehouse import Warehouse

STAGE: Final = "import"
TAXONOMY: Final = "taxonomy.yaml"
MAP: Final = "label-map.yaml"
_TABLES: Final = ("words.parquet", "labels.parquet", left_out.FILE)
_OURS: Final = frozenset((*_TABLES, TAXONOMY, MAP))


@dataclass(frozen=True)
class ImportReport:
    """What an import has read and written.

    Attributes:
        format: name of the format.
        files: how many files were read.
        written: receipts, words, labels and problems.
        fit: how the label types fit to the taxonomy.
        folder: where the tables are; the batch in the inbox for a home.
        map_file: the proposals for label names, where there are any.
        takes_taxonomy: whether the label types became those of the home.
        words_gone: words of an earlier import that are not in the source any more; `labels_gone`
            likewise.
    """

    format: str
    files: int
    written: Written
    fit: Fit
    folder: Path
    map_file: Path | None = None
    takes_taxonomy: bool = False
    words_gone: int = 0
    labels_gone: int = 0


def import_to_folder(
    format_name: str,
    paths: Sequence[Path],
    folder: Path,
    options: ImportOptions | None = None,
    *,
    label_map: Path | None = None,
    overwrite: bool = False,
    on_progress: ProgressFn | None = None,
) -> ImportReport:
    """Read files of a format and write words, labels, problems and a taxonomy into a folder.

    Args:
        format_name: see `registry.format_names`.
        paths: files, or folders that are searched for files.
        folder: to be made.
        options: what the source does not say itself.
        label_map: a mapping file that a person has confirmed.
        overwrite: whether an earlier import in the folder is replaced.
        on_progress: called with the number of words.

    Raises:
        InputError: nothing can be read, or the folder is there; nothing was written.
        StoreError: the folder cannot be written.
    """
    _check_folder(folder, overwrite=overwrite)
    confirmed = load_map(label_map)
    with _new_folder(folder) as partial:
        files, written = _convert(format_name, paths, partial, options, confirmed, on_progress)
        found = fit(written.names, Taxonomy.default().names, written.padded)
        known = _with_types(Taxonomy.default(), confirmed.new_types)
        if written.names:
            write_atomically(partial / TAXONOMY, taxonomy_file(written.names, known))
        if found.near:
            write_atomically(partial / MAP, map_file(found, confirmed))
    return ImportReport(
        format_name,
        files,
        written,
        found,
        folder,
        folder / MAP if found.near else None,
    )


def import_to_home(
    format_name: str,
    paths: Sequence[Path],
    home: Home,
    options: ImportOptions | None = None,
    *,
    label_map: Path | None = None,
    on_progress: ProgressFn | None = None,
) -> ImportReport:
    """Read files of a format and put them into a home's inbox, as one batch.

    A home that holds no labels, expects none and has no taxonomy takes over the label types of the
    source, unless the default taxonomy has them all. In any other one, types that its taxonomy does
    not have are proposals, and nothing is imported until a person has confirmed them in a mapping
    file. So are, in every home, names with blanks around them.

    What an earlier import of the same images brought and this one does not is marked as
    deleted. What is left out is in the table `quarantine` once the batch is ingested.

    Args:
        format_name: see `registry.format_names`.
        paths: files, or folders that are searched for files.
        home: whose inbox it is.
        options: what the source does not say itself.
        label_map: a mapping file that a person has confirmed.
        on_progress: called with the number of words.

    Raises:
        InputError: nothing can be read, or label types are not confirmed; nothing was imported.
        StoreError: the home cannot be written.
    """
    confirmed = load_map(label_map)
    source_files(paths, importer(format_name))  # before a home is made for nothing
    home.ensure()
    with scratch_folder(home) as folder:
        files, written = _convert(format_name, paths, folder, options, confirmed, on_progress)
        taxonomy, is_new = _home_taxonomy(home)
        taxonomy = _with_types(taxonomy, _confirmed_types(confirmed))
        found = fit(written.names, taxonomy.names, written.padded)
        is_new = is_new and not set(taxonomy.names).issuperset(written.names)
        if is_new:
            # They become those of the home, so nothing is new to it.
            found = replace(found, new=())
        proposals = None if found.is_clean else home.label_map
        if proposals is not None:
            write_atomically(proposals, map_file(found, confirmed))
        if found.padded or not (found.is_clean or is_new):
            raise InputError(_unconfirmed(found, home.label_map))
        if options is None or options.status == Status.PENDING:
            keep_statuses(home, folder)
        words_gone, labels_gone = mark_what_is_gone(home, folder, format_name)
        if is_new:
            write_atomically(home.taxonomy, taxonomy_file(written.names, taxonomy))
        elif taxonomy != Taxonomy.of_home(home):
            write_atomically(home.taxonomy, _as_yaml(taxonomy))
        tables = ("words", "labels") if written.labels or labels_gone else ("words",)
        batch = submit_files(
            home,
            {file: folder / file for file in (*map("{}.parquet".format, tables), left_out.FILE)},
            dict.fromkeys(tables, f"import {format_name}: {_sources(paths)}"),
        )
    return ImportReport(
        format_name,
        files,
        written,
        found,
        batch,
        proposals,
        takes_taxonomy=is_new,
        words_gone=words_gone,
        labels_gone=labels_gone,
    )


def _sources(paths: Sequence[Path]) -> str:
    shown = ", ".join(str(path) for path in paths[:3])
    return shown + (f" and {len(paths) - 3:,} more" if len(paths) > 3 else "")


def _unconfirmed(found: Fit, proposals: Path) -> str:
    names = [*found.near, *found.new]
    shown = ", ".join(repr(name) for name in names[:5]) + (" ..." if len(names) > 5 else "")
    return (
        f"nothing was imported: the home's taxonomy does not have the label types {shown}: check "
        f"{proposals}, which proposes what they are, and import again with --map {proposals}"
    )


def _home_taxonomy(home: Home) -> tuple[Taxonomy, bool]:
    """Return a home's taxonomy, and whether nobody has chosen it yet."""
    holds_labels = home.database.exists() and Tables(Warehouse(home)).label_types()
    is_new = not (home.taxonomy.exists() or holds_labels or Inbox(home).pending())
    return Taxonomy.of_home(home), is_new


def _confirmed_types(confirmed: LabelMap) -> dict[str, str]:
    """Return types that a person has confirmed: new ones, and default ones that names become."""
    default = Taxonomy.default()
    named = {name for name in confirmed.labels.values() if name in default.names}
    return {**{name: default.definition(name) for name in sorted(named)}, **confirmed.new_types}


def _with_types(taxonomy: Taxonomy, new_types: Mapping[str, str]) -> Taxonomy:
    """Add types that a person has confirmed; those that are there stay as they are.

    Raises:
        TaxonomyError: one cannot be a label type.
    """
    types = {**new_types, **{one.name: one.definition for one in taxonomy.label_types}}
    ordered = {name: types[name] for name in dict.fromkeys((*taxonomy.names, *new_types))}
    return Taxonomy.parse(
        yaml.safe_dump({"label_types": ordered}, sort_keys=False), "the mapping file"
    )


def _as_yaml(taxonomy: Taxonomy) -> str:
    types = {one.name: one.definition for one in taxonomy.label_types}
    return yaml.safe_dump({"label_types": types}, allow_unicode=True, sort_keys=False)


# Reading and writing


def convert(
    format_name: str,
    paths: Sequence[Path],
    folder: Path,
    options: ImportOptions | None = None,
    *,
    label_map: Path | None = None,
    on_progress: ProgressFn | None = None,
) -> tuple[int, Written]:
    """Write words, labels and problems of files into a folder that is there.

    Returns:
        The number of files, and what was written.

    Raises:
        InputError: nothing can be read.
    """
    return _convert(format_name, paths, folder, options, load_map(label_map), on_progress)


def _convert(
    format_name: str,
    given: Sequence[Path],
    folder: Path,
    options: ImportOptions | None,
    label_map: LabelMap,
    on_progress: ProgressFn | None,
) -> tuple[int, Written]:
    chosen = importer(format_name)
    files = source_files(given, chosen)
    used = options or ImportOptions()
    paths = [source.path for source in files]
    with TableWriter(folder, format_name, used, Names(label_map), paths) as writer:
        for words in writer.add(_read(chosen, files, used)):
            if on_progress is not None:
                on_progress(Progress(STAGE, 0, 0, words, 0))
    written = writer.written
    if not written.words:
        first = f": {written.problems[0]}" if written.problems else ""
        raise InputError(f"{_sources(given)}: no word can be used{first}")
    return len(files), written


def _read(chosen: Importer, files: Sequence[SourceFile], options: ImportOptions) -> Iterator[Read]:
    """Read all files; one of several that cannot be read at all is a problem.

    A file that fails after some of its receipts were read ends the import, so that none is imported
    by halves.

    Raises:
        InputError: see above.
    """
    for source in files:
        is_begun = False
        try:
            # Whatever a damaged file makes a format of somebody else raise, it is an error of it.
            with readable(source.path):
                for one in chosen.read(source, options):
                    is_begun = True
                    yield one
        except InputError as error:
            if is_begun or len(files) == 1:
                raise
            said = str(error).removeprefix(f"{source.path}: ")
            yield Problem(source.path, "", said, "the file is left out: mend it and import again")
        except FileNotFoundError as error:
            raise InputError(f"{source.path}: is gone") from error


def _check_folder(folder: Path, *, overwrite: bool) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InputError(f"{folder}: not a folder")
    others = [path.name for path in folder.iterdir() if path.name not in _OURS]
    if others:
        raise InputError(f"{folder}: holds other files ({others[0]}): give a folder of its own")
    if any(folder.iterdir()) and not overwrite:
        raise InputError(f"{folder}: is there already: --overwrite replaces it")


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """Yield a folder that takes the place of `folder` when the block ends without an error.

    Raises:
        StoreError: it cannot be made.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise StoreError(f"{folder}: cannot be made ({error.strerror})") from error
    try:
        yield partial
        _replace(folder, partial)
    except OSError as error:
        raise StoreError(f"{folder}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _replace(folder: Path, partial: Path) -> None:
    mask = os.umask(0)
    os.umask(mask)
    partial.chmod(0o777 & ~mask)
    old = partial.with_name(f"{partial.name}.old")
    if folder.exists():
        folder.rename(old)
    partial.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
