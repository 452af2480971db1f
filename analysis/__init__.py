"""Says where the data set leans and what to write next.

`report(dialogues)` measures, `write_report(report, folder)` writes page, pictures, JSON and Markdown,
`quick(dialogues)` gives cheap numbers, `plan(dialogues, n, taxonomy=…)` makes the next cards.  All usable
from a notebook.
"""

from analysis.comparison import with_comparison
from analysis.glance import Quick, quick
from analysis.layout import ReferenceMap
from analysis.planning import Gap, PlannedCard, Scene, gaps, plan, read_scenes, starter_plan
from analysis.reporting import reference_of, report
from analysis.results import Report, Test, Verdict, View
from analysis.settings import PlanSettings, ReportSettings
from analysis.writing import write_report

__all__ = [
    "Gap",
    "PlanSettings",
    "PlannedCard",
    "Quick",
    "ReferenceMap",
    "Report",
    "ReportSettings",
    "Scene",
    "Test",
    "Verdict",
    "View",
    "gaps",
    "plan",
    "quick",
    "read_scenes",
    "reference_of",
    "report",
    "starter_plan",
    "with_comparison",
    "write_report",
]
