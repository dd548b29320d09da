"""Makes the pictures of README and docs from the sample clip (make pictures).

report.png is the first screen of the sample's report, contact-sheet.jpg its contact sheet, and serve.png the
page of `deepscan serve` with that report open beside the clips.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

HERE = Path(__file__).resolve().parent
DEEPSCAN = (sys.executable, "-m", "deepscan")
WINDOW = {"width": 1440, "height": 900}


def of_results(browser: Browser, results: Path) -> None:
    """report.png and contact-sheet.jpg."""
    view = browser.new_page(viewport=WINDOW)
    view.goto((results / "report.html").as_uri())
    view.screenshot(path=HERE / "report.png")
    with Image.open(results / "heatmaps" / "contact_sheet.png") as sheet:
        sheet.convert("RGB").save(HERE / "contact-sheet.jpg", quality=85, optimize=True)


def of_serve(browser: Browser, clip: Path) -> None:
    """serve.png: also a file that is no video, and says so."""
    letter = clip.with_name("letter.mp4")
    letter.write_bytes(b"%PDF-1.7\n")
    command = [*DEEPSCAN, "serve", "--port", "0", "--offline"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        view = browser.new_page(viewport=WINDOW)
        view.goto(server.stderr.readline().split()[1])
        view.get_by_label("Case", exact=True).fill("2026/114")
        view.get_by_label("Exhibit").fill("A-3")
        view.locator("#files").set_input_files([letter, clip])
        view.get_by_role("link", name="Read the report").click(timeout=300_000)
        view.frame_locator("#report").locator("#verdict").wait_for()
        view.screenshot(path=HERE / "serve.png")
        server.terminate()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name, sync_playwright() as driver:
        folder = Path(name)
        subprocess.run([*DEEPSCAN, "demo", str(folder), "--offline", "--quiet"], check=True)
        chromium = driver.chromium.launch(
            executable_path=sys.argv[1], args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        of_results(chromium, folder / "results" / "sample.mp4")
        of_serve(chromium, folder / "sample.mp4")
