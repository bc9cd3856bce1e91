"""Pictures of the demo's page, taken of the page itself while the embedded model reads.

    python docs/images/demo.py            # demo-desktop.png, demo-phone.png

Needs `scratchpad-rag[web]`, playwright, and a Chromium on the path. The question is one that the
reader answers from a passage in the middle, and that the same model without a scratchpad does not.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

QUESTION = "What is manufactured in Haarrade St. Wendreda?"
DOCUMENTS, POSITION = 20, 10
FOLDER = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder to write to")
    out = parser.parse_args().out
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        sys.exit("no chromium is installed here (Debian: apt install chromium)")
    from playwright.sync_api import sync_playwright

    server = start()
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            desktop = {"width": 1440, "height": 900}
            page = opened(browser, server.address, viewport=desktop, color_scheme="light")
            page.get_by_role("button", name="Ask", exact=True).click()
            # Midway: a quote has grown over some lines and is not closed.
            page.wait_for_function(
                "[...document.querySelectorAll('mark.sp-growing')]"
                ".some((mark) => mark.innerText.length > 150)",
                polling=50,
            )
            page.mouse.move(1300, 700)
            page.screenshot(path=out / "demo-desktop.png")
            page.close()
            phone = {"width": 390, "height": 844}
            page = opened(
                browser, server.address, viewport=phone, color_scheme="dark", device_scale_factor=2
            )
            page.get_by_role("button", name="Ask", exact=True).click()
            page.locator("#pane-1 .sp-stage-done").wait_for()
            page.locator("#pane-0").evaluate("pane => pane.scrollIntoView({block: 'end'})")
            page.wait_for_timeout(500)
            page.screenshot(path=out / "demo-phone.png")
    finally:
        server.stop()


def start() -> Any:
    """The page with the demo's own defaults, at a free port."""
    from scratchpad_rag.app.flags import DEFAULT_EXPERIMENT
    from scratchpad_rag.app.web.serve import bound, page_server

    server = page_server({"experiment_config": DEFAULT_EXPERIMENT}, bound(0))
    server.start()
    return server


def opened(browser: Any, address: str, **settings: Any) -> Any:
    """The page in a new window, with the question chosen and its passage in place."""
    page = browser.new_page(reduced_motion="reduce", **settings)
    page.set_default_timeout(180_000)
    page.goto(address)
    page.locator("#ask:not([disabled])").wait_for()
    page.get_by_label("Sample question").fill(QUESTION)
    page.get_by_role("option", name=QUESTION).click()
    page.get_by_role("spinbutton", name="Documents shown").fill(str(DOCUMENTS))
    page.get_by_role("spinbutton", name="Which of them holds").fill(str(POSITION))
    page.locator(f"#passage-{POSITION}.sp-gold").wait_for()
    return page


if __name__ == "__main__":
    main()
