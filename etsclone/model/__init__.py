"""The words of etsclone as frozen, validated data. No module here does input or output."""
