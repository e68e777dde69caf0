"""Content types of what is written, by the ending of its name: the machine's own table may know few of them."""

from __future__ import annotations

from pathlib import PurePosixPath

#: of what is no picture, page or table, such as streams of codecs and weights
UNKNOWN = "application/octet-stream"

CONTENT_TYPES = {
    ".apng": "image/apng",
    ".avi": "video/x-msvideo",
    ".avif": "image/avif",
    ".avifs": "image/avif",
    ".css": "text/css; charset=utf-8",
    ".csv": "text/csv; charset=utf-8",
    ".drk": UNKNOWN,
    ".gif": "image/gif",
    ".html": "text/html; charset=utf-8",
    ".jp2": "image/jp2",
    ".jpeg": "image/jpeg",
    ".jpg": "image/jpeg",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".jxl": "image/jxl",
    ".m4v": "video/mp4",
    ".md": "text/markdown; charset=utf-8",
    ".mkv": "video/matroska",
    ".mov": "video/quicktime",
    ".mp4": "video/mp4",
    ".npy": UNKNOWN,
    ".onnx": UNKNOWN,
    ".parquet": "application/vnd.apache.parquet",
    ".png": "image/png",
    ".safetensors": UNKNOWN,
    ".svg": "image/svg+xml",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
    ".txt": "text/plain; charset=utf-8",
    ".webm": "video/webm",
    ".webp": "image/webp",
}


def content_type(key: str) -> str:
    """Return the Content-Type of an object of that key."""
    return CONTENT_TYPES.get(PurePosixPath(key).suffix.lower(), UNKNOWN)
