"""The tables a run writes: Arrow schemas, versioned.

Every table has `key` (the object's path below the source, with `/`) and `shard`; those of runs have `sequence` too, and
`run` from the Hive path `tables/<table>/run=<id>/part-<shard>.parquet`. Their present state, with `run` as a column, is
`current/<table>/<run>-<shard>.parquet`. A null always means "does not apply", never "went wrong": what went
wrong is a row in `failures`. No table holds NaN.
"""

from __future__ import annotations

import pyarrow as pa

#: Raised whenever a column changes its name, type or meaning; written into every file's metadata.
SCHEMA_VERSION = 6

_UTC = pa.timestamp("us", tz="UTC")
_BYTES = pa.list_(pa.field("element", pa.int8(), nullable=False))
_SIZES = pa.list_(pa.field("element", pa.int32(), nullable=False))
_FLOATS = pa.list_(pa.field("element", pa.float32(), nullable=False))


def _schema(name: str, *columns: tuple[str, pa.DataType, bool, str]) -> pa.Schema:
    fields = [pa.field(n, t, nullable=nullable, metadata={"description": text}) for n, t, nullable, text in columns]
    return pa.schema(fields, metadata={"darkroom.table": name, "darkroom.schema_version": str(SCHEMA_VERSION)})


_KEY = (
    ("key", pa.string(), False, "path of the object below the source; of one frame of it: that, # and its number"),
    ("shard", pa.int32(), False, "number of the shard that wrote the row"),
)

_OF_RUNS = (
    *_KEY,
    ("sequence", pa.int32(), False, "a later run at the destination has a larger number"),
)

MANIFEST = _schema(
    "manifest",
    *_OF_RUNS,
    ("url", pa.string(), False, "full URL of the object"),
    ("size", pa.int64(), False, "bytes of the object, as listed"),
    ("etag", pa.string(), False, "what the store says identifies this content (local files: size and time)"),
    ("modified", _UTC, True, "last modification, as listed"),
    ("sha256", pa.string(), True, "SHA-256 of the bytes, hexadecimal; null when they could not be read"),
    ("width", pa.int32(), True, "pixels, upright (after EXIF orientation), of the crop if any; null when undecodable"),
    ("height", pa.int32(), True, "pixels, likewise"),
    ("channels", pa.int32(), True, "1 grey, 2 grey + alpha, 3 RGB, 4 RGB + alpha"),
    ("bit_depth", pa.int32(), True, "bits per sample in the file; of a .drk stream those of its original"),
    ("format", pa.string(), True, "jpeg, png, webp, tiff, bmp, gif, jpeg2000, avif, drk, …"),
    ("mode", pa.string(), True, "the file's colour model: grey, rgb, rgb+alpha, palette, cmyk, …"),
    ("orientation", pa.int32(), True, "EXIF orientation found in the file, 1..8"),
    ("perceptual_hash", pa.string(), True, "64-bit DCT hash, 16 hexadecimal digits; near pictures differ in few bits"),
    (
        "status",
        pa.string(),
        False,
        "ok, partial (some branches failed), failed, left_out (no picture, nor called like one), gone (no longer in "
        "the source; in no current table)",
    ),
    ("reason", pa.string(), True, "reason class when it is not ok (see failures)"),
    (
        "file",
        pa.string(),
        True,
        "path of the object, of which the row is one frame, or whose original it names (decompress); null: key is it",
    ),
    ("frame", pa.int32(), True, "number of the frame, page or slice in its file, from 0; null for ordinary pictures"),
    ("frames", pa.int32(), True, "frames the file announces"),
    ("duration_s", pa.float64(), True, "seconds the frame is shown; null when the file does not say"),
    ("damaged", pa.string(), True, "what is missing or wrong in the file and was filled in; null when nothing was"),
    ("omitted", pa.string(), True, "what else the file holds: further frames, bands that are no alpha; null: nothing"),
)

METRICS = _schema(
    "metrics",
    *_OF_RUNS,
    ("branch", pa.string(), False, "name of the branch in the recipe"),
    ("reference", pa.string(), False, "what it is compared with: source or a branch"),
    ("width", pa.int32(), False, "pixels of the developed picture"),
    ("height", pa.int32(), False, "pixels of the developed picture"),
    ("mse", pa.float64(), True, "mean squared error on 8-bit levels; null when sizes differ or metrics are off"),
    ("psnr", pa.float64(), True, "dB on 8-bit levels, at most 100 (identical pictures: 100)"),
    ("ssim", pa.float64(), True, "mean over colour channels, Gaussian window 11, sigma 1.5"),
    ("ms_ssim", pa.float64(), True, "five scales, fewer for pictures under 176 pixels"),
    ("mae", pa.float64(), True, "mean absolute error, 8-bit levels"),
    (
        "path",
        pa.string(),
        True,
        "path below the destination of the file that all figures of the row are of: the stream where a codec step came "
        "last, else the developed picture; null when none is kept",
    ),
    ("unchanged", pa.bool_(), True, "no step changed the picture, and the file is a copy of the source's bytes"),
    ("dropped", pa.string(), True, "what the source has and that file cannot hold; null when nothing"),
    ("bytes", pa.int64(), True, "size of that file; null when none is kept"),
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
    (
        "noise_before",
        pa.float64(),
        True,
        "noise in what the branch's first restoration step got, 8-bit levels, texture not counted",
    ),
    ("noise_after", pa.float64(), True, "likewise in what its last restoration step gave"),
    ("colour_drift", pa.float64(), True, "most that a restoration step moved the mean of a channel, 8-bit levels"),
    ("structure_drift", pa.float64(), True, "1 - SSIM of what a restoration step got and gave, both made small; most"),
    (
        "warning",
        pa.string(),
        True,
        "why a result is to be looked at, of restorations and learned streams; null when all is well",
    ),
    ("skipped", pa.string(), True, "restoration steps that found nothing to do, and why; null when there are none"),
)

LATENTS = _schema(
    "latents",
    *_OF_RUNS,
    ("branch", pa.string(), False, "branch whose step said it"),
    ("model", pa.string(), False, "name of the model, @ and the first 12 digits of its weights' SHA-256"),
    (
        "latent",
        _BYTES,
        True,
        "symbols in C, H, W order, or those of a vector, -127..127; null over 40 megapixels: in the stream only",
    ),
    ("shape", _SIZES, False, "C, H, W of a codec's latent; the length of a vector"),
    (
        "scale",
        _FLOATS,
        False,
        "size of a step. A codec's, per channel: symbol * scale is what the prior's mean left over; a vector's, one "
        "number: symbol * scale is the vector",
    ),
    ("stream", pa.string(), True, "path of the stream below the destination; null for vectors"),
    ("hyper", _BYTES, True, "symbols of the hyper latents in C, H, W order; null when latent is, and for vectors"),
    ("hyper_shape", _SIZES, True, "C, H, W of the hyper latents; null for vectors"),
    ("overflow", _SIZES, True, "symbols that were clipped: flat index, value, flat index, value, …"),
    ("quality", pa.float64(), True, "1..64, in sixteenths; null for vectors"),
    ("width", pa.int32(), False, "pixels of the picture"),
    ("height", pa.int32(), False, "pixels of the picture"),
    ("grey", pa.bool_(), False, "whether it is grey; else RGB"),
    ("tile", pa.int32(), True, "pixels a side of the stream's tiles; null for vectors"),
)

FAILURES = _schema(
    "failures",
    *_OF_RUNS,
    ("branch", pa.string(), True, "null when the picture itself failed"),
    ("stage", pa.string(), False, "read, decode, develop, measure, encode or write"),
    ("reason", pa.string(), False, "truncated, too_large, unsupported, corrupt, not_an_image, read_error, …"),
    ("message", pa.string(), False, "what happened, for people"),
)

SCHEMAS: dict[str, pa.Schema] = {
    "manifest": MANIFEST,
    "metrics": METRICS,
    "latents": LATENTS,
    "failures": FAILURES,
}

_CODEC = (
    ("codec", pa.string(), False, "name of the codec or of the published curve"),
    ("group", pa.string(), False, "measured (in this evaluation) or published (by others, taken from a file)"),
)

POINTS = _schema(
    "points",
    *_CODEC,
    ("branch", pa.string(), True, "branch of the run that was measured; null for published points"),
    ("parameter", pa.string(), True, "the codec's parameter that was varied; null when lossless or published"),
    ("value", pa.float64(), True, "its value"),
    ("pictures", pa.int64(), True, "pictures the means are over: those that every branch could do; null if published"),
    ("bpp", pa.float64(), False, "mean bits per pixel, whole files (published: as published)"),
    ("psnr", pa.float64(), False, "mean of the pictures' PSNR, dB on 8-bit levels, at most 100"),
    ("ms_ssim", pa.float64(), True, "mean of the pictures' MS-SSIM; null where none was published"),
    ("encode_s", pa.float64(), True, "mean seconds to encode a picture"),
    ("decode_s", pa.float64(), True, "mean seconds to decode a picture"),
)

BD_RATES = _schema(
    "bd_rate",
    *_CODEC,
    ("anchor", pa.string(), False, "codec or published curve the rate is compared with"),
    ("anchor_group", pa.string(), False, "measured or published"),
    ("metric", pa.string(), False, "psnr or ms_ssim (as -10 log10(1 - MS-SSIM))"),
    ("bd_rate", pa.float64(), True, "percent more (positive) or fewer bits at equal quality; null: see message"),
    ("low", pa.float64(), True, "dB, lower end of the qualities both reach"),
    ("high", pa.float64(), True, "dB, upper end"),
    ("left_out", pa.int64(), True, "points of both curves that were no better than a cheaper one"),
    ("message", pa.string(), True, "why there is no figure"),
)

_RESTORED = (
    ("suite", pa.string(), False, "denoise, upscale, deblock, inpaint, deblur or enhance"),
    ("setting", pa.string(), False, "how the pictures were spoiled, such as float-25, x2 or q10"),
    ("method", pa.string(), False, "name of the method or of the published one"),
    ("label", pa.string(), False, "its name for people"),
    ("group", pa.string(), False, "input, baseline, network or (by others, taken from a file) published"),
    ("told", pa.string(), False, "what it knew besides the picture; empty for nothing"),
)

_RESTORATION_SCORES = (
    ("psnr", pa.float64(), True, "dB over all channels on 8-bit levels, at most 100; null where the suite has others"),
    ("ssim", pa.float64(), True, "mean of the channels"),
    ("psnr_y", pa.float64(), True, "dB on BT.601 studio-range luma, border cut"),
    ("ssim_y", pa.float64(), True, "likewise"),
    ("psnr_b", pa.float64(), True, "dB on luma, less what stands out at the borders of 8 x 8 blocks"),
    ("psnr_holes", pa.float64(), True, "dB over the missing pixels alone"),
    ("seconds", pa.float64(), True, "seconds a picture, waiting for the device included; null if published"),
)

RESTORATION_SCORES = _schema(
    "scores",
    ("key", pa.string(), False, "path of the object below the source"),
    *_RESTORED,
    *_RESTORATION_SCORES,
)

RESTORATION_MEANS = _schema(
    "means",
    *_RESTORED,
    ("pictures", pa.int64(), True, "pictures the means are over; null if published"),
    ("gain", pa.float64(), True, "how much more of the suite's first score than the input has; null if published"),
    *_RESTORATION_SCORES,
    ("source", pa.string(), True, "where a published row is from"),
)

TRAVERSAL = _schema(
    "traversal",
    ("rank", pa.int64(), False, "0 for the number of the latent that changes the picture most"),
    ("dimension", pa.int64(), False, "which number of the latent"),
    ("mean", pa.float64(), False, "of this number over pictures"),
    ("deviation", pa.float64(), False, "its standard deviation over pictures"),
    ("pixel_change", pa.float64(), False, "mean difference of the pictures at both ends of its range, 8-bit levels"),
    ("share", pa.float64(), False, "of what all numbers change, 0..1"),
    ("brightness", pa.float64(), False, "by how many 8-bit levels the upper end is brighter"),
    ("contrast", pa.float64(), False, "by how many 8-bit levels its brightness deviates more"),
    ("warmth", pa.float64(), False, "by how many 8-bit levels red gains on blue; 0 for grey"),
    ("area", pa.float64(), False, "share of pixels that differ by more than 16 levels"),
    ("centre_x", pa.float64(), True, "where the change is, 0 left to 1 right; null where there is none"),
    ("centre_y", pa.float64(), True, "likewise, 0 top to 1 bottom"),
    ("extent", pa.float64(), True, "its standard deviation, in parts of a side; an even change has 0.29"),
    ("says", pa.string(), False, "the same in words"),
)

EXPLORED = _schema(
    "explored",
    ("key", pa.string(), False, "path of the picture below the source"),
    ("model", pa.string(), False, "whose latent it is, name@hash"),
    ("label", pa.string(), True, "as given; null when none is"),
    ("pca_x", pa.float64(), False, "first principal component"),
    ("pca_y", pa.float64(), False, "second"),
    ("umap_x", pa.float64(), True, "place on the UMAP map; null when none was made"),
    ("umap_y", pa.float64(), True, "likewise"),
    ("kmeans", pa.int32(), False, "k-means cluster, 0 the largest"),
    ("hdbscan", pa.int32(), True, "HDBSCAN cluster, 0 the largest; null for pictures in no dense place"),
    ("duplicates", pa.int32(), True, "group of near-duplicates; null for none"),
    ("latent", pa.float64(), True, "mean distance of the latent from its nearest neighbours"),
    (
        "reconstruction",
        pa.float64(),
        True,
        "squared error of the reconstruction over the picture's variance; null: codec",
    ),
    ("patch", pa.float64(), True, "distance of the oddest patch from those of others (PatchCore); null if unreadable"),
    ("patch_x", pa.float64(), True, "where that patch is, 0 left to 1 right"),
    ("patch_y", pa.float64(), True, "likewise, 0 top to 1 bottom"),
    ("heat", pa.string(), True, "path of the heat map below the exploration; null when none was drawn"),
)

NEIGHBOURS = _schema(
    "neighbours",
    ("key", pa.string(), False, "path of the picture below the source"),
    ("rank", pa.int32(), False, "0 for the nearest"),
    ("neighbour", pa.string(), False, "path of the other picture"),
    ("similarity", pa.float64(), False, "cosine of the centred latents, -1..1"),
)

DUPLICATES = _schema(
    "duplicates",
    ("group", pa.int32(), False, "pictures connected by pairs are one group; 0 the largest"),
    ("key", pa.string(), False, "path of a picture below the source"),
    ("other", pa.string(), False, "path of another that shows the same"),
    ("kind", pa.string(), False, "copy, mirrored copy, part or mirrored part"),
    ("correlation", pa.float64(), False, "of both as wholes, made small, in grey, -1..1"),
    ("agreeing", pa.int32(), False, "local features that agree on one shift, turn and scale; 0 where not needed"),
)

CLUSTERS = _schema(
    "clusters",
    ("method", pa.string(), False, "k-means or HDBSCAN"),
    ("cluster", pa.int32(), False, "its number, 0 the largest"),
    ("pictures", pa.int64(), False, "how many it has"),
    ("centre", pa.string(), False, "path of the picture nearest to its mean"),
    ("label", pa.string(), True, "the commonest label in it; null when none are given"),
)

PROBES = _schema(
    "probes",
    ("probe", pa.string(), False, "linear (logistic regression) or nearest neighbours"),
    ("accuracy", pa.float64(), False, "on held-out pictures, 0..1"),
    ("chance", pa.float64(), False, "share of the commonest class among them"),
    ("train", pa.int64(), False, "pictures trained on"),
    ("test", pa.int64(), False, "pictures held out"),
    ("classes", pa.int64(), False, "how many labels there are"),
)

LOOKS = _schema(
    "looks",
    *_KEY,
    ("width", pa.int32(), False, "pixels of the picture"),
    ("height", pa.int32(), False, "pixels of the picture"),
    ("thumbnail", pa.binary(), False, "a WebP file"),
    ("luma", pa.binary(), False, "32 x 32 uint8, the whole picture squeezed to a square"),
    ("colour", pa.binary(), False, "means of R, G, B, float32 in 0..255"),
    ("hash", pa.string(), False, "perceptual hash, 16 hexadecimal digits"),
    ("mirrored_hash", pa.string(), False, "that of the mirror image"),
    ("points", pa.binary(), False, "places of local features, M x 2 float32: x, y in a small copy"),
    ("descriptors", pa.binary(), False, "their descriptors, M x 128 uint8"),
    ("features_width", pa.int32(), False, "pixels that the small copy is wide"),
    ("model_input", pa.binary(), True, "the picture as the network is given it, C x H x W uint8; null for codecs"),
)

DETAILS = _schema(
    "details",
    *_KEY,
    ("high", pa.int32(), False, "patches below each other"),
    ("wide", pa.int32(), False, "patches side by side"),
    ("patches", pa.binary(), False, "their descriptions, numbers x high x wide float16"),
    ("preview", pa.binary(), False, "a JPEG file of the picture"),
)

#: What an evaluation leaves in runs/<id>/evaluation/<name>.parquet; no `key` and `shard`, for it is over all pictures.
EVALUATION_SCHEMAS: dict[str, pa.Schema] = {"points": POINTS, "bd_rate": BD_RATES}
#: What a suite leaves there.
SUITE_SCHEMAS: dict[str, pa.Schema] = {"scores": RESTORATION_SCORES, "means": RESTORATION_MEANS}
#: What shards of an exploration leave of the pictures until it is written, in explorations/<id>/tables/.
LOOK_SCHEMAS: dict[str, pa.Schema] = {"looks": LOOKS, "details": DETAILS}
#: What an exploration leaves in explorations/<id>/<name>.parquet.
EXPLORATION_SCHEMAS: dict[str, pa.Schema] = {
    "explored": EXPLORED,
    "neighbours": NEIGHBOURS,
    "duplicates": DUPLICATES,
    "clusters": CLUSTERS,
    "probes": PROBES,
}

#: What `darkroom generate --traverse` leaves in traversal.parquet.
GENERATION_SCHEMAS: dict[str, pa.Schema] = {"traversal": TRAVERSAL}

#: tables of which shards write parts, whatever the work
SHARD_TABLES = (*SCHEMAS, "scores", "looks", "details")


def current_schema(table: str) -> pa.Schema:
    """Return the schema of a table of runs with the column `run`, as its current parts have it. Raises KeyError."""
    return SCHEMAS[table].append(
        pa.field("run", pa.string(), nullable=False, metadata={"description": "name of the run"})
    )


def schema_of(table: str) -> pa.Schema:
    """Return the schema of a table by its name. Raises KeyError."""
    return _ALL[table]


_ALL = SCHEMAS | EVALUATION_SCHEMAS | SUITE_SCHEMAS | LOOK_SCHEMAS | EXPLORATION_SCHEMAS | GENERATION_SCHEMAS
