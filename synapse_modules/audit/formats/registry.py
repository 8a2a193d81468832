"""Every format that an export can have beside the signed bundle, by name.

The one entry point for those who export::

    chosen = format_named("cef", "--format")
    if isinstance(chosen, LineFormat):
        for piece in chosen.stream(entries):
            file.write(piece)
    else:
        chosen.write(entries, open_file, Lake(region="eu"))

``entries`` come from :func:`~synapse_modules.audit.formats.entry.read_entry`, row by row from the log, or from
:func:`~synapse_modules.audit.formats.entry.entries_of_bundle`, line by line from a bundle that was exported before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from synapse_modules.audit.formats.cef import CEF
from synapse_modules.audit.formats.csv_rows import CSV
from synapse_modules.audit.formats.ecs import ECS
from synapse_modules.audit.formats.line import LineFormat
from synapse_modules.audit.formats.ocsf import OCSF, OCSF_1_9
from synapse_modules.audit.formats.parquet import PARQUET, DatasetFormat, Lake
from synapse_modules.audit.formats.rfc5424 import SYSLOG
from synapse_modules.audit.formats.slack import SLACK
from synapse_modules.core.errors import InvalidInput, nearest

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["FORMATS", "DatasetFormat", "Lake", "LineFormat", "format_named"]

FORMATS: Final[Mapping[str, LineFormat | DatasetFormat]] = {
    each.name: each for each in (CSV, CEF, SYSLOG, OCSF, OCSF_1_9, PARQUET, ECS, SLACK)
}


def format_named(name: str, where: str) -> LineFormat | DatasetFormat:
    """The format called ``name``.

    Raises:
        InvalidInput: there is none; the error names the nearest one.
    """
    if name not in FORMATS:
        raise InvalidInput(where, name, f"one of {', '.join(FORMATS)}", suggestion=nearest(name, FORMATS))
    return FORMATS[name]
