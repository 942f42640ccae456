"""`python -m l2d` is the command line."""

from __future__ import annotations

from l2d.cli import main

if __name__ == "__main__":
    main()
