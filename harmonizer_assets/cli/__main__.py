"""`python -m harmonizer_assets.cli`."""

from harmonizer_assets.cli import main

main()
