"""The tables a run writes: Arrow schemas, versioned, and how they become Parquet.

Every table has `key` (the object's path below the source, with `/`) and `shard`; `run` comes from the Hive path
`tables/<table>/run=<id>/part-<shard>.parquet`. A null always means "does not apply", never "went wrong": what went
wrong is a row in `failures`. No table holds NaN.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

#: Raised whenever a column changes its name, type or meaning; written into every file's metadata.
SCHEMA_VERSION = 1

_UTC = pa.timestamp("us", tz="UTC")
_BYTES = pa.list_(pa.field("element", pa.int8(), nullable=False))
_SIZES = pa.list_(pa.field("element", pa.int32(), nullable=False))
_FLOATS = pa.list_(pa.field("element", pa.float32(), nullable=False))


def _schema(name: str, *columns: tuple[str, pa.DataType, bool, str]) -> pa.Schema:
    fields = [pa.field(n, t, nullable=nullable, metadata={"description": text}) for n, t, nullable, text in columns]
    return pa.schema(fields, metadata={"darkroom.table": name, "darkroom.schema_version": str(SCHEMA_VERSION)})


_KEY = (
    ("key", pa.string(), False, "path of the object below the source"),
    ("shard", pa.int32(), False, "number of the shard that wrote the row"),
)

MANIFEST = _schema(
    "manifest",
    *_KEY,
    ("url", pa.string(), False, "full URL of the object"),
    ("size", pa.int64(), False, "bytes, as listed"),
    ("etag", pa.string(), False, "what the store says identifies this content (local files: size and time)"),
    ("modified", _UTC, True, "last modification, as listed"),
    ("sha256", pa.string(), True, "SHA-256 of the bytes, hexadecimal; null when they could not be read"),
    ("width", pa.int32(), True, "pixels, upright (after EXIF orientation); null when undecodable"),
    ("height", pa.int32(), True, "pixels, upright"),
    ("channels", pa.int32(), True, "1 grey, 2 grey + alpha, 3 RGB, 4 RGB + alpha"),
    ("bit_depth", pa.int32(), True, "bits per sample in the file"),
    ("format", pa.string(), True, "jpeg, png, webp, tiff, bmp, gif, jpeg2000, avif, …"),
    ("mode", pa.string(), True, "the file's colour model: grey, rgb, rgb+alpha, palette, cmyk, …"),
    ("orientation", pa.int32(), True, "EXIF orientation found in the file, 1..8"),
    ("perceptual_hash", pa.string(), True, "64-bit DCT hash, 16 hexadecimal digits; near pictures differ in few bits"),
    ("status", pa.string(), False, "ok or failed"),
    ("reason", pa.string(), True, "reason class when failed (see failures)"),
)

METRICS = _schema(
    "metrics",
    *_KEY,
    ("branch", pa.string(), False, "name of the branch in the recipe"),
    ("reference", pa.string(), False, "what it is compared with: source or a branch"),
    ("width", pa.int32(), False, "pixels of the developed picture"),
    ("height", pa.int32(), False, "pixels of the developed picture"),
    ("mse", pa.float64(), True, "mean squared error on 8-bit levels; null when sizes differ or metrics are off"),
    ("psnr", pa.float64(), True, "dB on 8-bit levels, at most 100 (identical pictures: 100)"),
    ("ssim", pa.float64(), True, "mean over colour channels, Gaussian window 11, sigma 1.5"),
    ("ms_ssim", pa.float64(), True, "five scales, fewer for pictures under 176 pixels"),
    ("mae", pa.float64(), True, "mean absolute error, 8-bit levels"),
    ("bytes", pa.int64(), True, "size of the stream (codec branches) or of the developed file; null when none is kept"),
    ("bpp", pa.float64(), True, "8 * bytes / pixels of the source picture, headers included"),
    ("compression_ratio", pa.float64(), True, "uncompressed bytes of the source picture / bytes"),
    ("encode_s", pa.float64(), True, "seconds to encode, waiting for the device included (codec branches only)"),
    ("decode_s", pa.float64(), True, "seconds to decode, waiting included (codec branches only)"),
    ("develop_s", pa.float64(), False, "seconds spent in the branch's steps"),
    ("entropy", pa.float64(), True, "bits per pixel of the 8-bit luma histogram, 0..8"),
    ("contrast", pa.float64(), True, "RMS contrast: standard deviation of luma, 8-bit levels"),
    ("sharpness", pa.float64(), True, "variance of the Laplacian of luma"),
    ("colourfulness", pa.float64(), True, "Hasler and Süsstrunk 2003; 0 for grey"),
    ("noise_sigma", pa.float64(), True, "estimated noise, 8-bit levels (Immerkær 1996)"),
)

LATENTS = _schema(
    "latents",
    *_KEY,
    ("branch", pa.string(), False, "branch whose step said it"),
    ("model", pa.string(), False, "name of the model, @ and the first 12 digits of its weights' SHA-256"),
    ("latent", _BYTES, False, "symbols in C, H, W order"),
    ("shape", _SIZES, False, "C, H, W of the latent"),
    ("scale", _FLOATS, False, "per channel: latent value = symbol * scale"),
    ("stream", pa.string(), True, "path of the stream below the destination"),
)

FAILURES = _schema(
    "failures",
    *_KEY,
    ("branch", pa.string(), True, "null when the picture itself failed"),
    ("stage", pa.string(), False, "read, decode, develop, measure, encode or write"),
    ("reason", pa.string(), False, "truncated, too_large, unsupported, corrupt, not_an_image, read_error, …"),
    ("message", pa.string(), False, "what happened, for people"),
)

SCHEMAS: Mapping[str, pa.Schema] = {
    "manifest": MANIFEST,
    "metrics": METRICS,
    "latents": LATENTS,
    "failures": FAILURES,
}

#: Rows per row group. Flat rows are small; a latent is some tens of kilobytes, so 100 of them are a few megabytes.
_ROW_GROUP = {"manifest": 10_000, "metrics": 10_000, "latents": 100, "failures": 10_000}


def to_parquet(table: str, rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Rows (in the order given) as the bytes of one Parquet file with the table's fixed schema.

    The same rows give the same bytes. Raises pyarrow.ArrowInvalid when a row does not fit the schema.
    """
    arrow = pa.Table.from_pylist(list(rows), schema=SCHEMAS[table])
    buffer = io.BytesIO()
    pq.write_table(
        arrow,
        buffer,
        compression="zstd",
        row_group_size=_ROW_GROUP[table],
        write_page_index=True,
        data_page_version="1.0",
    )
    return buffer.getvalue()


def part_path(table: str, run: str, shard: int) -> str:
    """Where a shard's part of a table lies below the destination."""
    return f"tables/{table}/run={run}/part-{shard:05d}.parquet"
