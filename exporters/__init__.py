"""Label Studio → data set version → checkpoint.

An export reads what changed in a project (`cache`, `studio`), turns annotations into records
(`annotations`), keeps relatives together in one split (`duplicates`, `splits`), checks them (`checks`) and
writes a version under the hash of its content (`versions`, `card`).  `imports` goes the other way.
"""

from exporters.export import export_file, export_project
from exporters.imports import ImportResult, import_dialogues, read_import
from exporters.settings import ExportSettings
from exporters.versions import DatasetVersion, get_version, latest_version, verify_version

__all__ = [
    "DatasetVersion",
    "ExportSettings",
    "ImportResult",
    "export_file",
    "export_project",
    "get_version",
    "import_dialogues",
    "latest_version",
    "read_import",
    "verify_version",
]
