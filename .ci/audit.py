"""Known vulnerabilities of what is installed, by pip-audit; fails for one, and says where nothing was looked up.

A machine without the advisory service (no network, or an index that serves none) cannot tell: that is said,
and is no failure, since nothing in the change under test has caused it.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path


def main() -> None:
    """Look all packages up and say what was found."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.json"
        command = [
            sys.executable,
            "-m",
            "pip_audit",
            "--progress-spinner",
            "off",
            "--skip-editable",
        ]
        command += ["--timeout", "10", "--format", "json", "--output", str(out)]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if not out.exists():
            reason = (run.stderr.strip().splitlines() or ["no reason given"])[-1]
            sys.stdout.write(
                f"audit: NOT DONE, the advisory service is out of reach: {reason[:300]}\n"
            )
            return
        packages = json.loads(out.read_text("utf-8"))["dependencies"]
    looked_up = [package for package in packages if "vulns" in package]
    for package in looked_up:
        for found in package["vulns"]:
            fixed = ", ".join(found["fix_versions"]) or "no version yet"
            sys.stdout.write(
                f"{package['name']} {package['version']}: {found['id']}, fixed in {fixed}\n"
            )
    vulnerable = [package for package in looked_up if package["vulns"]]
    sys.stdout.write(
        f"audit: {len(vulnerable)} packages with known vulnerabilities; {len(looked_up)} of {len(packages)}"
        f" looked up{'' if looked_up else ': NOT DONE, the service knows none of them'}\n"
    )
    sys.exit(1 if vulnerable else 0)


if __name__ == "__main__":
    main()
