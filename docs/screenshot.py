"""Makes docs/serve.png: the page of `deepscan serve` with the sample clip analysed (make docs/serve.png)."""

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
    clip = Path(folder) / "sample.mp4"
    demo.write(clip)
    browser = driver.chromium.launch(
        executable_path=sys.argv[1], args=["--no-sandbox", "--disable-dev-shm-usage"]
    )
    view = browser.new_page(viewport={"width": 1120, "height": 700})
    view.goto(address)
    view.locator("#files").set_input_files(clip)
    view.get_by_role("link", name="Read the report").wait_for(timeout=120_000)
    view.screenshot(path=HERE / "serve.png")
    server.terminate()
