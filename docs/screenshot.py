"""Makes docs/serve.png: `deepscan serve` with a report open beside the clips (make docs/serve.png)."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from deepscan.verification import sample as demo

HERE = Path(__file__).resolve().parent

with (
    tempfile.TemporaryDirectory() as folder,
    subprocess.Popen(
        [sys.executable, "-m", "deepscan", "serve", "--port", "0", "--offline"],
        stderr=subprocess.PIPE,
        text=True,
    ) as server,
    sync_playwright() as driver,
):
    assert server.stderr is not None
    address = server.stderr.readline().split()[1]
    clip, letter = Path(folder) / "sample.mp4", Path(folder) / "letter.mp4"
    demo.write(clip)
    letter.write_bytes(b"%PDF-1.7\n")
    browser = driver.chromium.launch(
        executable_path=sys.argv[1], args=["--no-sandbox", "--disable-dev-shm-usage"]
    )
    view = browser.new_page(viewport={"width": 1440, "height": 900})
    view.goto(address)
    view.get_by_label("Case", exact=True).fill("2026/114")
    view.get_by_label("Exhibit").fill("A-3")
    view.locator("#files").set_input_files([letter, clip])
    view.get_by_role("link", name="Read the report").click(timeout=300_000)
    view.frame_locator("#report").locator("#verdict").wait_for()
    view.screenshot(path=HERE / "serve.png")
    server.terminate()
