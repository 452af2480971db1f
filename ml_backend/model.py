"""Label Studio's ML backend class, for label-studio-ml 1.0.9 and 2.x alike.

Both libraries make an object of this class per call or per project and ask it to `predict` and
`fit`.  All state lives in the `Service` behind it.
"""

from __future__ import annotations

from typing import Any

from label_studio_ml.model import LabelStudioMLBase

from ml_backend.service import Service


class AkuModel(LabelStudioMLBase):  # type: ignore[misc]  # the library has no types
    """Drafts Aku's turns; bound to its service by `bind`."""

    service: Service

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Take whatever the library passes: (label_config, train_output) in 1.0.9, (project_id, …) in 2.x."""
        self.project = str(kwargs.pop("aku_project", "") or kwargs.get("project_id") or "")
        super().__init__(*args, **kwargs)

    def setup(self) -> None:
        """Say the version; light, since 2.x calls it at every request."""
        self.model_version = self.service.version()

    def predict(self, tasks: list[Any], context: Any = None, **kwargs: Any) -> list[Any]:
        """Return one row per task, each with its `model_version`."""
        rows, self.model_version = self.service.predict(tasks, self.project, {"context": context})
        return rows

    def fit(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Note an event; training itself is the studio's own command, never the web server's work.

        1.0.9 passes (tasks, workdir, …), 2.x (event, data, …).
        """
        if len(args) >= 2 and isinstance(args[0], str) and isinstance(args[1], dict):
            self.service.record({**args[1], "action": args[0]})
        return {}


class Manager:
    """What label-studio-ml 1.0.9 asks for models; replaces its process-per-event manager."""

    def __init__(self, service: Service) -> None:
        """Serve all projects from one service."""
        self.service = service

    def initialize(self, model_class: type[Any], **kwargs: Any) -> None:
        """Bind the class to the service."""
        model_class.service = self.service

    def fetch(self, project: Any = None, label_config: Any = None, force_reload: bool = False, **kwargs: Any) -> Any:
        """Return a light model object that knows its version."""
        model = AkuModel(aku_project=project_id(project))
        model.setup()
        return model

    def webhook(self, event: str, data: dict[str, Any]) -> dict[str, Any]:
        """Note an event; answered at once."""
        self.service.record({**data, "action": event})
        return {}

    def predict(
        self,
        tasks: list[Any],
        project: Any = None,
        label_config: Any = None,
        force_reload: bool = False,
        try_fetch: bool = True,
        **kwargs: Any,
    ) -> tuple[list[Any], Any]:
        """Answer /predict."""
        model = AkuModel(aku_project=project_id(project))
        rows = model.predict(tasks, context=kwargs.get("context"))
        return rows, model


def project_id(project: object) -> str:
    """Return the project's number from Label Studio's `"4.1795352884"` (number and time of creation)."""
    return str(project).split(".", 1)[0] if isinstance(project, (str, int)) else ""
