"""etsclone: two servers, one disk image, one small signed file apart."""

__version__ = "0.1.0.dev0"
