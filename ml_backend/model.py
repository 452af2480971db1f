"""Label Studio's ML backend class, for label-studio-ml 1.0.9 and 2.x alike.

Both libraries make an object of this class per call or per project and ask it to `predict` and
`fit`; 2.x also asks it to `get` its `model_version`.  All state lives in the `Service` behind it.
"""

from __future__ import annotations

from typing import Any

from ml_backend.library import LabelStudioMLBase
from ml_backend.service import Service


class AkuModel(LabelStudioMLBase):  # type: ignore[misc]  # the library has no types
    """Drafts Aku's turns; `service` is set once, before the first object is made."""

    service: Service

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Take what the library passes: (label_config, train_output) in 1.0.9, (project_id, label_config) in 2.x."""
        self._facts: dict[str, Any] = {}
        super().__init__(*args, **kwargs)

    @property
    def model_version(self) -> str:
        """The version that rows made now carry."""
        return self.service.version()

    def setup(self) -> None:
        """Do nothing: weights are loaded before the port opens, and 2.x calls this at every request."""

    def predict(self, tasks: list[Any], context: Any = None, **kwargs: Any) -> list[Any]:
        """Return one row per task, in order, each with its `model_version`, or `[]` for "ask again"."""
        rows, _ = self.service.predict(tasks, self._facts.get("project", ""), context)
        return rows

    def fit(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Note an event; training is a command of its own, never the web server's work.

        2.x passes (event, data, …); 1.0.9 (tasks, workdir, …), which says nothing new.
        """
        event, data = (*args, None, None)[:2]
        event, data = kwargs.get("event", event), kwargs.get("data", data)
        if isinstance(event, str) and isinstance(data, dict):
            self.service.record({**data, "action": event})
        return {}

    def get(self, key: str) -> Any:
        """Return one of the facts that 2.x keeps about a model; the version is never a stale one."""
        return self.model_version if key == "model_version" else self._facts.get(key)

    def set(self, key: str, value: Any) -> None:
        """Keep a fact for this object's life; 2.x would write it to a file in the working directory."""
        self._facts[key] = value

    def has(self, key: str) -> bool:
        """Tell whether a fact is known."""
        return key == "model_version" or key in self._facts


class Manager:
    """What label-studio-ml 1.0.9 asks for models, in place of its process-per-event manager."""

    def __init__(self, service: Service) -> None:
        """Serve all projects from one service."""
        self.service = service
        AkuModel.service = service

    def initialize(self, model_class: type[Any], **kwargs: Any) -> None:
        """Nothing to prepare: the class is bound already."""

    def fetch(self, project: Any = None, label_config: Any = None, force_reload: bool = False, **kwargs: Any) -> Any:
        """Return a light model object for a project, named as Label Studio names it."""
        model = AkuModel()
        model.set("project", project_id(project))
        return model

    def predict(
        self,
        tasks: list[Any],
        project: Any = None,
        label_config: Any = None,
        force_reload: bool = False,
        try_fetch: bool = True,
        **kwargs: Any,
    ) -> tuple[list[Any], Any]:
        """Answer /predict; returns the rows and the model that made them."""
        model = self.fetch(project)
        return model.predict(tasks, **kwargs), model

    def webhook(self, event: str, data: dict[str, Any]) -> dict[str, Any]:
        """Note an event and answer at once."""
        return AkuModel().fit(event, data)


def project_id(project: object) -> str:
    """Return Label Studio's name of a project: number and time of creation, `"4.1795352884"`.

    Kept whole: the numbers of projects and tasks begin anew in a new database.
    """
    name = str(project) if isinstance(project, (str, int)) else ""
    return name.encode(errors="replace").decode()  # it goes into files, where half a surrogate pair can not be written
