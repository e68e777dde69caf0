"""The tables of runs in Spark: python examples/spark_tables.py RUN, the destination of `darkroom develop`.

Needs Java 17 and `pip install pyspark`. For buckets: s3a:// URLs and the package org.apache.hadoop:hadoop-aws.
"""

import os
import sys

if __name__ == "__main__" and len(sys.argv) != 2:
    print(__doc__.splitlines()[0], file=sys.stderr)
    sys.exit(2)

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F


def failed_share(session: SparkSession, run: str) -> DataFrame:
    """Run, objects, and the share of them that could not be read."""
    manifest = session.read.parquet(f"{run}/current/manifest")
    failed = F.avg((F.col("status") == "failed").cast("double"))
    return manifest.groupBy("run").agg(F.count("*").alias("objects"), F.round(failed, 3).alias("failed_share"))


def vectors(session: SparkSession, run: str) -> DataFrame:
    """Key, model and the vector of every picture, for runs of the recipe `represent`: 8-bit numbers times one step.

    Where no run has left latents, there is no such folder.
    """
    latents = session.read.parquet(f"{run}/current/latents").where(F.col("stream").isNull())
    vector = F.transform("latent", lambda number: number * F.element_at("scale", 1))
    return latents.select("key", "model", vector.alias("vector"))


if __name__ == "__main__":
    # workers run this very Python, on this machine alone
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    spark = (
        SparkSession.builder.master("local[2]")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.sql.shuffle.partitions", "2")
        .getOrCreate()
    )
    for row in [*failed_share(spark, sys.argv[1]).collect(), *vectors(spark, sys.argv[1]).collect()]:
        print(*(len(value) if isinstance(value, list) else value for value in row), sep="\t")
    spark.stop()
