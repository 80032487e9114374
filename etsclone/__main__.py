"""`python -m etsclone`."""

from etsclone.cli import main

main()
