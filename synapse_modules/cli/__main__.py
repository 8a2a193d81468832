"""``python -m synapse_modules.cli`` is `govctl`."""

from __future__ import annotations

from synapse_modules.cli.main import main

if __name__ == "__main__":
    main()
