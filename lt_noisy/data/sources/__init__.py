"""Where images come from: TFDS, an `.npz` file (images, or vectors in their place), a folder of class sub-folders,
a table or lists of files, Parquet files, published sets with real label noise, or scikit-learn's digits; and `halves`
and `development`, which change another source.
"""

from lt_noisy.config.spec import table
from lt_noisy.data.sources import development, digits, features, folder, halves, npz, official, parquet, tables, tfds

SOURCES = table(
    {
        "tfds": tfds.tfds,
        "npz": npz.npz,
        "features": features.features,
        "folder": folder.folder,
        "table": tables.table,
        "filelist": tables.filelist,
        "parquet": parquet.parquet,
        "clothing1m": official.clothing1m,
        "webvision": official.webvision,
        "cnwl": official.cnwl,
        "animal10n": official.animal10n,
        "food101n": official.food101n,
        "digits": digits.digits,
        "halves": halves.halves,
        "development": development.development,
    }
)
