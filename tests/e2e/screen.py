"""Driving the annotator's screen the way a person does."""

from __future__ import annotations

from typing import Any


class Screen:
    """One signed-in browser page on Label Studio."""

    def __init__(self, browser: Any, studio: Any, *, dark: bool = False, width: int = 1400, height: int = 1300) -> None:
        self.studio = studio
        self.context = browser.new_context(viewport={"width": width, "height": height})
        self.page = self.context.new_page()
        self.page.set_default_timeout(60_000)
        self.page.goto(f"{studio.url}/user/login/")
        self.page.fill("#email", studio.email)
        self.page.fill("#password", studio.password)
        self.page.keyboard.press("Enter")
        self.page.wait_for_url(lambda url: "/user/login" not in url)
        if dark:
            self.page.evaluate("localStorage.setItem('preferred-color-scheme', 'dark')")

    def open(self, project: int, task: int) -> None:
        """Open one task in the labelling view and wait for its boxes."""
        self.page.goto(f"{self.studio.url}/projects/{project}/data?task={task}")
        self.wait()

    def next_card(self, project: int) -> None:
        """Open the labelling stream, as the *Label All Tasks* button does."""
        self.page.goto(f"{self.studio.url}/projects/{project}/data?labeling=1")
        self.wait()

    def wait(self) -> None:
        """Wait until the boxes of a card are there and can be written in."""
        self.box(0).wait_for(state="visible")
        self.page.wait_for_timeout(600)

    def box(self, number: int) -> Any:
        """The text area of a turn."""
        return self.page.locator(f".aku-turn-{number} textarea").first

    @property
    def context_box(self) -> Any:
        """The text area of the scene."""
        return self.page.locator(".aku-context textarea").first

    def focused(self) -> str:
        """Name of the box that has the caret (`turn_3`, `context`), without Label Studio's suffix."""
        return str(self.page.evaluate("(document.activeElement.name || '').split(':')[0]"))

    def visible_boxes(self) -> int:
        """Number of turn boxes that can be seen."""
        return sum(self.box(i).is_visible() for i in range(30))

    def choose(self, name: str) -> None:
        """Tick a choice by its visible text."""
        self.page.locator(".aku").get_by_text(name, exact=False).first.click()

    def chosen(self) -> list[str]:
        """Texts of all ticked choices."""
        script = """[...document.querySelectorAll('.aku input:checked')].map(box => {
            const label = box.closest('label') || box.parentElement.parentElement;
            return label.innerText.replace(/\\[.*/s, '').trim();
        })"""
        return list(self.page.evaluate(script))

    def caret_out(self) -> None:
        """Put the caret where Label Studio's keys work, as Tab after the last turn does; commits the box it leaves."""
        self.page.locator(".aku-done span[tabindex]").focus()

    def submit(self) -> None:
        """Press Ctrl+Enter, which submits or updates, and wait for the server's answer."""
        with self.page.expect_response(
            lambda r: "/annotations" in r.url and r.request.method in ("POST", "PATCH") and r.ok
        ):
            self.page.keyboard.press("Control+Enter")

    def saved_draft(self) -> Any:
        """Wait for the next auto-save of a draft."""
        return self.page.expect_response(lambda r: "/drafts" in r.url and r.request.method in ("POST", "PATCH"))

    def auto_annotation(self) -> None:
        """Switch the *Auto-Annotation* toggle on: committed turns then go to the ML backend."""
        toggle = self.page.locator("label:has-text('Auto-Annotation') input, [class*=auto-annotation] input").first
        if not toggle.is_checked():
            toggle.click(force=True)

    def close(self) -> None:
        """Close the page and forget its cookies."""
        self.context.close()
