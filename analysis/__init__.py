"""Says where the data set leans and what to write next.

`report(dialogues)` measures, `write_report(report, folder)` writes page, pictures, JSON and Markdown,
`plan(dialogues, n, taxonomy=…)` makes the next cards.  All usable from a notebook.
"""

from analysis.planning import PlannedCard, Scene, plan, read_scenes, starter_plan
from analysis.reporting import report
from analysis.results import Report, Test, Verdict, View
from analysis.settings import PlanSettings, ReportSettings
from analysis.writing import write_report

__all__ = [
    "PlanSettings",
    "PlannedCard",
    "Report",
    "ReportSettings",
    "Scene",
    "Test",
    "Verdict",
    "View",
    "plan",
    "read_scenes",
    "report",
    "starter_plan",
    "write_report",
]
