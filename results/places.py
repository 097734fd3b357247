"""Places of stores: from a path or URI to its folder."""

from __future__ import annotations

from pathlib import Path

from results.files import NAME, Disk, Folder, StoreError


def locate(place: str | Path) -> Folder:
    """The folder at a path, a `file://` URI or an `s3://bucket/prefix` URI. Raises StoreError for any other URI."""
    text = str(place).removeprefix("file://")
    if "://" not in text:
        return Disk(str(Path(text).expanduser().absolute()))
    scheme, _, rest = text.partition("://")
    if scheme != "s3":
        raise StoreError(f"Store `{place}` is neither a path nor a known URI: expected file:// or s3://bucket/prefix.")
    from results import objects  # only whoever uses an object store waits for its library

    bucket, *prefix = rest.rstrip("/").split("/")
    if not all(NAME.fullmatch(part) for part in (bucket, *prefix)):
        raise StoreError(
            f"Store `{place}` is not an address in S3: expected s3://bucket/prefix, whose parts have at most 128 "
            "letters, digits, `.`, `_` and `-`, a letter or digit first."
        )
    return objects.Bucket("/".join(["s3:/", bucket, *prefix]), objects.connect(bucket), f"s3://{bucket}")
